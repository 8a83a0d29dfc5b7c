"""A layer from files: the same files give the same bytes, whoever packs them, where and when.

Entries are sorted, owners are numbers, modes are 0644 or 0755, and every time is the same one. A file's bytes stream
from where it lies into the tar.
"""

from __future__ import annotations

import os
import posixpath
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from deadweight.errors import BadInputError, EnvironmentFailure, shown
from deadweight.image.bytes import CHUNK
from deadweight.image.layer import BLOCK, padding
from deadweight.image.transports.stream import Hasher


@dataclass(frozen=True)
class Item:
    """One entry of a layer. Directories have neither content nor target."""

    path: str
    """In the image, without a leading `/`."""
    content: bytes | Path | None = None
    """A file's bytes, or where they are."""
    target: str | None = None
    """A symbolic link's, as it is written."""
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Packed:
    """A tar that was written."""

    diff_id: str
    size: int


def file_item(file: Path, at: str) -> Item:
    """A file or symbolic link as the entry `at`. A file is executable in the image if it is for anybody here.

    Raises BadInputError for a link that leads to a place on this machine, for a name that a layer cannot have, and for
    what is neither file nor link.
    """
    if posixpath.basename(at).startswith(".wh."):
        raise BadInputError(f"{shown(at)} cannot be in a layer: there the name means a deletion")
    status = file.lstat()
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(file)  # noqa: PTH115
        if target.startswith("/"):
            raise BadInputError(f"{shown(at)} is a symbolic link to {shown(target)}, a place of this machine")
        return Item(at, target=target, mode=0o777)
    if not stat.S_ISREG(status.st_mode):
        raise BadInputError(f"{shown(at)} is neither file, directory nor link")
    return Item(at, file, mode=0o755 if status.st_mode & 0o111 else 0o644)


def pack(items: Iterable[Item], file: BinaryIO, epoch: int) -> Packed:
    """Writes a layer with these entries, sorted; every time in it is `epoch`, in seconds."""
    size = 0
    with Hasher() as hasher:
        for chunk in _chunks(items, epoch):
            file.write(chunk)
            hasher.update(chunk)
            size += len(chunk)
        return Packed(hasher.digest(), size)


def _chunks(items: Iterable[Item], epoch: int) -> Iterator[bytes]:
    """The tar in pieces; small ones are joined, since most files are small."""
    small: list[bytes] = []
    gathered = 0
    for item in sorted(items, key=lambda item: [os.fsencode(part) for part in item.path.split("/")]):
        for chunk in _entry(item, epoch):
            small.append(chunk)
            gathered += len(chunk)
            if gathered >= CHUNK:
                yield b"".join(small)
                small, gathered = [], 0
    yield b"".join([*small, bytes(2 * BLOCK)])


def _entry(item: Item, epoch: int) -> Iterator[bytes]:
    info = tarfile.TarInfo(item.path)
    info.mode, info.uid, info.gid, info.mtime = item.mode, item.uid, item.gid, epoch
    if item.target is not None:
        info.type, info.linkname = tarfile.SYMTYPE, item.target
        yield _header(info)
    elif item.content is None:
        info.name += "/"
        info.type = tarfile.DIRTYPE
        yield _header(info)
    elif isinstance(item.content, bytes):
        info.size = len(item.content)
        yield _header(info) + item.content + bytes(padding(info.size))
    else:
        yield from _file(info, item.content)


def _file(info: tarfile.TarInfo, path: Path) -> Iterator[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise EnvironmentFailure(f"{shown(str(path))} changed while it was packed; run it again")
        left = info.size = status.st_size
        yield _header(info)
        while left:
            data = os.read(fd, min(CHUNK, left))
            if not data:
                raise EnvironmentFailure(f"{shown(str(path))} changed while it was packed; run it again")
            left -= len(data)
            yield data
        if info.size > CHUNK:
            # What was read of a large file is not read again: it would push out of memory what is.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    yield bytes(padding(info.size))


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
