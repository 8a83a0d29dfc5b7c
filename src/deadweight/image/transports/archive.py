"""Reading images from tar files: what `docker save`, podman, crane, kaniko and skopeo write as docker-archive, and
tars of an OCI layout. The tar may be compressed with gzip or zstd as a whole.

Formats: moby's image/tarexport (manifest.json), containers/image's docker/internal/tarfile. Nothing is extracted:
a layer is the range of its member in the tar.
"""

from __future__ import annotations

import posixpath
import re
from contextlib import ExitStack
from pathlib import Path

from msgspec.structs import replace

from deadweight.errors import BadInputError, DigestError, UsageError, shown
from deadweight.image.bytes import ByteRange, open_file
from deadweight.image.compression import detect, spool
from deadweight.image.layer import Entry, clean_name, read_entries
from deadweight.image.model import Image, build_image, sha256
from deadweight.image.reference import Reference, docker_name, short_name
from deadweight.image.transports.choose import LAYER_LIMIT, check_platform
from deadweight.image.transports.manifests import DockerImage, decode, read_document
from deadweight.image.transports.oci import Find, read_layout

LINK_LIMIT = 16
_OTHER_COMPRESSIONS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"LZIP": "lzip", b"\x04\x22\x4d\x18": "lz4"}
_HASH_IN_NAME = re.compile(r"(?:.*/)?(?:sha256:)?([0-9a-f]{64})(?:\.json)?")


class Members:
    """The members of a tar by name, links followed inside it. Of equal names the last holds, as in an unpacked tar."""

    def __init__(self, tar: ByteRange, where: str) -> None:
        self._tar = tar
        self._where = where
        self._entries: dict[str, Entry] = {}
        for entry in read_entries(tar, where):
            if entry.kind == "hardlink":
                target = self._entries.get(entry.linkname)
                if target is None:
                    link = f"{shown(entry.name)} links to {shown(entry.linkname)}"
                    raise BadInputError(f"{where}: {link}, which is missing")
                self._entries[entry.name] = target
            elif entry.kind != "dir":
                self._entries[entry.name] = entry

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def find(self, name: str) -> ByteRange:
        """A regular file's content. Raises BadInputError when it is missing, or leads out of the archive."""
        where = f"{self._where}: {shown(name)}"
        at = clean_name(name)
        for _ in range(LINK_LIMIT):
            entry = self._entries.get(at)
            if entry is None:
                raise BadInputError(f"{where} is missing: the archive is not complete, get it again")
            if entry.kind == "file":
                if entry.sparse:
                    raise BadInputError(f"{where} is stored as a sparse file, which is not supported in an archive")
                return self._tar.window(entry.data, entry.stored)
            if entry.kind != "symlink":
                raise BadInputError(f"{where} is a {entry.kind} and no file")
            if entry.linkname.startswith("/"):
                raise BadInputError(f"{where} is a link to {shown(entry.linkname)}, outside the archive")
            at = posixpath.normpath(posixpath.join(posixpath.dirname(at), entry.linkname))
            if at.startswith("../"):
                raise BadInputError(f"{where} is a link to {shown(entry.linkname)}, outside the archive")
        raise BadInputError(f"{where} is a loop of symbolic links")


def open_archive(reference: Reference, platform: str | None, resources: ExitStack) -> Image:
    """The image of a `docker-archive:`, `oci-archive:` or sniffed `archive` reference.

    Raises BadInputError, UsageError or EnvironmentFailure.
    """
    where = shown(str(reference.path))
    members = Members(_open_tar(reference, where, resources), where)
    is_docker, is_oci = "manifest.json" in members, "index.json" in members
    transport = reference.transport
    if transport == "archive":
        transport = "docker-archive" if is_docker or not is_oci else "oci-archive"
    picked = Reference(transport, reference.path, reference.tag)
    if transport == "oci-archive":
        if not is_oci and is_docker:
            raise BadInputError(f"{where} is no OCI archive but a docker-archive; say docker-archive:{reference.path}")
        return read_layout(members.find, picked, platform, resources)
    if not is_docker:
        if is_oci:
            raise BadInputError(f"{where} is no docker-archive but an OCI archive; say oci-archive:{reference.path}")
        raise BadInputError(
            f"{where} is no image: it has neither manifest.json nor index.json (a root filesystem in a "
            "tar is no image: unpack it and say rootfs:DIR)"
        )
    return check_platform(_read_docker(members.find, picked, where, resources), platform)


def read_export(tar: ByteRange, reference: Reference, platform: str | None, resources: ExitStack) -> Image:
    """The image in what an engine exported: a docker-archive, beside which Docker 25 and later put an OCI layout.

    `reference` says which engine it came from. Raises BadInputError or UsageError.
    """
    where = shown(str(reference))
    members = Members(tar, where)
    if "manifest.json" not in members:
        raise BadInputError(f"{where}: the engine gave no docker-archive: it has no manifest.json")
    if "index.json" in members:
        what = f"{where}: manifest.json"
        images = decode(read_document(members.find("manifest.json"), what), list[DockerImage], what)
        if platform is not None or len({image.config for image in images}) > 1:
            # containerd's image store keeps several platforms, and the layout says which is which.
            named = replace(reference, path=Path(str(reference)))  # what messages name
            return read_layout(members.find, named, platform, resources)
    return check_platform(_read_docker(members.find, reference, where, resources), platform)


def _open_tar(reference: Reference, where: str, resources: ExitStack) -> ByteRange:
    blob = open_file(reference.path, resources)
    head = blob.read_at(0, 8)
    for magic, name in _OTHER_COMPRESSIONS.items():
        if head.startswith(magic):
            raise BadInputError(f"{where} is compressed with {name}, not with gzip or zstd: decompress it first")
    compression = detect(head)
    if blob.size == 0:
        raise BadInputError(f"{where} is empty")
    return blob if compression == "none" else spool(blob, compression, None, None, where, resources)


def _read_docker(find: Find, reference: Reference, where: str, resources: ExitStack) -> Image:
    what = f"{where}: manifest.json"
    images = decode(read_document(find("manifest.json"), what), list[DockerImage], what)
    image, tag = _pick(images, reference, where)
    config = read_document(find(image.config), f"{where}: {shown(image.config)}")
    stated = _HASH_IN_NAME.fullmatch(image.config)
    if stated and sha256(config) != "sha256:" + stated[1]:
        raise DigestError(f"{where}: the config does not hash to its name {shown(image.config)}: get the image again")
    layers = image.layers or []
    if len(layers) > LAYER_LIMIT:
        raise BadInputError(f"{where}: manifest.json names {len(layers):,} layers; the limit is {LAYER_LIMIT:,}")
    blobs = [(find(name), _blob_digest(name)) for name in layers]
    return build_image(str(reference), config, blobs, resources, tag=tag)


def _blob_digest(name: str) -> str | None:
    """The digest that a member's name states. Only in blobs/ does it speak of the blob for certain."""
    match = re.fullmatch(r"blobs/sha256/([0-9a-f]{64})", name)
    return f"sha256:{match[1]}" if match else None


def _pick(images: list[DockerImage], reference: Reference, where: str) -> tuple[DockerImage, str | None]:
    if not images:
        raise BadInputError(f"{where}: manifest.json names no image")
    there = ", ".join(shown(tag) for i, image in enumerate(images) for tag in (image.repo_tags or [f"@{i}"]))
    wanted = reference.tag
    if wanted is None:
        if len({image.config for image in images}) > 1:
            raise UsageError(f"{where} holds several images, pick one (docker-archive:FILE:NAME:TAG): {there}")
        return images[0], next(iter(images[0].repo_tags or []), None)
    if wanted.startswith("@"):
        number = int(wanted[1:])
        if number < len(images):
            return images[number], next(iter(images[number].repo_tags or []), None)
    for image in images:
        for tag in image.repo_tags or []:
            if _short(tag) == _short(wanted):
                return image, tag
    raise UsageError(f"{where} has no image {shown(wanted)}; there is {there}")


def _short(tag: str) -> str:
    """A name without what Docker leaves out when it shows one."""
    return short_name(docker_name(tag) or tag)
