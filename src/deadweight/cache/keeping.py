"""What stays in the cache: what was used last, up to a limit, and nothing that was not used for a month."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from deadweight.cache.layers import Cache, Record
from deadweight.entries import load
from deadweight.image.transports.destination import remove_tree

AGE: Final = 30 * 86400
"""Seconds without use after which everything leaves."""
_SETTLED: Final = 3600.0
"""Seconds after which a blob without a record is nobody's: another run may be about to write its record."""
_MANY: Final = 1 << 20
"""Bytes after which a cache is trimmed at once."""
_OFTEN: Final = 3600.0
"""Seconds after which it is trimmed for less."""
_LEFT: Final = 86400
"""Seconds after which what is not finished is what a killed run left."""
KINDS: Final = {
    "layers": "layers that were made",
    "known": "what is known of layers and their files",
    "made": "what passes made of files",
    "facts": "what is known of base images",
    "environments": "environments that build projects",
    "memory": "which files hold which digest",
}
"""The folders, with what is in them in words."""


class Thing(msgspec.Struct, frozen=True):
    """What is kept or leaves as one."""

    kind: str
    path: Path
    last: float
    """When it was used last, in seconds since the epoch."""
    bytes: int
    blob: str = ""
    """The diff-id of a layer whose bytes are here too: several records may share them."""


def things(cache: Cache) -> Iterator[Thing]:
    """All that the cache holds, but for what is being made."""
    root = cache.root
    blobs = _sizes(root / "blobs")
    for path, status in _files(root / "layers"):
        record = load(path, Record, use=False)
        if record is not None:
            diff_id = record.diff_id if record.diff_id[7:] in blobs else ""
            yield Thing("layers", path, status.st_mtime, status.st_size + blobs.get(record.diff_id[7:], 0), diff_id)
        else:
            yield Thing("layers", path, 0.0, status.st_size)
    for kind in ("known", "made", "facts", "memory"):
        for path, status in _files(root / kind):
            yield Thing(kind, path, status.st_mtime, status.st_size)
    with suppress(OSError):
        for path in (root / "environments").iterdir():
            if not path.name.startswith(".partial-"):
                size = sum(status.st_blocks * 512 for _, status in _files(path))
                yield Thing("environments", path, path.lstat().st_mtime, size)


def trim(cache: Cache, limit: int, used: Collection[str] = (), age: float = AGE) -> int:
    """Drops what is old or too much, never the layers with the keys `used`. Gives the bytes that stay."""
    now = time.time()
    held: set[str] = set()
    dropped: set[str] = set()
    total = 0

    def needed(thing: Thing) -> bool:
        return thing.kind == "layers" and thing.path.name in used

    for thing in sorted(things(cache), key=lambda one: (not needed(one), -one.last)):
        size = thing.bytes if thing.blob not in held else 0
        if needed(thing) or (total + size <= limit and thing.last > now - age):
            total += size
            if thing.blob:
                held.add(thing.blob)
        else:
            _remove(thing.path)
            dropped.add(thing.blob)
    with suppress(OSError):
        for blob in (cache.root / "blobs").iterdir():
            diff_id = f"sha256:{blob.name}"
            if diff_id not in held and (diff_id in dropped or blob.lstat().st_mtime < now - _SETTLED):
                blob.unlink(missing_ok=True)
    for folder in KINDS:
        with suppress(OSError):
            for path in (cache.root / folder).rglob(".partial-*"):
                if path.lstat().st_mtime < now - _LEFT:
                    _remove(path)
    return total


def trim_when_due(cache: Cache, limit: int, new: int) -> None:
    """Trims after `new` bytes were kept: at once where these are many, or much of the limit, otherwise once an hour.

    To go through all of a cache can take longer than what is saved by what is new in it. When that was done last is the
    time of the cache's folder.
    """
    if not new:
        return
    with suppress(OSError):
        if new < min(_MANY, limit // 1000) and 0 <= time.time() - cache.root.stat().st_mtime < _OFTEN:
            return
        os.utime(cache.root)
    trim(cache, limit)


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: status.st_blocks * 512 for path, status in _files(folder)}


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every file below a folder that is finished, with its state."""
    for here, _, names in os.walk(folder):
        for name in names:
            if not name.startswith(".partial-"):
                with suppress(OSError):
                    path = Path(here, name)
                    yield path, path.lstat()


def _remove(path: Path) -> None:
    """Removes a file or a folder."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
