"""The documents of a new image, once its layers are stored: configuration, manifest, descriptor."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from deadweight.image.model import Json, parse_json, sha256
from deadweight.image.output import NewImage
from deadweight.image.transports.choose import config_platform
from deadweight.image.transports.manifests import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_MANIFEST,
    dump,
    layer_type,
)
from deadweight.image.transports.stream import Stored


class Assembled(msgspec.Struct, frozen=True):
    """An image's documents, and the manifest's descriptor."""

    config: bytes
    config_digest: str
    config_type: str
    manifest: bytes
    descriptor: Json


def assemble(new: NewImage, layers: Sequence[Stored], *, docker: bool = False) -> Assembled:
    """The documents of an image that has these layers; `docker` asks for Docker's schema 2, whose layers are gzip."""
    config = new.configuration([layer.diff_id for layer in layers])
    parsed = parse_json(config, "the new configuration")
    manifest_type, config_type = (DOCKER_MANIFEST, DOCKER_CONFIG) if docker else (OCI_MANIFEST, OCI_CONFIG)
    manifest = dump(
        {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": {"mediaType": config_type, "digest": sha256(config), "size": len(config)},
            "layers": [
                {
                    "mediaType": DOCKER_LAYER if docker else layer_type(layer.compression),
                    "digest": layer.digest,
                    "size": layer.stored,
                }
                for layer in layers
            ],
        }
    )
    descriptor: Json = {"mediaType": manifest_type, "digest": sha256(manifest), "size": len(manifest)}
    platform = config_platform(parsed)
    if platform.os and platform.architecture:
        descriptor["platform"] = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant:
            descriptor["platform"]["variant"] = platform.variant
    return Assembled(config, sha256(config), config_type, manifest, descriptor)
