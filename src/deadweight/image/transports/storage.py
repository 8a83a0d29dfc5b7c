"""`containers-storage:`, where podman, buildah and CRI-O keep images, by skopeo, which has the code for it.

skopeo copies between it and a temporary folder: a `dir:` when reading, which leaves manifest, configuration and layers
as they are, and an OCI layout when writing. Other stores are named as skopeo does: [DRIVER@ROOT+RUNROOT]NAME. Short
names are what they are to podman: `localhost`'s, else docker.io's where those are read, which alone they are to skopeo.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import msgspec

from deadweight.errors import BadInputError, EnvironmentFailure, UsageError, shown
from deadweight.image.compression import temporary_folder
from deadweight.image.model import DIGEST, Image, sha256
from deadweight.image.output import NewImage, Progress, Written
from deadweight.image.reference import Reference, docker_name, full_name, has_host, is_id
from deadweight.image.transports.destination import writing
from deadweight.image.transports.manifests import OCI_INDEX, OCI_MANIFEST, dump
from deadweight.image.transports.names import (
    SOURCE,
    SOURCE_NAME,
    RolledBack,
    free_name,
    labels_in,
    may_take,
    name_taken,
    no_slim_image,
    original_gone,
)
from deadweight.image.transports.oci import open_directory
from deadweight.image.transports.store import BLOBS
from deadweight.image.transports.write import LAYOUT, write_image

Report = Callable[[str, int, int], None]
_NOT_THERE = re.compile(r"does not resolve to an image ID|identifier is not an image|no such image", re.IGNORECASE)


def open_storage(reference: Reference, platform: str | None, resources: ExitStack, report: Report | None) -> Image:
    """The image of a `containers-storage:` reference.

    Raises UsageError where there is none, EnvironmentFailure where skopeo is missing or fails.
    """
    if report is not None:
        report(f"skopeo copies {reference}", 0, 0)
    found = _found(reference)
    if found is None:
        raise UsageError(f"there is no image {shown(str(reference))}; `podman image ls` lists those that are")
    reference = found[0]
    folder = _folder(resources)
    with writing(folder):
        copy = folder / "copy"
        _skopeo("copy", "--quiet", str(reference), f"dir:{copy}")
        layout = _as_layout(copy)
    image = open_directory(Reference("oci", layout), platform, resources)
    name = None if is_id(_bare(reference.name)) else _bare(reference.name)
    return replace(image, reference=str(reference), tag=docker_name(name or ""), name=name)


def _as_layout(folder: Path) -> Path:
    """Makes an OCI layout of skopeo's `dir:`, in which blobs lie beside manifest.json by their digests."""
    manifest = (folder / "manifest.json").read_bytes()
    try:
        kind = json.loads(manifest).get("mediaType", OCI_MANIFEST)
    except (ValueError, AttributeError):
        raise BadInputError("skopeo gave a manifest that is no JSON object") from None
    blobs = folder / BLOBS
    blobs.mkdir(parents=True)
    for path in list(folder.iterdir()):
        if DIGEST.fullmatch(f"sha256:{path.name}"):
            path.rename(blobs / path.name)
    digest = sha256(manifest)
    (blobs / digest[7:]).write_bytes(manifest)
    entry = {"mediaType": kind, "digest": digest, "size": len(manifest)}
    (folder / "index.json").write_bytes(dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}))
    (folder / "oci-layout").write_bytes(LAYOUT)
    return folder


def check_storage(
    destination: Reference, *, force: bool, source_id: str | None = None, source_name: str | None = None
) -> None:
    """Refuses a name that `write_storage` would refuse; see `check_engine`. Raises UsageError or EnvironmentFailure."""
    known = source_name is not None and local_name(source_name) == _bare(_local(destination).name)
    _check_name(destination, source_id, force, None if known else source_id)


def _check_name(
    destination: Reference, source_id: str | None, force: bool, new_id: str | None
) -> tuple[Reference, str] | None:
    """Where an image is, and its ID, to which the name leads and which has to keep another one.

    Raises UsageError where the name may not go.
    """
    found = _found(destination)
    if found is None:
        return None
    there, data = found
    image_id = sha256(data)
    if image_id == new_id or may_take(labels_in(data), image_id, source_id):
        return None
    if not force:
        raise name_taken(_bare(there.name), image_id == source_id)
    return there, image_id


def write_storage(new: NewImage, destination: Reference, force: bool, progress: Progress | None) -> Written:
    """Writes an image to the storage, by skopeo from a temporary OCI layout.

    Raises UsageError where the name is taken, EnvironmentFailure where skopeo is missing or fails.
    """
    _check_name(destination, None, force, new.known_id)
    own = _local(destination)
    notes: tuple[str, ...] = ()
    with ExitStack() as resources:
        layout = _folder(resources) / "layout"
        written = write_image(new, Reference("oci", layout, "new"), compression="none", progress=progress)
        config = (layout / BLOBS / written.config_digest[7:]).read_bytes()
        kept = _check_name(destination, labels_in(config).get(SOURCE), force, written.config_digest)
        if kept is not None:
            there, image_id = kept
            name = _bare(own.name)
            other = free_name(name, lambda one: stored_id(_at(own, one)) not in (None, image_id))
            _skopeo("copy", "--quiet", str(there), str(_at(own, other)))
            notes = (f"the image that was {name} is {other} now",)
        _skopeo("copy", "--quiet", f"oci:{layout}:new", str(own))
        data = _configuration(own)
        if data is None or sha256(data) != written.config_digest:
            raise EnvironmentFailure(f"skopeo left another image than {written.config_digest} at {own}")
    return msgspec.structs.replace(written, path=Path(str(own)), notes=(*written.notes, *notes))


def _configuration(reference: Reference) -> bytes | None:
    """The configuration of an image, as it is stored; None where there is no such image."""
    done = _ran("inspect", "--config", "--raw", str(reference))
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace")
        if _NOT_THERE.search(said):
            return None
        raise _failed(said)
    return done.stdout


def _found(reference: Reference) -> tuple[Reference, bytes] | None:
    """What a name leads podman to, and its configuration; None where there is no such image."""
    name = _bare(reference.name)
    for whole in dict.fromkeys((local_name(name), name if is_id(name) else full_name(name))):
        one = _at(reference, whole)
        config = _configuration(one)
        if config is not None:
            return one, config
    return None


def _local(reference: Reference) -> Reference:
    """The reference with its name as podman writes it."""
    return _at(reference, local_name(_bare(reference.name)))


def _at(reference: Reference, name: str) -> Reference:
    """Another name in the same storage."""
    return msgspec.structs.replace(reference, name=reference.name.removesuffix(_bare(reference.name)) + name)


def _bare(name: str) -> str:
    """A name without the [storage] that it is in."""
    return name.rpartition("]")[2]


def roll_back_storage(reference: Reference, *, dry_run: bool) -> RolledBack:
    """Points the name of a slim image at its original. With `dry_run` nothing changes.

    Raises UsageError where it is none, BadInputError where the original is gone, EnvironmentFailure.
    """
    found = _found(reference)
    if found is None:
        raise UsageError(f"there is no image {shown(str(reference))}")
    reference, config = found
    name = _bare(reference.name)
    if docker_name(name) is None or is_id(name):
        raise UsageError(f"{shown(name)} is no name that can lead elsewhere; write NAME:TAG")
    labels = labels_in(config)
    source = labels.get(SOURCE)
    if source is None or not DIGEST.fullmatch(source):
        raise no_slim_image(name)
    original = _at(reference, f"@{source[7:]}")
    if _configuration(original) is None:
        raise original_gone(source, labels.get(SOURCE_NAME), "the storage", "podman")
    slim_id = sha256(config)
    kept = free_name(name, lambda one: stored_id(_at(reference, one)) not in (None, slim_id), "-slim")
    if not dry_run:
        _skopeo("copy", "--quiet", str(reference), str(_at(reference, kept)))
        _skopeo("copy", "--quiet", str(original), str(reference))
    return RolledBack("containers-storage", name, slim_id, source, None, kept)


def stored_id(reference: Reference) -> str | None:
    """The ID of an image in the storage; None where it has none of that name. Raises EnvironmentFailure."""
    found = _found(reference)
    return None if found is None else sha256(found[1])


def local_name(name: str) -> str:
    """A name as podman writes it: short ones are of `localhost`. An ID stays one."""
    if is_id(name):
        return name
    return full_name(name) if has_host(name) else f"localhost/{name}"


def _skopeo(*arguments: str) -> None:
    done = _ran(*arguments)
    if done.returncode:
        raise _failed(done.stderr.decode("utf-8", "replace"))


def _ran(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("skopeo")
    if program is None:
        raise EnvironmentFailure(
            "containers-storage: is reached by skopeo, which is not installed (apt-get install skopeo); podman:NAME "
            "reaches the same images by Podman's socket"
        )
    try:
        return subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise EnvironmentFailure(f"cannot run {shown(program)}: {error.strerror}") from None


def _failed(said: str) -> EnvironmentFailure:
    lines = said.strip().splitlines()
    last = lines[-1] if lines else "nothing"
    match = re.search(r'msg="((?:[^"\\]|\\.)*)"', last)
    return EnvironmentFailure(f"skopeo failed: {shown(match[1] if match else last, 500)}")


def _folder(resources: ExitStack) -> Path:
    """A temporary folder that goes with `resources`."""
    try:
        name = tempfile.TemporaryDirectory(prefix="deadweight-skopeo-", dir=temporary_folder())
    except OSError as error:
        raise EnvironmentFailure(f"cannot write to {temporary_folder()}: {error.strerror}; set TMPDIR") from None
    return Path(os.path.realpath(resources.enter_context(name)))
