"""Reading an OCI image layout (OCI image specification 1.0 and 1.1, "Image Layout"), in a directory or in a tar.

The layout's files are had through `find`, so that both are the same here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from deadweight.errors import BadInputError, DigestError, EnvironmentFailure, UsageError, shown
from deadweight.image.bytes import ByteRange
from deadweight.image.model import Image, sha256
from deadweight.image.reference import Reference, short_name
from deadweight.image.transports.choose import is_beside, parse_index, read_image
from deadweight.image.transports.manifests import (
    IMAGE_NAME,
    REF_NAME,
    Descriptor,
    Layout,
    decode,
    read_document,
)

Find = Callable[[str], ByteRange]
"""Gives a layout's file by its name in it. Raises BadInputError when there is none."""


class _Layout(msgspec.Struct, frozen=True):
    find: Find
    where: str
    by_digest: str = "oci:DIR:DIGEST"

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
    index = parse_index(data, f"{where}: index.json", None)
    chosen = _by_tag(index.manifests or [], reference, where)
    tag = next((name for d in chosen for name in [d.annotation(IMAGE_NAME) or d.annotation(REF_NAME)] if name), None)
    tag = reference.tag or (short_name(tag) if tag else None)
    return read_image(layout, str(reference), chosen, platform, resources, tag)


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
    images = [d for d in descriptors if not is_beside(d)]
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
