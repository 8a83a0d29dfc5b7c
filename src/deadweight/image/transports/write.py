"""Writing images. Every output is complete or absent, and the same image gives the same bytes.

A docker-archive is written as Docker 25 and later write it: an OCI layout with a manifest.json beside it, so that
engines old (by manifest.json) and new (by index.json) load it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from deadweight.errors import UsageError, shown
from deadweight.image.compression import Compression
from deadweight.image.model import Json, parse_json
from deadweight.image.output import NewImage, OutputLayer, Progress, Written
from deadweight.image.reference import ENGINES, Reference, docker_name, full_name, short_name
from deadweight.image.transports.assemble import assemble
from deadweight.image.transports.destination import (
    check_empty,
    check_file,
    check_folder,
    need_space,
    new_file,
    new_folder,
    writing,
)
from deadweight.image.transports.manifests import (
    IMAGE_NAME,
    OCI_INDEX,
    REF_NAME,
    Index,
    Layout,
    decode,
    dump,
    read_document,
)
from deadweight.image.transports.memory import Memory
from deadweight.image.transports.oci import open_regular
from deadweight.image.transports.store import BLOBS, FolderStore, Store, TarStore, replace_file
from deadweight.image.transports.stream import Stored, write_layer
from deadweight.image.transports.unpack import unpack_image

CompressionChoice = Compression | Literal["keep"]
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class _Stored(msgspec.Struct, frozen=True):
    """An image whose blobs are stored."""

    layers: list[Stored]
    config_digest: str
    manifest: Json
    """The manifest's descriptor."""


def check_destination(
    destination: Reference,
    *,
    force: bool,
    source_id: str | None = None,
    source_name: str | None = None,
    one_platform: bool = False,
) -> None:
    """Refuses a destination that `write_image` would refuse, before any work is done for it.

    `source_id` is the ID of the image that the new one is made from, whose name in an engine, `source_name`, is not
    taken. An index for several platforms gives its name to one image only where just `one_platform` is wanted. Raises
    UsageError, or EnvironmentFailure where an engine is not reached.
    """
    if destination.transport in ENGINES:
        from deadweight.image.transports.engine import check_engine  # noqa: PLC0415

        check_engine(destination, force=force, source_id=source_id, source_name=source_name)
        return
    if destination.transport == "containers-storage":
        from deadweight.image.transports.storage import check_storage  # noqa: PLC0415

        check_storage(destination, force=force, source_id=source_id, source_name=source_name)
        return
    if destination.transport == "docker":
        from deadweight.image.transports.registry_write import check_registry  # noqa: PLC0415  (httpx2 takes 0.1 s)

        check_registry(
            destination, force=force, source_id=source_id, source_name=source_name, one_platform=one_platform
        )
        return
    if destination.name:
        raise UsageError(f"cannot write to {shown(str(destination))}: say docker-archive: or oci-archive:")
    path = destination.path
    check_folder(path.resolve() if path.is_dir() else path.absolute())
    if destination.transport == "rootfs":
        check_empty(path)
    elif destination.transport == "oci":
        if path.is_dir() and any(path.iterdir()):
            _other_entries(_check_layout(path), destination.tag)
        elif path.exists() and not path.is_dir():
            raise UsageError(f"{shown(str(path))} is no directory; choose another name")
    elif destination.transport in ("docker-archive", "oci-archive"):
        check_file(path, force)
    else:
        raise UsageError(f"cannot write to {shown(str(destination))}: say docker-archive: or oci-archive:")


def write_image(
    new: NewImage,
    destination: Reference,
    *,
    compression: CompressionChoice = "keep",
    force: bool = False,
    progress: Progress | None = None,
    memory: Memory | None = None,
) -> Written:
    """Writes an image to where `destination` says.

    `compression` is that of new layers; `keep` gives each what its original had, in OCI stores, and plain tars in a
    docker-archive, as docker save does. An untouched layer's blob is stored as it is, except that a docker-archive
    has plain layers unless another compression is asked for, and that plain ones are compressed when it is.
    `force` replaces a file that is there, and takes a name in an engine from an image that deadweight did not make,
    which gets another; an OCI layout that is there gains the image. With `memory`, blobs that an OCI
    layout has already are neither written nor read again where it vouches for them; they are hashed where it does not.

    Raises UsageError when the destination cannot be meant, EnvironmentFailure when it cannot be written,
    PredictionError when a layer is not as long as it was said to be, DigestError when an untouched layer is damaged.
    Whatever it raises, nothing is left behind.
    """
    if destination.transport in ENGINES:
        from deadweight.image.transports.engine import write_engine  # noqa: PLC0415

        return write_engine(new, destination, force, progress)
    if destination.transport == "containers-storage":
        from deadweight.image.transports.storage import write_storage  # noqa: PLC0415

        return write_storage(new, destination, force, progress)
    if destination.transport == "docker":
        from deadweight.image.transports.registry_write import write_registry  # noqa: PLC0415  (httpx2 takes 0.1 s)

        return write_registry(new, destination, compression, force, progress, memory)
    if destination.name:
        raise UsageError(f"cannot write to {shown(str(destination))}: say docker-archive: or oci-archive:")
    path = destination.path
    path = path.resolve() if path.is_dir() else Path(os.path.abspath(path.parent)) / path.name  # noqa: PTH100
    check_folder(path)
    with writing(path):
        if destination.transport == "rootfs":
            return unpack_image(new, path, progress)
        if destination.transport == "oci":
            return _write_layout(new, path, destination.tag, compression, progress, memory)
        if destination.transport in ("docker-archive", "oci-archive"):
            docker = destination.transport == "docker-archive"
            return _write_archive(new, path, destination.tag, compression, docker, force, progress)
    raise UsageError(f"cannot write to {shown(str(destination))}: say docker-archive: or oci-archive:")


def _write_archive(
    new: NewImage,
    path: Path,
    tag: str | None,
    compression: CompressionChoice,
    docker: bool,
    force: bool,
    progress: Progress | None,
) -> Written:
    annotations = _annotations(tag, new.tag, docker)
    choices = [_compression(layer, compression, docker) for layer in new.layers]
    with new_file(path, force=force) as file:
        need_space(path, _needed(new.layers, choices))
        store = TarStore(file)
        stored = _store(new, store, choices, progress)
        if docker:
            name = annotations.get(IMAGE_NAME)
            image = {
                "Config": f"{BLOBS}/{stored.config_digest[7:]}",
                "RepoTags": [short_name(name)] if name else None,
                "Layers": [f"{BLOBS}/{layer.digest[7:]}" for layer in stored.layers],
            }
            store.put("manifest.json", dump([image]))
        store.put("index.json", _index([_annotated(stored.manifest, annotations)]))
        store.put("oci-layout", LAYOUT)
        store.finish()
    return _written(path, stored)


def _write_layout(
    new: NewImage,
    path: Path,
    tag: str | None,
    compression: CompressionChoice,
    progress: Progress | None,
    memory: Memory | None,
) -> Written:
    annotations = _annotations(tag, new.tag, docker=False)
    choices = [_compression(layer, compression, docker=False) for layer in new.layers]
    if path.is_dir() and any(path.iterdir()):
        with _locked(path), _undone_on_error(FolderStore(_check_layout(path), memory)) as store:
            entries = _other_entries(path, tag)
            there = [_there(*pair, store, memory) for pair in zip(new.layers, choices, strict=True)]
            need_space(path / "blobs", _needed(new.layers, choices, there))
            stored = _store(new, store, choices, progress, there)
            replace_file(path / "index.json", _index([*entries, _annotated(stored.manifest, annotations)]))
    else:
        need_space(path, _needed(new.layers, choices))
        with new_folder(path) as folder:
            stored = _store(new, FolderStore(folder, memory), choices, progress)
            replace_file(folder / "oci-layout", LAYOUT)
            replace_file(folder / "index.json", _index([_annotated(stored.manifest, annotations)]))
    return _written(path, stored)


def _there(layer: OutputLayer, choice: Compression | None, store: FolderStore, memory: Memory | None) -> Stored | None:
    """What a layer comes to, where that is known beforehand and the store has it."""
    if memory is None or layer.diff_id_known is None:
        return None
    known = None
    if choice is None and layer.source is not None:
        plain = layer.source.compression == "none"
        digest = layer.source.diff_id if plain else layer.source.digest
        if digest is not None:
            size = layer.source.blob.size
            known = Stored(layer.source.diff_id, digest, layer.size, size, layer.source.compression)
    elif choice == "none":
        known = Stored(layer.diff_id_known, layer.diff_id_known, layer.size, layer.size, "none")
    elif choice is not None:
        known = memory.packed(layer.diff_id_known, choice)
    return known if known is not None and known.size == layer.size and store.has(known) else None


def _store(
    new: NewImage,
    store: Store,
    choices: list[Compression | None],
    progress: Progress | None,
    there: Sequence[Stored | None] = (),
) -> _Stored:
    """Stores layers, configuration and manifest. A choice of None stores an untouched blob as it is.

    `there` has what layers came to that the store has already.
    """
    layers: list[Stored] = []
    before = 0
    there = there or [None] * len(choices)
    for number, (layer, choice, known) in enumerate(zip(new.layers, choices, there, strict=True), 1):
        report = None if progress is None else _after(progress, before)

        def write(
            file: Any, layer: OutputLayer = layer, choice: Any = choice, n: int = number, report: Any = report
        ) -> Stored:
            return write_layer(layer, file, choice, f"layer {n}", report)

        if known is not None and layer.check is not None:
            layer.check(report)
        layers.append(known if known is not None else store.layer(write))
        before += layer.size
        if progress is not None:
            progress(before)
    documents = assemble(new, layers)
    store.blob(documents.config)
    store.blob(documents.manifest)
    return _Stored(layers, documents.config_digest, documents.descriptor)


def _after(progress: Progress, before: int) -> Progress:
    return lambda done: progress(before + done)


def _compression(layer: OutputLayer, choice: CompressionChoice, docker: bool) -> Compression | None:
    """What a layer is stored with; None for an untouched blob that is stored as it is."""
    had = layer.source.compression if layer.source is not None else None
    if docker:
        wanted: Compression = "none" if choice == "keep" else choice
        return None if had == wanted else wanted
    if had is not None and (choice == "keep" or had != "none"):
        return None
    wanted = layer.compression if choice == "keep" else choice
    return None if had == wanted else wanted


def _needed(
    layers: tuple[OutputLayer, ...], choices: list[Compression | None], there: Sequence[Stored | None] = ()
) -> int:
    """Bytes that will be written, as far as they are known: what a new layer compresses to is not."""
    needed = 0
    for layer, choice, known in zip(layers, choices, there or [None] * len(choices), strict=True):
        if known is not None:
            continue
        if choice is None and layer.source is not None:
            needed += layer.source.blob.size
        elif choice == "none":
            needed += layer.size
    return needed


def _annotations(tag: str | None, source_tag: str | None, docker: bool) -> dict[str, str]:
    """What the image is called in index.json: as Docker 25 and later write it, the full name and its tag."""
    if tag is not None and not docker:
        return {REF_NAME: tag}
    if tag is None and source_tag is not None and ":" not in source_tag:
        return {} if docker else {REF_NAME: source_tag}
    name = docker_name(tag or source_tag or "")
    if name is None:
        if tag is not None:
            raise UsageError(f"{shown(tag)} is no image name; write docker-archive:FILE:NAME:TAG")
        return {}
    name = short_name(name)
    return {IMAGE_NAME: full_name(name), REF_NAME: name.rpartition(":")[2]}


def _annotated(descriptor: Json, annotations: dict[str, str]) -> Json:
    return {**descriptor, "annotations": annotations} if annotations else descriptor


def _index(manifests: list[Any]) -> bytes:
    return dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})


def _written(path: Path, stored: _Stored) -> Written:
    return Written(
        path,
        stored.config_digest,
        stored.manifest["digest"],
        tuple(layer.diff_id for layer in stored.layers),
        tuple(layer.size for layer in stored.layers),
        tuple(layer.stored for layer in stored.layers),
    )


def _check_layout(path: Path) -> Path:
    """`path`, if it is an OCI layout to which an image can be added. Raises UsageError or BadInputError."""
    if not (path / "oci-layout").is_file() or not (path / "index.json").is_file():
        raise UsageError(f"{shown(str(path))} is neither empty nor an OCI layout; choose another directory")
    with ExitStack() as resources:
        data = read_document(open_regular(path / "oci-layout", resources), f"{path}: oci-layout")
        if not decode(data, Layout, f"{path}: oci-layout").image_layout_version.startswith("1."):
            raise UsageError(f"{shown(str(path))} is an OCI layout of another version; choose another directory")
    return path


def _other_entries(path: Path, tag: str | None) -> list[Any]:
    """The entries of an index that stay: all but the one with the new image's tag."""
    what = f"{shown(str(path))}: index.json"
    with ExitStack() as resources:
        data = read_document(open_regular(path / "index.json", resources), what)
    decode(data, Index, what)
    manifests = parse_json(data, what).get("manifests") or []
    if manifests and tag is None:
        raise UsageError(f"{shown(str(path))} holds images already; name the new one: oci:DIR:TAG")
    return [entry for entry in manifests if (entry.get("annotations") or {}).get(REF_NAME) != tag]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One deadweight at a time adds to a layout: index.json is read, changed and replaced."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def _undone_on_error(store: FolderStore) -> Iterator[FolderStore]:
    try:
        yield store
    except BaseException:
        store.undo()
        raise
