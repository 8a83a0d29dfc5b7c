"""Images of Docker's engine and of Podman, by their API.

Read: what `docker save` would write goes once into an unnamed temporary file. Written: a docker-archive is streamed as
it is produced, without the layers that the engine has already; the image gets its name last, when the engine has said
that its ID is the one that was worked out, so that whatever fails before leaves every name where it was.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import msgspec

from deadweight.errors import DeadweightError, EnvironmentFailure, UsageError, shown
from deadweight.image.bytes import ByteRange
from deadweight.image.compression import temporary_folder
from deadweight.image.layer import BLOCK, padding
from deadweight.image.model import Image, sha256
from deadweight.image.output import NewImage, Progress, Written
from deadweight.image.reference import Reference, docker_name, full_name, has_host
from deadweight.image.transports.archive import read_export
from deadweight.image.transports.engine_api import (
    Engine,
    EngineImage,
    export,
    image_ids,
    in_containerd,
    inspect,
    labels_of,
    load,
    reach,
    remove,
    tag,
)
from deadweight.image.transports.engine_places import docker_place, podman_place
from deadweight.image.transports.manifests import dump
from deadweight.image.transports.names import SOURCE, SOURCE_NAME, free_name, labels_in, may_take, name_taken
from deadweight.image.transports.store import tar_header
from deadweight.image.transports.stream import Stored, write_layer

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is; 0 when nobody knows."""
_RESERVE = 16 << 20
_RESERVE_LIMIT = 512 << 20
"""Bytes to spare beside an image that is exported: engines do not count the headers and padding of its tars."""
_IMAGES_LIMIT = 1000
_GRACE = 5.0
"""Seconds."""


def reached(reference: Reference, *, reading: bool = False) -> tuple[Engine, Reference]:
    """The engine that a `docker-daemon:`, `podman:` or bare reference means, and the reference that says so.

    A bare name is Docker's where its engine answers, else Podman's. Raises EnvironmentFailure; where an image is to be
    read (`reading`), it says that a file could have been meant.
    """
    if reference.transport == "docker-daemon":
        return reach(docker_place(os.environ)), reference
    if reference.transport == "podman":
        return reach(podman_place(os.environ)), reference
    docker = docker_place(os.environ)
    try:
        return reach(docker), msgspec.structs.replace(reference, transport="docker-daemon")
    except EnvironmentFailure as error:
        if docker.said_by:
            raise
        first = error
    try:
        return reach(podman_place(os.environ)), msgspec.structs.replace(reference, transport="podman")
    except EnvironmentFailure as second:
        name = shown(reference.name)
        what = f"no engine answers that could have the name {name}"
        if reading:
            what = f"there is no file or directory {name}, and no engine to ask for an image of that name"
        raise EnvironmentFailure(f"{what}: {first}; {second}") from None


def open_engine(reference: Reference, platform: str | None, resources: ExitStack, report: Report | None) -> Image:
    """The image of a `docker-daemon:`, `podman:` or bare reference.

    Raises UsageError where the engine has none of that name, EnvironmentFailure where it is not reached or there is no
    space, BadInputError where what it gives is no sound image.
    """
    bare = reference.transport == "engine"
    engine, reference = reached(reference, reading=True)
    found = inspect(engine, reference.name)
    if found is None:
        raise UsageError(_missing(engine, reference, bare))
    file = _exported(engine, reference.name, found, resources, report)
    # An ID says nothing to whoever has to get the image again.
    by_id = reference.name in (found.id, found.id[7:]) or found.id[7:].startswith(reference.name)
    name = next(iter([*found.tags, *found.digests]), None) if by_id else reference.name
    tag = docker_name(name or "") or next(iter(found.tags), None)
    image = read_export(file, reference, platform, resources)
    return replace(image, tag=tag, name=name, in_registries=tuple(found.digests))


def _missing(engine: Engine, reference: Reference, bare: bool) -> str:
    client = "podman" if engine.podman else "docker"
    there = f", and there is no such file or directory; `{client} pull {reference.name}` gets it"
    other = "" if engine.podman else f", podman:{reference.name} is Podman's"
    return f"{engine.title} has no image {shown(reference.name)}" + (
        there + other if bare else f"; `{client} image ls` lists those that it has"
    )


def _exported(engine: Engine, name: str, found: EngineImage, resources: ExitStack, report: Report | None) -> ByteRange:
    folder = temporary_folder()
    doing = f"reading {name} from {engine.title}"
    if report is not None:
        report(doing, 0, 0)
    try:
        status = os.statvfs(folder)
        free = status.f_bavail * status.f_frsize
        reserve = min(_RESERVE + found.size // 8, _RESERVE_LIMIT)
        if free < found.size + reserve:
            raise EnvironmentFailure(
                f"no space in {folder} for the image: {found.size:,} bytes and {reserve:,} to spare are needed, "
                f"{free:,} are free; set TMPDIR to a folder with more"
            )
        file = resources.enter_context(tempfile.TemporaryFile(dir=folder))
        size = export(
            engine,
            name,
            file,
            None if report is None else lambda done: report(doing, min(done, found.size), found.size),
        )
        file.flush()
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot keep the image in {folder}: {error.strerror or error}; set TMPDIR to a folder with more space"
        ) from None
    return ByteRange(file.fileno(), 0, size)


def engine_id(reference: Reference) -> str | None:
    """The ID of an image in an engine, or None where it has none of that name. Raises EnvironmentFailure."""
    engine, reference = reached(reference, reading=True)
    found = inspect(engine, reference.name)
    return None if found is None else found.id


def is_another(engine: Engine, name: str, image_id: str) -> bool:
    """Whether a name is that of another image."""
    found = inspect(engine, name)
    return found is not None and found.id != image_id


def local_name(engine: Engine, name: str) -> str:
    """A name as the engine itself writes it: Podman's short names are of `localhost`."""
    if not engine.podman:
        return name
    return full_name(name) if has_host(name) else f"localhost/{name}"


def check_engine(
    destination: Reference, *, force: bool, source_id: str | None = None, source_name: str | None = None
) -> None:
    """Refuses a name that `write_engine` would refuse, before any work is done for it.

    `source_id` and `source_name` are those of the image that the new one is made from. Another name of that image may
    be taken where nothing leaves it, which is not known yet. Raises UsageError or EnvironmentFailure.
    """
    engine, destination = reached(destination)
    known = source_name is not None and local_name(engine, source_name) == local_name(engine, destination.name)
    _check_name(engine, destination, source_id, force, None if known else source_id)


def _check_name(
    engine: Engine, destination: Reference, source_id: str | None, force: bool, new_id: str | None = None
) -> EngineImage | None:
    """The image whose name is to go to a new one (of the ID `new_id`), where that image has to keep another one.

    A short name leads Podman to an image of docker.io's as well, where there is none of `localhost`.
    """
    name = local_name(engine, destination.name)
    there = inspect(engine, name) or inspect(engine, destination.name)
    if there is None or there.id == new_id or may_take(labels_of(engine, there), there.id, source_id):
        return None
    if not force:
        raise name_taken(name if name in there.tags else destination.name, there.id == source_id)
    return there


@dataclass
class _Sent:
    """What came of sending an image."""

    layers: list[Stored]
    config: bytes = b""
    was_there: bool = False


def write_engine(new: NewImage, destination: Reference, force: bool, progress: Progress | None) -> Written:
    """Loads an image into an engine and gives it the destination's name.

    Layers are sent plain. `force` takes the name from an image that deadweight did not make, which first gets another.
    Raises UsageError where the name is taken, EnvironmentFailure where the engine is not reached or does not do it,
    and what `write_layer` raises. No name has moved then, and what was loaded is removed.
    """
    engine, destination = reached(destination)
    name = local_name(engine, destination.name)
    _check_name(engine, destination, None, force, new.known_id)
    containerd = in_containerd(engine)
    leaves_out = not (engine.podman or containerd)
    here = _layers_there(engine, new) if leaves_out else 0
    try:
        sent, loaded = _send(engine, new, here, progress)
    except EnvironmentFailure:
        # Somebody removed an image whose layers were to be used: then all is sent.
        if not here or _layers_there(engine, new) == here:
            raise
        here = 0
        sent, loaded = _send(engine, new, here, progress)
    image_id = ""
    try:
        image_id = _checked(engine, sent, loaded, containerd)
        source_id = _source_id(engine, labels_in(sent.config), containerd)
        kept = _check_name(engine, destination, source_id, force, image_id)
        notes = []
        if kept is not None:
            other = free_name(name, lambda one: is_another(engine, one, kept.id))
            _name(engine, kept.id, other)
            notes.append(f"the image that was {name} is {other} now")
        _name(engine, image_id, name)
    except BaseException:
        if not sent.was_there:
            with suppress(DeadweightError):
                _remove_nameless(engine, image_id or sha256(sent.config))
        raise
    if here:
        notes.append(f"{here} of {len(new.layers)} layers were in {engine.title} already, and were not sent")
    sizes = tuple(layer.size for layer in new.layers)
    return Written(
        Path(str(destination)),
        sha256(sent.config),
        None,
        tuple(layer.diff_id for layer in sent.layers),
        sizes,
        sizes,
        tuple(notes),
    )


def _source_id(engine: Engine, labels: Mapping[str, str], containerd: bool) -> str | None:
    """The engine's own ID of the image that a new one was made from."""
    name = labels.get(SOURCE_NAME)
    found = inspect(engine, name) if containerd and name is not None else None
    return labels.get(SOURCE) if found is None else found.id


def _send(engine: Engine, new: NewImage, here: int, progress: Progress | None) -> tuple[_Sent, str | None]:
    """Loads all but the first `here` layers, without a name."""
    sent = _Sent([])

    def produce(file: BinaryIO) -> None:
        before = 0
        for number, layer in enumerate(new.layers):
            report = None if progress is None else _after(progress, before)
            if number < here:
                assert layer.diff_id_known is not None
                if layer.check is not None:
                    layer.check(report)
                sent.layers.append(Stored(layer.diff_id_known, layer.diff_id_known, layer.size, layer.size, "none"))
            else:
                file.write(tar_header(f"{number}.tar", layer.size))
                # Copying inside the kernel is for files that can be sought in.
                plain = msgspec.structs.replace(layer, file=None)
                sent.layers.append(write_layer(plain, file, "none", f"layer {number + 1}", report))
                file.write(bytes(padding(layer.size)))
            before += layer.size
            if progress is not None:
                progress(before)
        sent.config = new.configuration([layer.diff_id for layer in sent.layers])
        sent.was_there = inspect(engine, sha256(sent.config)) is not None
        manifest = [{"Config": "config.json", "RepoTags": None, "Layers": [f"{n}.tar" for n in range(len(new.layers))]}]
        for member, data in (("config.json", sent.config), ("manifest.json", dump(manifest))):
            file.write(tar_header(member, len(data)) + data + bytes(padding(len(data))))
        file.write(bytes(2 * BLOCK))

    try:
        return sent, load(engine, produce)
    except Exception:
        raise
    except BaseException:  # stopped: an engine that has all of it goes on, and does not know that nobody waits
        if sent.config and not sent.was_there:
            _remove_soon(engine, sha256(sent.config))
        raise


def _name(engine: Engine, image_id: str, name: str) -> None:
    """Gives an image a name. An engine whose answer is lost may have done it."""
    try:
        tag(engine, image_id, name)
    except EnvironmentFailure:
        with suppress(DeadweightError):
            found = inspect(engine, name)
            if found is not None and found.id == image_id:
                return
        raise


def _remove_nameless(engine: Engine, image_id: str) -> bool:
    """Removes an image that has no name, for an engine would take that with it; gives whether it was there.

    It has one where the engine gave it and was not heard, or where another run made the same image.
    """
    found = inspect(engine, image_id)
    if found is not None and not found.tags:
        remove(engine, image_id)
    return found is not None


def _remove_soon(engine: Engine, image_id: str) -> None:
    """Removes an image that an engine may be about to have; gives up after a few seconds."""
    until = time.monotonic() + _GRACE
    with suppress(DeadweightError):
        while time.monotonic() < until:
            if _remove_nameless(engine, image_id):
                return
            time.sleep(0.1)


def _after(progress: Progress, before: int) -> Progress:
    return lambda done: progress(before + done)


def _checked(engine: Engine, sent: _Sent, loaded: str | None, containerd: bool) -> str:
    """The ID of the image in the engine, once that is seen to be the one that was sent."""
    wanted = sha256(sent.config)
    if inspect(engine, wanted) is not None:
        return wanted
    found = inspect(engine, loaded) if containerd and loaded is not None else None
    if found is not None and found.diff_ids == [layer.diff_id for layer in sent.layers]:
        return found.id
    raise EnvironmentFailure(
        f"{engine.title} loaded the image and does not have it as {wanted}: the name was not moved; run it again"
    )


def _layers_there(engine: Engine, new: NewImage) -> int:
    """How many of the first layers the engine has, below no other layers: it takes them as they are when left out.

    moby's image/tarexport opens a layer's file only where its store has no layer of that chain ID.
    """
    chains: set[str] = set()
    for image_id in image_ids(engine)[:_IMAGES_LIMIT]:
        image = inspect(engine, image_id)
        if image is not None:
            chains.update(_chain_ids(image.diff_ids))
    known = []
    for layer in new.layers:
        if layer.diff_id_known is None:
            break
        known.append(layer.diff_id_known)
    return _leading(_chain_ids(known), chains)


def _leading(wanted: Sequence[str], there: Collection[str]) -> int:
    return next((n for n, chain in enumerate(wanted) if chain not in there), len(wanted))


def _chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """The chain ID of every layer with those below it (OCI image specification, config.md)."""
    chains: list[str] = []
    for diff_id in diff_ids:
        below = chains[-1] + " " if chains else ""
        chains.append("sha256:" + hashlib.sha256((below + diff_id).encode()).hexdigest() if below else diff_id)
    return chains
