"""The JSON documents of image stores, typed.

OCI image specification 1.1 (descriptor, index, manifest, layout), Docker's image manifest version 2 schema 2, and the
manifest.json of `docker save`.

msgspec checks the types, so that a list where an object belongs is one clear error and no traceback.
"""

from __future__ import annotations

import json
import platform as machine
import re
from typing import Any, TypeVar

import msgspec

from deadweight.decoding import from_json
from deadweight.errors import BadInputError, UsageError, shown
from deadweight.image.bytes import ByteRange
from deadweight.image.compression import Compression
from deadweight.image.model import DIGEST, MANIFEST_LIMIT

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"
ATTESTATION = "vnd.docker.reference.type"

INDEXES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFESTS = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIGS = frozenset({OCI_CONFIG, DOCKER_CONFIG})
_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+(gzip|zstd))?"
    r"|docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.(gzip|zstd))?)"
)
_SUFFIX: dict[Compression, str] = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i686": "386",
    "i386": "386",
    "loongarch64": "loong64",
}
T = TypeVar("T")


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    pass


class Platform(_Document, frozen=True):
    """A descriptor's platform."""

    os: str = ""
    architecture: str = ""
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def fits(self, wanted: Platform) -> bool:
        """Whether this is `wanted`, which may leave the variant open; arm64 and arm64/v8 are one."""
        if (self.os, self.architecture) != (wanted.os, wanted.architecture):
            return False
        return wanted.variant is None or (self.variant or _usual(self)) == wanted.variant


class Descriptor(_Document, frozen=True):
    """What a document says of a blob. The digest is known to be `sha256:` and 64 hexadecimal digits."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] | None = None
    artifact_type: str | None = None

    def __post_init__(self) -> None:
        check_digest(self.digest)
        if self.size < 0:
            raise BadInputError(f"the descriptor of {self.digest} has a negative size")

    def annotation(self, key: str) -> str | None:
        """The annotation's value, or None."""
        return (self.annotations or {}).get(key)


class Manifest(_Document, frozen=True):
    """An image's manifest."""

    config: Descriptor
    layers: list[Descriptor] | None
    schema_version: int = 2
    media_type: str | None = None
    manifests: Any = None


class Index(_Document, frozen=True):
    """An image index, or Docker's manifest list."""

    manifests: list[Descriptor] | None
    schema_version: int = 2
    media_type: str | None = None
    layers: Any = None


class Layout(_Document, frozen=True):
    """The file `oci-layout`."""

    image_layout_version: str


class DockerImage(msgspec.Struct, frozen=True, rename="pascal"):
    """One image of a docker-archive's manifest.json."""

    config: str
    layers: list[str] | None
    repo_tags: list[str] | None = None


def decode(data: bytes, kind: type[T], what: str) -> T:
    """`data` as a document of `kind`. Raises BadInputError, naming `what`."""
    try:
        return from_json(data, kind)
    except msgspec.ValidationError as error:
        raise BadInputError(f"{what} is not as its format says: {error}") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadInputError(f"{what} is no JSON: {error}") from None


def dump(value: Any) -> bytes:
    """A document as it is stored."""
    return json.dumps(value, separators=(",", ":")).encode()


def read_document(blob: ByteRange, what: str) -> bytes:
    """A whole document. Raises BadInputError when it is larger than any document is (32 MiB)."""
    if blob.size > MANIFEST_LIMIT:
        raise BadInputError(f"{what} has {blob.size:,} bytes; the limit is {MANIFEST_LIMIT:,}")
    return b"".join(blob.chunks())


def check_digest(text: str) -> str:
    """`text`, if it is a digest that deadweight can check. Raises BadInputError."""
    if DIGEST.fullmatch(text):
        return text
    if re.fullmatch(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[A-Za-z0-9=_-]+", text) and not text.startswith("sha256:"):
        raise BadInputError(
            f"the digest algorithm of {shown(text, 40)} is not supported, only sha256; copy the image with skopeo first"
        )
    raise BadInputError(f"{shown(text)} is no digest (sha256: and 64 hexadecimal digits)")


def check_layer_type(media_type: str) -> None:
    """Raises BadInputError unless `media_type` is a layer's, in tar, gzip or zstd."""
    if _LAYER.fullmatch(media_type):
        return
    if media_type.endswith("+encrypted"):
        raise BadInputError(f"a layer is encrypted ({shown(media_type)}): decrypt the image first, with skopeo")
    raise BadInputError(f"a layer has the media type {shown(media_type)}, which is not supported (tar, gzip, zstd)")


def layer_type(compression: Compression) -> str:
    """The OCI media type of a layer."""
    return OCI_LAYER + _SUFFIX[compression]


def parse_platform(text: str) -> Platform:
    """`os/architecture[/variant]`. Raises UsageError."""
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise UsageError(f"{shown(text)} is no platform; write os/architecture[/variant], for example linux/arm64")
    return _normal(parts[0], parts[1], parts[2] if len(parts) == 3 else None)


def this_platform() -> Platform:
    """This machine's, with Linux as the operating system, since images are for Linux."""
    architecture, _, variant = _ARCHITECTURES.get(machine.machine(), machine.machine()).partition("/")
    return Platform("linux", architecture, variant or None)


def _normal(os: str, architecture: str, variant: str | None) -> Platform:
    architecture, _, implied = _ARCHITECTURES.get(architecture, architecture).partition("/")
    return Platform(os, architecture, variant or implied or None)


def _usual(platform: Platform) -> str | None:
    return {"arm64": "v8", "amd64": "v1"}.get(platform.architecture)
