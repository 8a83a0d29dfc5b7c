"""Reading an OCI image layout (OCI image specification 1.0 and 1.1, "Image Layout"), in a directory or in a tar.

The layout's files are had through `find`, so that both are the same here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from deadweight.errors import BadInputError, DigestError, EnvironmentFailure, UsageError, shown
from deadweight.image.bytes import ByteRange
from deadweight.image.model import Image, build_image, parse_json, sha256
from deadweight.image.reference import Reference, short_name
from deadweight.image.transports.manifests import (
    ATTESTATION,
    CONFIGS,
    IMAGE_NAME,
    INDEXES,
    MANIFESTS,
    REF_NAME,
    Descriptor,
    Index,
    Layout,
    Manifest,
    Platform,
    check_layer_type,
    decode,
    parse_platform,
    read_document,
    this_platform,
)

Find = Callable[[str], ByteRange]
"""Gives a layout's file by its name in it. Raises BadInputError when there is none."""

INDEX_DEPTH = 8
CANDIDATE_LIMIT = 10_000
LAYER_LIMIT = 1000


@dataclass(frozen=True)
class _Layout:
    find: Find
    where: str
    seen: set[str] = field(default_factory=set)

    def blob(self, descriptor: Descriptor, what: str) -> ByteRange:
        """A blob of the stated size; its digest is not checked here."""
        blob = self.find("blobs/sha256/" + descriptor.digest.removeprefix("sha256:"))
        if blob.size != descriptor.size:
            raise BadInputError(
                f"{self.where}: {what} {descriptor.digest} has {blob.size:,} bytes, where {descriptor.size:,} are "
                "stated: it is truncated or damaged, get it again"
            )
        return blob

    def document(self, descriptor: Descriptor, what: str) -> bytes:
        """A small blob, its digest checked."""
        data = read_document(self.blob(descriptor, what), f"{self.where}: {what} {descriptor.digest}")
        if sha256(data) != descriptor.digest:
            raise DigestError(f"{self.where}: {what} does not hash to {descriptor.digest}: it is damaged, get it again")
        return data


def open_directory(reference: Reference, platform: str | None, resources: ExitStack) -> Image:
    """The image of an `oci:` reference. Raises BadInputError, UsageError or EnvironmentFailure."""
    folder = reference.path
    if not folder.is_dir():
        raise BadInputError(f"{shown(str(folder))} is no directory; an OCI layout is one (for a file: oci-archive:)")

    def find(name: str) -> ByteRange:
        return open_regular(folder / name, resources)

    return read_layout(find, reference, platform, resources)


def open_regular(path: Path, resources: ExitStack) -> ByteRange:
    """A regular file of a layout. A symbolic link is refused: it could lead anywhere.

    Raises BadInputError when there is no such file, EnvironmentFailure when it may not be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise BadInputError(f"{shown(str(path))} is a symbolic link; a layout's files are regular files") from None
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise BadInputError(f"{shown(str(path))} is missing: the image is not complete, get it again") from None
        raise EnvironmentFailure(f"cannot read {shown(str(path))}: {error.strerror}") from None
    resources.callback(os.close, fd)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise BadInputError(f"{shown(str(path))} is no regular file")
    return ByteRange(fd, 0, status.st_size)


def read_layout(find: Find, reference: Reference, platform: str | None, resources: ExitStack) -> Image:
    """The image that the reference's tag and `platform` pick.

    Raises BadInputError for a bad layout or an absent platform, UsageError when the call leaves it open.
    """
    where = shown(str(reference.path))
    layout = _Layout(find, where)
    version = decode(read_document(find("oci-layout"), f"{where}: oci-layout"), Layout, f"{where}: oci-layout")
    if not version.image_layout_version.startswith("1."):
        raise BadInputError(f"{where}: layout version {shown(version.image_layout_version)} is not supported, only 1.x")
    data = read_document(find("index.json"), f"{where}: index.json")
    index = _index(data, f"{where}: index.json", None)
    chosen = _by_tag(index.manifests or [], reference, where)
    tag = next((name for d in chosen for name in [d.annotation(IMAGE_NAME) or d.annotation(REF_NAME)] if name), None)
    manifest, notes = _by_platform(_manifests(layout, chosen, 0), platform, layout)
    parsed = _manifest(layout, manifest)
    if parsed.config.media_type not in CONFIGS:
        raise BadInputError(
            f"{where}: {manifest.digest} is no container image: its config is {shown(parsed.config.media_type)}"
        )
    config = layout.document(parsed.config, "the config")
    layers = parsed.layers or []
    if len(layers) > LAYER_LIMIT:
        raise BadInputError(f"{where}: the manifest names {len(layers):,} layers; the limit is {LAYER_LIMIT:,}")
    blobs: dict[str, ByteRange] = {}
    for layer in layers:
        check_layer_type(layer.media_type)
        if layer.digest not in blobs:
            blobs[layer.digest] = _layer_blob(layout, layer)
    image = build_image(
        str(reference),
        config,
        [(blobs[layer.digest], layer.digest) for layer in layers],
        resources,
        manifest_digest=manifest.digest,
        tag=reference.tag or (short_name(tag) if tag else None),
        notes=tuple(notes),
    )
    return check_platform(image, platform, said=bool(notes))


def check_platform(image: Image, platform: str | None, *, said: bool = False) -> Image:
    """`image`, held against the platform that was asked for, or with a note that it is for another machine.

    Raises BadInputError when another platform was asked for.
    """
    wanted = this_platform() if platform is None else parse_platform(platform)
    got = config_platform(image.config)
    if said or not got.os or got.fits(wanted):
        return image
    if platform is not None:
        raise BadInputError(f"{shown(image.reference)} is for {got}, and {wanted} was asked for")
    note = f"the image is for {got}; this machine is {wanted}"
    return replace(image, notes=(note,))


def config_platform(config: dict[str, object]) -> Platform:
    """The platform that a configuration states; empty where it says nothing."""
    parts = [value if isinstance(value, str) else "" for value in map(config.get, ("os", "architecture", "variant"))]
    return Platform(parts[0], parts[1], parts[2] or None)


def _layer_blob(layout: _Layout, layer: Descriptor) -> ByteRange:
    try:
        return layout.blob(layer, "the layer")
    except BadInputError as error:
        if "nondistributable" in layer.media_type or "foreign" in layer.media_type:
            raise BadInputError(
                f"{layout.where}: a layer of the type {layer.media_type} is not in the image ({error}); "
                "pull it with the layers that its licence keeps elsewhere"
            ) from None
        raise


def _index(data: bytes, what: str, stated: str | None) -> Index:
    index = decode(data, Index, what)
    if index.schema_version != 2:
        raise BadInputError(f"{what} has schema version {index.schema_version}, only 2 is supported")
    if index.media_type and (index.media_type not in INDEXES or (stated and index.media_type != stated)):
        raise BadInputError(f"{what} calls itself {shown(index.media_type)}, which is no image index")
    if index.layers is not None:
        # CVE-2021-41190: a document that is an index to one tool and a manifest to another.
        raise BadInputError(f"{what} is both an index and a manifest: it is refused")
    return index


def _manifest(layout: _Layout, descriptor: Descriptor) -> Manifest:
    what = f"{layout.where}: the manifest {descriptor.digest}"
    data = layout.document(descriptor, "the manifest")
    fields = parse_json(data, what)
    if fields.get("schemaVersion") == 1:
        raise BadInputError(f"{what} is Docker's schema 1, which is not supported; pull the image with a current tool")
    manifest = decode(data, Manifest, what)
    if manifest.schema_version != 2:
        raise BadInputError(f"{what} has schema version {manifest.schema_version}, only 2 is supported")
    if manifest.media_type and manifest.media_type not in MANIFESTS:
        raise BadInputError(f"{what} calls itself {shown(manifest.media_type)}, which is no image manifest")
    if manifest.manifests is not None:
        raise BadInputError(f"{what} is both an index and a manifest: it is refused")
    return manifest


def _names(descriptor: Descriptor) -> set[str]:
    """What a tag may call it: its name, an engine's full name, or its digest."""
    names = {descriptor.digest}
    for key in (REF_NAME, IMAGE_NAME):
        name = descriptor.annotation(key)
        if name:
            names |= {name, short_name(name)}
    return names


def _name(descriptor: Descriptor) -> str | None:
    return descriptor.annotation(REF_NAME) or descriptor.annotation(IMAGE_NAME)


def _by_tag(descriptors: list[Descriptor], reference: Reference, where: str) -> list[Descriptor]:
    """The top-level entries that the reference means: one name's, or all where there are no names."""
    images = [d for d in descriptors if not _is_beside(d)]
    if not images:
        what = ", ".join(sorted({shown(d.artifact_type or d.media_type) for d in descriptors}))
        raise BadInputError(f"{where} holds no image" + (f", only {what} and attestations" if what else ""))
    there = ", ".join(dict.fromkeys(shown(_name(d) or d.digest) for d in images))
    if reference.tag is not None:
        chosen = [d for d in images if reference.tag in _names(d)]
        if not chosen:
            raise UsageError(f"{where} has no image {shown(reference.tag)}; there is {there}")
    else:
        chosen = images
    named = {_name(d) for d in chosen}
    if len({d.digest for d in chosen}) == 1:
        return chosen[:1]
    if len(named) > 1 and reference.tag is None:
        raise UsageError(f"{where} holds several images, pick one as oci:DIR:TAG; there is {there}")
    return chosen


def _is_beside(descriptor: Descriptor) -> bool:
    """Attestations and other artifacts, which lie beside images in an index."""
    if descriptor.annotation(ATTESTATION) is not None:
        return True
    if descriptor.artifact_type and descriptor.artifact_type not in CONFIGS:
        return True
    platform = descriptor.platform
    return platform is not None and (platform.os, platform.architecture) == ("unknown", "unknown")


def _manifests(layout: _Layout, descriptors: list[Descriptor], depth: int) -> list[Descriptor]:
    """The manifests of all images that these entries and the indexes among them hold."""
    found = []
    for descriptor in descriptors:
        if _is_beside(descriptor):
            continue
        if descriptor.media_type in INDEXES:
            if depth >= INDEX_DEPTH:
                raise BadInputError(f"{layout.where}: indexes are nested more than {INDEX_DEPTH} deep")
            if descriptor.digest in layout.seen:
                continue
            layout.seen.add(descriptor.digest)
            data = layout.document(descriptor, "the index")
            index = _index(data, f"{layout.where}: the index {descriptor.digest}", descriptor.media_type)
            found += _manifests(layout, index.manifests or [], depth + 1)
        elif descriptor.media_type in MANIFESTS:
            found.append(descriptor)
        elif "distribution.manifest.v1" in descriptor.media_type:
            raise BadInputError(
                f"{layout.where}: {shown(descriptor.media_type)} is Docker's schema 1, which is not "
                "supported; pull the image with a current tool"
            )
        else:
            raise BadInputError(
                f"{layout.where}: a manifest has the media type {shown(descriptor.media_type)}, which is not supported"
            )
        if len(found) > CANDIDATE_LIMIT:
            raise BadInputError(f"{layout.where}: more than {CANDIDATE_LIMIT:,} manifests")
    return found


def _by_platform(found: list[Descriptor], platform: str | None, layout: _Layout) -> tuple[Descriptor, list[str]]:
    """The manifest for the platform, and what to tell of the choice."""
    unique = list({d.digest: d for d in found}.values())
    if not unique:
        raise BadInputError(f"{layout.where}: the index holds no image")
    if len(unique) == 1:
        return unique[0], []
    wanted = this_platform() if platform is None else parse_platform(platform)
    known = [(d, _platform(layout, d)) for d in unique]
    there = ", ".join(dict.fromkeys(str(p) or "an unnamed platform" for _, p in known))
    fitting = [(d, p) for d, p in known if p.fits(wanted)]
    if not fitting:
        if platform is None:
            raise UsageError(f"{layout.where} has no image for {wanted}, pick one with --platform; there is {there}")
        raise BadInputError(f"{layout.where} has no image for {wanted}; there is {there}")
    exact = [(d, p) for d, p in fitting if p.variant == wanted.variant] or fitting
    if len(exact) > 1 and exact[0][1] == exact[1][1]:
        digests = ", ".join(d.digest for d, p in exact)
        raise UsageError(f"{layout.where} holds several images for {wanted}; pick one as oci:DIR:DIGEST of {digests}")
    chosen, got = exact[0]
    return chosen, [f"picked {got} of {there}"]


def _platform(layout: _Layout, descriptor: Descriptor) -> Platform:
    if descriptor.platform is not None and descriptor.platform.os:
        return descriptor.platform
    manifest = _manifest(layout, descriptor)
    config = layout.document(manifest.config, "the config")
    return config_platform(parse_json(config, f"{layout.where}: the config {manifest.config.digest}"))
