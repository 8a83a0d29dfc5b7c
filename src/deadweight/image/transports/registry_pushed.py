"""Layers of an engine's image as a registry has them, to which it was pushed, or from which it was pulled.

An engine keeps layers plain: compressed anew they would be other blobs than those that are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from deadweight.errors import DeadweightError
from deadweight.image.model import Image
from deadweight.image.reference import Name, split_name
from deadweight.image.transports.choose import image_manifests, read_manifest
from deadweight.image.transports.registry import Remembering, Repository
from deadweight.image.transports.registry_client import Registry
from deadweight.image.transports.stream import Stored

_LIMIT = 8
"""Names, and images of an index, that are asked for."""


@dataclass(frozen=True)
class Pushed:
    """A layer that is there."""

    stored: Stored
    path: str
    """The repository that has it."""


def pushed_layers(image: Image | None, registry: Registry) -> dict[str, Pushed]:
    """What a registry has of an image's layers as gzip, by diff-id.

    By manifests whose digests the engine itself has, and only where they are of this very image.
    """
    found: dict[str, Pushed] = {}
    if image is None:
        return found
    names = [name for name in map(split_name, image.in_registries) if name is not None and name.host == registry.host]
    for name in names[:_LIMIT]:
        with suppress(DeadweightError):  # it may be gone, or not for us: then the layers are sent
            for stored in _packed(image, Repository(registry, name.path), name):
                found.setdefault(stored.diff_id, Pushed(stored, name.path))
    return found


def _packed(image: Image, repository: Repository, name: Name) -> Iterator[Stored]:
    """The layers of an image as a manifest, or one of an index, has them. Raises what reading these does."""
    if name.digest is None:
        return
    descriptor, data = repository.named(name)
    source = Remembering(repository, {descriptor.digest: data})
    for member in image_manifests(source, [descriptor])[:_LIMIT]:
        manifest = read_manifest(source, member)
        if manifest.config.digest == image.config_digest:
            for layer, blob in zip(image.layers, manifest.layers or [], strict=False):
                if blob.media_type.endswith("gzip"):
                    yield Stored(layer.diff_id, blob.digest, layer.size, blob.size, "gzip")
            return
