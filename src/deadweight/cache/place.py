"""Where the cache is, how large it may be, and whether it can be trusted."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from deadweight.errors import EnvironmentFailure, UsageError, shown
from deadweight.sizes import parse_size

LIMIT: Final = 20_000_000_000
"""Bytes that the cache holds at most, unless DEADWEIGHT_CACHE_LIMIT says otherwise."""
TAG: Final = "CACHEDIR.TAG"
"""What marks a folder as a cache, for backups too: by https://bford.info/cachedir/."""
_OURS: Final = b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache of deadweight"


def default_folder() -> Path:
    """Where the cache is: DEADWEIGHT_CACHE_DIR, else `deadweight` in XDG_CACHE_HOME, else in ~/.cache.

    Raises EnvironmentFailure where nothing says so, and there is no home.
    """
    said = os.environ.get("DEADWEIGHT_CACHE_DIR")
    if said:
        return Path(said).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # As the specification says: a relative path is to be ignored.
    try:
        return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "deadweight"
    except RuntimeError:
        raise EnvironmentFailure("the user has no home for one: name a folder by DEADWEIGHT_CACHE_DIR") from None


def limit() -> int:
    """The most bytes that the cache holds. Raises UsageError where DEADWEIGHT_CACHE_LIMIT is no size."""
    said = os.environ.get("DEADWEIGHT_CACHE_LIMIT")
    if not said:
        return LIMIT
    try:
        return parse_size(said)
    except UsageError as error:
        raise UsageError(f"DEADWEIGHT_CACHE_LIMIT: {error}") from None


def make_folder(root: Path) -> None:
    """Makes the folder of the cache, for nobody else, and marks it. One that cannot be made holds nothing.

    One that is there is marked only where it is empty: what leaves the cache by age and size is never somebody's.
    """
    with suppress(OSError):
        root.mkdir(0o700, parents=True, exist_ok=True)
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_uid == os.geteuid() and not _names(fd) and not _is_marked(fd):
                os.fchmod(fd, 0o700)
                _mark(fd)
        finally:
            os.close(fd)


def distrust(root: Path) -> str | None:
    """Why the cache in `root` is not to be used; None when it may be, or is not there yet.

    What lies in it decides what images hold: so nobody else may write there. Folders below are as the umask says,
    so nobody else may come to them. And what lies in it leaves when it is old: so it has to be deadweight's.
    """
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        if root.is_symlink():
            folder = shown(os.path.realpath(root))
            return (
                f"{shown(str(root))} is a link, which others may turn: name the folder by DEADWEIGHT_CACHE_DIR={folder}"
            )
        return f"{shown(str(root))} is no directory"
    except OSError as error:
        return f"{shown(str(root))} cannot be read: {error.strerror}"
    try:
        reason = _distrust(fd)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    finally:
        os.close(fd)
    return None if reason is None else f"{shown(str(root))} {reason}"


def _distrust(folder: int) -> str | None:
    status = os.fstat(folder)
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    if not _is_marked(folder):
        if not _names(folder):
            return "cannot be written"
        return (
            f"holds what deadweight did not write (it has no {TAG} of deadweight's): "
            "name another folder by DEADWEIGHT_CACHE_DIR, or empty this one"
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return "is open to others: remove it, or name another by DEADWEIGHT_CACHE_DIR"
    return None


def _names(folder: int) -> list[str]:
    """What is in a folder, but for the mark, and one that somebody writes at this moment."""
    return [name for name in os.listdir(folder) if name != TAG and not name.startswith(".partial-")]


def _is_marked(folder: int) -> bool:
    try:
        fd = os.open(TAG, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return False
    with os.fdopen(fd, "rb") as file:
        return file.read(len(_OURS)) == _OURS


def _mark(folder: int) -> None:
    """Marks a folder. Whole or not at all: another run may look at this moment."""
    partial = f".partial-{secrets.token_hex(8)}"
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(_OURS + b": all of it may be removed at any time.\n")
        os.replace(partial, TAG, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(partial, dir_fd=folder)
        raise
