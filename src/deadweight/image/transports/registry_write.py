"""Writing images to registries: layers side by side, then the configuration, and the manifest last.

Until the manifest is there nothing is: whoever pulls gets the image that was there before, or none.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
from msgspec.structs import replace

from deadweight.errors import EnvironmentFailure
from deadweight.image.bytes import ByteRange
from deadweight.image.compression import Compression, temporary_folder
from deadweight.image.output import NewImage, OutputLayer, Progress, Written
from deadweight.image.parallel import Sum, in_parallel
from deadweight.image.reference import Reference
from deadweight.image.transports.assemble import Assembled, assemble
from deadweight.image.transports.manifests import DOCKER_MANIFEST
from deadweight.image.transports.memory import Memory
from deadweight.image.transports.names import SOURCE
from deadweight.image.transports.registry import Repository, parts_of
from deadweight.image.transports.registry_blob import RemoteBlob
from deadweight.image.transports.registry_client import Registry
from deadweight.image.transports.registry_names import New, check_platforms, give_name, holder, labels_of, named
from deadweight.image.transports.registry_pushed import Pushed, pushed_layers
from deadweight.image.transports.registry_upload import Beginnings, Lost, NoChunks, Target, Upload
from deadweight.image.transports.stream import Stored, write_layer

_MOUNTS = 3
"""Repositories that a layer is asked to be mounted from: each that has lost it costs a request."""


def check_registry(
    destination: Reference,
    *,
    force: bool,
    source_id: str | None = None,
    source_name: str | None = None,
    one_platform: bool = False,
) -> None:
    """Asks a registry whether we may write there, before any work is done for it: an upload begins and is given up.

    `source_id` and `source_name` are those of the image that the new one is made from, whose other tags may be
    taken where nothing leaves it. Raises UsageError when the tag is another image's and `force` is not given, or
    that of an index for several platforms and not just `one_platform` is wanted, EnvironmentFailure when we may not
    write, or the registry cannot be reached.
    """
    name = parts_of(destination)
    registry = Registry(name.host, name.path)
    try:
        target = Target(Repository(registry, name.path))
        Upload(target).rehearse()
        held = named(target.repository, name) if name.tag else None
        if not one_platform:
            check_platforms(held, destination)
        if held is None or held.id != source_id or source_name == destination.name:
            holder(target, destination, {source_id} if source_id else set(), force)
    finally:
        registry.close()


def write_registry(
    new: NewImage,
    destination: Reference,
    compression: str,
    force: bool,
    progress: Progress | None,
    memory: Memory | None,
) -> Written:
    """Writes an image to a `docker://` reference; see `write_image`. Plain layers become gzip.

    Layers that the repository has are neither sent nor read, those that another of the same registry has, the source's
    or one that `memory` knows of, are mounted.
    `force` takes the tag from an image that deadweight did not make, which first gets another. Raises UsageError when
    the tag is taken, EnvironmentFailure when the registry cannot be written, and what `write_image` raises. Without a
    tag the image is known by its digest: a part of an index that comes later.
    """
    name = parts_of(destination)
    registry = Registry(name.host, name.path)
    try:
        target = Target(Repository(registry, name.path))
        layers = send_layers(new, target, compression, progress, memory)
        documents = send_documents(new, target, layers)
        new_name = New(documents.manifest, documents.descriptor["digest"], documents.descriptor["mediaType"])
        source_id = labels_of(documents.config).get(SOURCE)
        notes = give_name(target, destination, new_name, {source_id} if isinstance(source_id, str) else set(), force)
    finally:
        registry.close()
    return Written(
        Path(destination.name),
        documents.config_digest,
        documents.descriptor["digest"],
        tuple(layer.diff_id for layer in layers),
        tuple(layer.size for layer in layers),
        tuple(layer.stored for layer in layers),
        notes,
    )


def send_documents(new: NewImage, target: Target, layers: list[Stored]) -> Assembled:
    """Sends the configuration of an image whose layers are there."""
    docker = new.manifest_type == DOCKER_MANIFEST and all(layer.compression == "gzip" for layer in layers)
    documents = assemble(new, layers, docker=docker)
    target.put(documents.config, documents.config_digest)
    return documents


def send_layers(
    new: NewImage, target: Target, compression: str, progress: Progress | None, memory: Memory | None
) -> list[Stored]:
    """Sends an image's layers, several at a time; gives what they came to, in order."""
    pushed = pushed_layers(new.original, target.repository.registry)
    total = Sum(progress) if progress is not None else None
    jobs: list[Callable[[], Stored]] = []
    first: dict[str, int] = {}
    same: list[int] = []
    for number, layer in enumerate(new.layers):
        choice = _compression(layer, compression)
        # A layer that is there twice is sent once.
        key = f"{layer.source.diff_id} {choice}" if layer.source is not None else f"new {number}"
        if key in first:
            if layer.check is not None:
                layer.check(None)
            same.append(first[key])
            continue
        first[key] = len(jobs)
        same.append(len(jobs))
        report = None if total is None else total.part(number)

        def send(
            layer: OutputLayer = layer, choice: Any = choice, where: str = f"layer {number + 1}", report: Any = report
        ) -> Stored:
            there = pushed.get(layer.source.diff_id) if layer.source is not None and choice == "gzip" else None
            return _send(layer, choice, target, where, report, memory, there)

        jobs.append(send)
    registry = target.repository.registry
    sent = in_parallel(jobs, registry.settings.parallel, registry.cancelled.set)
    return [sent[number] for number in same]


def _send(
    layer: OutputLayer,
    choice: Compression | None,
    target: Target,
    where: str,
    report: Progress | None,
    memory: Memory | None,
    pushed: Pushed | None,
) -> Stored:
    known = _known(layer, choice, memory) if pushed is None else pushed.stored
    begun: httpx2.URL | None = None
    if known is not None:
        there = _there(known, layer, target, memory, pushed)
        if there is True:
            if layer.check is not None:
                layer.check(report)
            if report is not None:
                report(layer.size)
            return known
        begun = None if there is False else there
    registry = target.repository.registry
    beginnings = Beginnings(target, where)
    while True:
        upload = Upload(target, begun)
        begun = None
        try:
            # What lies in a file is copied inside the kernel where the destination is one: this one is not.
            stored = write_layer(replace(layer, file=None), upload, choice, where, report)  # type: ignore[arg-type]
            upload.commit(stored.digest)
        except Lost:
            upload.abandon()  # what it still has of it takes room
            beginnings.lost()
            continue
        except NoChunks:
            upload.abandon()
            stored = _send_whole(layer, choice, target, where, report)
        except BaseException:
            upload.abandon()
            raise
        if memory is not None:
            memory.note_packed(stored)
            memory.note_repository(stored.digest, registry.host, target.repository.path)
        return stored


def _there(
    known: Stored, layer: OutputLayer, target: Target, memory: Memory | None, pushed: Pushed | None
) -> httpx2.URL | bool:
    """Whether the repository has a layer, or could be given it from another one of the registry that has it.

    Where it has not, the upload that the registry may have begun instead.
    """
    host, path = target.repository.registry.host, target.repository.path
    begun: httpx2.URL | bool = target.has(known.digest, known.stored)
    if begun is False:
        sources = [] if pushed is None else [pushed.path]
        blob = None if layer.source is None else layer.source.blob
        if isinstance(blob, RemoteBlob) and (blob.registry.host, blob.digest) == (host, known.digest):
            sources.append(blob.path)
        if memory is not None:
            sources += memory.repositories(known.digest, host)
        for source in list(dict.fromkeys(each for each in sources if each != path))[:_MOUNTS]:
            if begun is not False:
                Upload(target, begun).abandon()
            begun = target.mount(known.digest, source)
            if begun is True:
                break
    if begun is True and memory is not None:
        memory.note_repository(known.digest, host, path)
    return begun


def _send_whole(
    layer: OutputLayer, choice: Compression | None, target: Target, where: str, report: Progress | None
) -> Stored:
    """For a registry that takes no chunks: by way of a temporary file, since the digest has to be known beforehand."""
    folder = temporary_folder()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            stored = write_layer(replace(layer, file=None), file, choice, where, report)
            file.flush()
            target.put_file(ByteRange(file.fileno(), 0, stored.stored), stored.digest)
            return stored
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot keep {where} in {folder}: {error.strerror or error}; set TMPDIR to a folder with more space"
        ) from None


def _known(layer: OutputLayer, choice: Compression | None, memory: Memory | None) -> Stored | None:
    """What a layer comes to, where that can be said without reading it."""
    source = layer.source
    if choice is None and source is not None:
        digest = source.diff_id if source.compression == "none" else source.digest
        if digest is None:
            return None
        return Stored(source.diff_id, digest, layer.size, source.blob.size, source.compression)
    if memory is None or choice is None or layer.diff_id_known is None:
        return None
    known = memory.packed(layer.diff_id_known, choice)
    return known if known is not None and known.size == layer.size else None


def _compression(layer: OutputLayer, choice: str) -> Compression | None:
    """What a layer is stored with; None for an untouched blob that goes as it is."""
    had = layer.source.compression if layer.source is not None else None
    if had is not None and had != "none":
        return None
    wanted: Any = choice
    if choice == "keep":
        wanted = layer.compression if layer.compression != "none" else "gzip"
    return None if had == wanted else wanted
