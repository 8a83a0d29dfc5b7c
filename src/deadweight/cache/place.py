"""Where the cache is, how large it may be, and whether it can be trusted."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from deadweight.errors import UsageError, shown
from deadweight.sizes import parse_size

LIMIT: Final = 20_000_000_000
"""Bytes that the cache holds at most, unless DEADWEIGHT_CACHE_LIMIT says otherwise."""


def default_folder() -> Path:
    """Where the cache is: DEADWEIGHT_CACHE_DIR, else `deadweight` in XDG_CACHE_HOME, else in ~/.cache."""
    said = os.environ.get("DEADWEIGHT_CACHE_DIR")
    if said:
        return Path(said).absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    # As the specification says: a relative path is to be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "deadweight"


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
    """Makes the folder of the cache, for nobody else. One that cannot be made holds nothing."""
    with suppress(OSError):
        root.mkdir(0o700, parents=True, exist_ok=True)


def distrust(root: Path) -> str | None:
    """Why the cache in `root` is not to be used; None when it may be, or is not there yet.

    What lies in it decides what images hold: so nobody else may write there.
    """
    try:
        status = root.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{shown(str(root))} cannot be read: {error.strerror}"
    if not stat.S_ISDIR(status.st_mode):
        return f"{shown(str(root))} is no directory"
    if status.st_uid != os.geteuid():
        return f"{shown(str(root))} belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write in {shown(str(root))}: chmod go-w, or name another by DEADWEIGHT_CACHE_DIR"
    return None
