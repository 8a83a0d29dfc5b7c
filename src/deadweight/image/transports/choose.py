"""Which image of several is meant, and what it consists of: the same for layouts and for registries.

OCI image specification 1.1 (index, manifest); Docker's manifest lists and schema 2.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Protocol

from deadweight.errors import BadInputError, UsageError, shown
from deadweight.image.bytes import Blob
from deadweight.image.model import Image, build_image, parse_json
from deadweight.image.transports.manifests import (
    ATTESTATION,
    CONFIGS,
    INDEXES,
    MANIFESTS,
    Descriptor,
    Index,
    Manifest,
    Platform,
    check_layer_type,
    decode,
    parse_platform,
    this_platform,
)

INDEX_DEPTH = 8
CANDIDATE_LIMIT = 10_000
LAYER_LIMIT = 1000


class Source(Protocol):
    """Has documents and blobs by their descriptors."""

    @property
    def where(self) -> str:
        """What it is, for messages."""
        ...

    @property
    def by_digest(self) -> str:
        """How a reference names one of its images by digest."""
        ...

    def document(self, descriptor: Descriptor, what: str) -> bytes:
        """A small blob or a manifest, its size and digest checked. `what` is for messages."""
        ...

    def blob(self, descriptor: Descriptor, what: str) -> Blob:
        """A blob of the stated size; its digest is not checked here."""
        ...


def read_image(
    source: Source,
    reference: str,
    chosen: list[Descriptor],
    platform: str | None,
    resources: ExitStack,
    tag: str | None,
) -> Image:
    """The image for `platform` among the images and indexes `chosen`.

    Raises BadInputError for a bad image or an absent platform, UsageError when the call leaves it open.
    """
    where = source.where
    manifest, notes = by_platform(image_manifests(source, chosen), platform, source)
    parsed = read_manifest(source, manifest)
    if parsed.config.media_type not in CONFIGS:
        raise BadInputError(
            f"{where}: {manifest.digest} is no container image: its config is {shown(parsed.config.media_type)}"
        )
    config = source.document(parsed.config, "the config")
    layers = parsed.layers or []
    if len(layers) > LAYER_LIMIT:
        raise BadInputError(f"{where}: the manifest names {len(layers):,} layers; the limit is {LAYER_LIMIT:,}")
    blobs: dict[str, Blob] = {}
    for layer in layers:
        check_layer_type(layer.media_type)
        if layer.digest not in blobs:
            blobs[layer.digest] = _layer_blob(source, layer)
    image = build_image(
        reference,
        config,
        [(blobs[layer.digest], layer.digest) for layer in layers],
        resources,
        manifest_digest=manifest.digest,
        manifest_type=manifest.media_type or None,
        tag=tag,
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


def _layer_blob(source: Source, layer: Descriptor) -> Blob:
    try:
        return source.blob(layer, "the layer")
    except BadInputError as error:
        if "nondistributable" in layer.media_type or "foreign" in layer.media_type:
            raise BadInputError(
                f"{source.where}: a layer of the type {layer.media_type} is not in the image ({error}); "
                "pull it with the layers that its licence keeps elsewhere"
            ) from None
        raise


def parse_index(data: bytes, what: str, stated: str | None) -> Index:
    """An index, held to what it is said to be. Raises BadInputError."""
    index = decode(data, Index, what)
    if index.schema_version != 2:
        raise BadInputError(f"{what} has schema version {index.schema_version}, only 2 is supported")
    if index.media_type and (index.media_type not in INDEXES or (stated and index.media_type != stated)):
        raise BadInputError(f"{what} calls itself {shown(index.media_type)}, which is no image index")
    if index.layers is not None:
        # CVE-2021-41190: a document that is an index to one tool and a manifest to another.
        raise BadInputError(f"{what} is both an index and a manifest: it is refused")
    return index


def read_manifest(source: Source, descriptor: Descriptor) -> Manifest:
    """The manifest of a descriptor. Raises BadInputError."""
    what = f"{source.where}: the manifest {descriptor.digest}"
    data = source.document(descriptor, "the manifest")
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


def is_beside(descriptor: Descriptor) -> bool:
    """Whether it is one of the attestations and other artifacts, which lie beside images in an index."""
    if descriptor.annotation(ATTESTATION) is not None:
        return True
    if descriptor.artifact_type and descriptor.artifact_type not in CONFIGS:
        return True
    platform = descriptor.platform
    return platform is not None and (platform.os, platform.architecture) == ("unknown", "unknown")


def image_manifests(
    source: Source, descriptors: list[Descriptor], depth: int = 0, seen: set[str] | None = None
) -> list[Descriptor]:
    """The manifests of all images that these entries and the indexes among them hold."""
    found = []
    seen = set() if seen is None else seen
    for descriptor in descriptors:
        if is_beside(descriptor):
            continue
        if descriptor.media_type in INDEXES:
            if depth >= INDEX_DEPTH:
                raise BadInputError(f"{source.where}: indexes are nested more than {INDEX_DEPTH} deep")
            if descriptor.digest in seen:
                continue
            seen.add(descriptor.digest)
            data = source.document(descriptor, "the index")
            index = parse_index(data, f"{source.where}: the index {descriptor.digest}", descriptor.media_type)
            found += image_manifests(source, index.manifests or [], depth + 1, seen)
        elif descriptor.media_type in MANIFESTS:
            found.append(descriptor)
        elif "distribution.manifest.v1" in descriptor.media_type:
            raise BadInputError(
                f"{source.where}: {shown(descriptor.media_type)} is Docker's schema 1, which is not "
                "supported; pull the image with a current tool"
            )
        else:
            raise BadInputError(
                f"{source.where}: a manifest has the media type {shown(descriptor.media_type)}, which is not supported"
            )
        if len(found) > CANDIDATE_LIMIT:
            raise BadInputError(f"{source.where}: more than {CANDIDATE_LIMIT:,} manifests")
    return found


def by_platform(found: list[Descriptor], platform: str | None, source: Source) -> tuple[Descriptor, list[str]]:
    """The manifest for the platform, and what to tell of the choice."""
    unique = list({d.digest: d for d in found}.values())
    if not unique:
        raise BadInputError(f"{source.where}: the index holds no image")
    if len(unique) == 1:
        return unique[0], []
    wanted = this_platform() if platform is None else parse_platform(platform)
    known = [(d, platform_of(source, d)) for d in unique]
    there = ", ".join(dict.fromkeys(str(p) or "an unnamed platform" for _, p in known))
    fitting = [(d, p) for d, p in known if p.fits(wanted)]
    if not fitting:
        if platform is None:
            raise UsageError(f"{source.where} has no image for {wanted}, pick one with --platform; there is {there}")
        raise BadInputError(f"{source.where} has no image for {wanted}; there is {there}")
    exact = [(d, p) for d, p in fitting if p.variant == wanted.variant] or fitting
    if len(exact) > 1 and exact[0][1] == exact[1][1]:
        digests = ", ".join(d.digest for d, p in exact)
        say = f"pick one as {source.by_digest} of {digests}"
        raise UsageError(f"{source.where} holds several images for {wanted}; {say}")
    chosen, got = exact[0]
    return chosen, [f"picked {got} of {there}"]


def platform_of(source: Source, descriptor: Descriptor) -> Platform:
    """What the descriptor says, else what the image's configuration does."""
    if descriptor.platform is not None and descriptor.platform.os:
        return descriptor.platform
    manifest = read_manifest(source, descriptor)
    config = source.document(manifest.config, "the config")
    return config_platform(parse_json(config, f"{source.where}: the config {manifest.config.digest}"))
