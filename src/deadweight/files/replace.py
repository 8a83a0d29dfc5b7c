"""Replacing files of a live tree: each is whole at every moment, and nothing is ever written through a hard link.

New content goes to a new inode beside the file, with the original's mode, owner, times and extended attributes, and is
renamed over it: whoever has the file open or mapped keeps the old one. Names of temporary files are recognizable, so
that those of a run that was killed are known for what they are.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from deadweight.errors import EnvironmentFailure, shown

LEFTOVER: Final = re.compile(r"\.deadweight-[0-9a-f]{16}\.tmp")
"""The names of temporary files."""
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM})


class Changed(Exception):
    """The file is no longer the one that was read."""


@contextmanager
def changing(path: str) -> Iterator[None]:
    """Turns an operating system's error into an EnvironmentFailure that says what to do."""
    try:
        yield
    except OSError as error:
        where = f"{shown(path)}: {error.strerror or error}"
        if error.errno in _NO_SPACE:
            raise EnvironmentFailure(f"no space to replace {where}; free some and run it again") from None
        if error.errno == errno.EROFS:  # which nobody may write to, whoever owns the directory
            raise EnvironmentFailure(f"cannot replace {where}; make it writable or prune a copy") from None
        if error.errno in _NOT_ALLOWED:
            raise EnvironmentFailure(f"may not replace {where}; run it as the owner of the directory") from None
        raise EnvironmentFailure(f"cannot replace {where}") from None


def beside(path: str) -> str:
    """A new name for a temporary file in the directory of `path`."""
    return os.path.join(os.path.dirname(path), f".deadweight-{secrets.token_hex(8)}.tmp")  # noqa: PTH118, PTH120


def write_new(path: str, chunks: Iterable[bytes], like: int | None = None) -> None:
    """Writes a file that must not be there yet, whole and on disk when this returns; removed if it fails.

    It gets the mode, owner, times and extended attributes of the open file `like`, as far as that is permitted.
    """
    mode = 0o666 if like is None else 0o600
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            with os.fdopen(fd, "wb", buffering=0, closefd=False) as file:
                for chunk in chunks:
                    rest = memoryview(chunk)
                    while rest:
                        rest = rest[file.write(rest) :]
            if like is not None:
                _make_alike(fd, like)
            os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        remove([path])
        raise


def _make_alike(fd: int, like: int) -> None:
    """Gives an open file the metadata of another."""
    status = os.fstat(like)
    mode = stat.S_IMODE(status.st_mode)
    try:
        os.fchown(fd, status.st_uid, status.st_gid)
    except OSError:
        mode &= ~(stat.S_ISUID | stat.S_ISGID)  # they would give the rights of somebody else
    os.fchmod(fd, mode)
    with suppress(OSError):  # file systems without extended attributes
        for name in os.listxattr(like):
            with suppress(OSError):  # those of the security modules and capabilities take privileges
                os.setxattr(fd, name, os.getxattr(like, name))
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def put_in_place(temporary: str, paths: Sequence[str], read: os.stat_result) -> None:
    """Gives the new file `temporary` all the names `paths` of one old file, which was `read` when it was read.

    Each name has the old file or the new one at every moment. Raises Changed when the old one changed meanwhile;
    whatever is raised, no temporary file stays.
    """
    links: list[tuple[str, str]] = []
    try:
        _refuse_changed(paths, read)
        for path in paths[1:]:
            links.append((beside(path), path))
            os.link(temporary, links[-1][0])
        Path(temporary).replace(paths[0])
        for link, path in links:
            Path(link).replace(path)
    except BaseException:
        remove([temporary, *(link for link, _ in links)])
        raise


def _refuse_changed(paths: Iterable[str], read: os.stat_result) -> None:
    if any(_identity(os.lstat(path)) != _identity(read) for path in paths):
        raise Changed


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns


def replace_content(path: str, content: bytes) -> None:
    """Replaces a small file whole; its metadata stay. EnvironmentFailure where that cannot be done."""
    with changing(path):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            temporary = beside(path)
            write_new(temporary, [content], fd)
            put_in_place(temporary, [path], os.fstat(fd))
        except Changed:
            raise EnvironmentFailure(f"{shown(path)} changed while it was replaced; run it again") from None
        finally:
            os.close(fd)


def add_content(path: str, content: bytes) -> None:
    """Writes a small file that is not there yet, complete or not at all. EnvironmentFailure where it cannot."""
    with changing(path):
        temporary = beside(path)
        try:
            write_new(temporary, [content])
            Path(temporary).replace(path)
        except BaseException:
            remove([temporary])
            raise


def remove(paths: Iterable[str]) -> None:
    """Removes files as far as they are there and it can."""
    for path in paths:
        with suppress(OSError):
            Path(path).unlink()
