"""Destinations are complete or absent: written to a sibling, renamed at the end, removed when anything goes wrong."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from deadweight.errors import EnvironmentFailure, UsageError, shown
from deadweight.image.transports.steady import SteadyFile

_RESERVE = 1 << 20  # for manifests and the file system's own bookkeeping
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an operating system's error into an EnvironmentFailure that says what to do."""
    try:
        yield
    except OSError as error:
        where = shown(str(path))
        if error.errno in _NO_SPACE:
            raise EnvironmentFailure(
                f"no space to write {where}: {error.strerror}; nothing was written, free some or write elsewhere"
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise EnvironmentFailure(
                f"may not write {where}: {error.strerror}; nothing was written, choose another place or user"
            ) from None
        raise EnvironmentFailure(f"cannot write {where}: {error.strerror or error}; nothing was written") from None


def need_space(path: Path, needed: int) -> None:
    """Raises EnvironmentFailure unless the file system of `path`'s folder has `needed` bytes free."""
    stat = os.statvfs(path.parent)
    free = stat.f_bavail * stat.f_frsize
    if free < needed + _RESERVE:
        raise EnvironmentFailure(
            f"no space to write {shown(str(path))}: {needed:,} bytes are needed, {free:,} are available; free some or "
            "write elsewhere"
        )


def check_folder(path: Path) -> None:
    """Raises UsageError unless the folder that `path` lies in is there."""
    if not path.parent.is_dir():
        raise UsageError(f"the folder {shown(str(path.parent))} does not exist; create it first")


@contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file for writing and seeking, which becomes `path` when the block ends, and vanishes when it raises.

    Raises UsageError when something is there and `force` is not given.
    """
    check_folder(path)
    check_file(path, force)
    partial = _partial(path)
    with writing(path):
        try:
            with SteadyFile(partial) as file:
                yield file
            check_file(path, force)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def new_folder(path: Path, mode: int = 0o777) -> Iterator[Path]:
    """A directory that becomes `path` when the block ends, and vanishes when it raises. `mode` is before the umask.

    Raises UsageError when `path` is there and no empty directory.
    """
    check_folder(path)
    check_empty(path)
    partial = _partial(path)
    with writing(path):
        partial.mkdir(mode)
        try:
            yield partial
            check_empty(path)
            partial.rename(path)
        except BaseException:
            remove_tree(partial)
            raise


def remove_tree(folder: Path) -> None:
    """Removes a directory that this run made, as far as it can: directories without write permission, too.

    Not by recursion, as shutil.rmtree: an image's names can be two thousand directories deep.
    """
    folders = [folder]
    for here in folders:  # which grows on the way
        with suppress(OSError):
            here.chmod(0o700)
            for path in list(here.iterdir()):
                if path.is_dir() and not path.is_symlink():
                    folders.append(path)
                else:
                    path.unlink()
    for here in reversed(folders):
        with suppress(OSError):
            here.rmdir()


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name[:200]}.partial-{secrets.token_hex(4)}")


def check_file(path: Path, force: bool) -> None:
    """Raises UsageError where a file is not to be written: something is there, and no file that `force` replaces."""
    if path.is_dir():
        raise UsageError(f"{shown(str(path))} is a directory, and a file is to be written; choose another name")
    if os.path.lexists(path):
        if not force:
            raise UsageError(f"{shown(str(path))} exists; remove it, choose another name, or say --force")
        if not path.is_symlink() and not path.is_file():
            raise UsageError(f"{shown(str(path))} is no regular file; choose another name")


def check_empty(path: Path) -> None:
    """Raises UsageError where there is anything but an empty directory."""
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise UsageError(f"{shown(str(path))} is no directory; choose another name")
    if any(path.iterdir()):
        raise UsageError(f"{shown(str(path))} is not empty; choose another directory")
