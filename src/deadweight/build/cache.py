"""Layers that need not be made again, and a place to make new ones.

    layers/KEY.json   what a layer with these inputs came to
    blobs/HEX         its tar, named by its digest
    facts/HEX.json    what was found in a base image
    environments/KEY  what builds projects
    memory/           which files are known to hold which digest
    work/RANDOM/      where a build that is running has its files

Everything is written beside and renamed, so that it is there whole or not at all, and two builds at once do not meet:
whoever finds less than a whole layer makes it anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgspec

from deadweight.build.pack import Packed
from deadweight.errors import EnvironmentFailure, shown
from deadweight.image.bytes import ByteRange
from deadweight.image.transports.destination import remove_tree, writing
from deadweight.image.transports.memory import Memory
from deadweight.image.transports.steady import SteadyFile

LIMIT: Final = 20_000_000_000
"""Bytes of layers that are kept: those of the last build always, then the ones that were used last."""
AGE: Final = 30 * 86400
"""Seconds without use after which a layer leaves."""
_SETTLED: Final = 3600.0
"""Seconds after which a blob without a record is nobody's: another build may be about to write its record."""
_LEFT: Final = 86400
"""Seconds after which what is not finished is what a killed build left."""
T = TypeVar("T")


class Record(msgspec.Struct, frozen=True):
    """What a layer came to."""

    diff_id: str
    bytes: int
    notes: tuple[str, ...] = ()
    about: dict[str, Any] = {}
    """What whoever made it wants to know of it the next time."""


@dataclass(frozen=True)
class Cached:
    """A layer that is there."""

    record: Record
    blob: ByteRange
    fresh: bool
    """Whether it was made just now."""


@dataclass(frozen=True)
class Cache:
    """The folder."""

    root: Path

    @property
    def memory(self) -> Memory:
        """Which files are known to hold which digest."""
        return Memory(self.root / "memory")

    def layer(self, key: str, resources: ExitStack) -> Cached | None:
        """The layer with this key, if it is there and sound. It stays open in `resources`, whatever becomes of it."""
        path = self.root / "layers" / f"{key}.json"
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError):
            return None
        blob = self._blob(record, resources)
        if blob is None:
            return None
        with suppress(OSError):
            os.utime(path)  # the time of its last use
        return Cached(record, blob, fresh=False)

    def make(
        self,
        key: str,
        write: Callable[[BinaryIO], Packed],
        resources: ExitStack,
        describe: Callable[[], tuple[tuple[str, ...], dict[str, Any]]] = lambda: ((), {}),
    ) -> Cached:
        """Makes a layer by `write`, and remembers it under this key with what `describe` says afterwards."""
        blobs = self.root / "blobs"
        partial = blobs / f".partial-{secrets.token_hex(8)}"
        with writing(blobs):
            blobs.mkdir(parents=True, exist_ok=True)
            try:
                with SteadyFile(partial) as file:
                    packed = write(file)
                place = blobs / packed.diff_id[7:]
                partial.replace(place)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            self.memory.note(packed.diff_id, place.lstat())
            record = Record(packed.diff_id, packed.size, *describe())
            self._put("layers", key, msgspec.json.encode(record))
        blob = self._blob(record, resources)
        if blob is None:
            raise EnvironmentFailure(
                f"{shown(str(place))} is gone again: does somebody else clear the cache? Try again"
            )
        return Cached(record, blob, fresh=True)

    def facts(self, name: str, kind: type[T]) -> T | None:
        """What was found out before; None where it was not, or not by this version."""
        try:
            return msgspec.json.decode((self.root / "facts" / f"{name}.json").read_bytes(), type=kind)
        except (OSError, msgspec.MsgspecError):
            return None

    def note_facts(self, name: str, facts: msgspec.Struct) -> None:
        """Remembers what was found out."""
        with writing(self.root):
            self._put("facts", name, msgspec.json.encode(facts))

    def forget(self, key: str) -> None:
        """Forgets the layer with this key."""
        (self.root / "layers" / f"{key}.json").unlink(missing_ok=True)

    @contextmanager
    def workplace(self) -> Iterator[Path]:
        """A folder for this build alone, which vanishes at the end; what builds that were killed left goes too."""
        works = self.root / "work"
        with writing(works), ExitStack() as resources:
            works.mkdir(parents=True, exist_ok=True)
            _sweep(works)
            place = works / secrets.token_hex(8)
            place.mkdir(0o700)
            _lock(place, resources)
            try:
                yield place
            finally:
                remove_tree(place)

    def trim(self, used: Collection[str]) -> int:
        """Drops what is old or too much, never the layers with the keys `used`. Gives the bytes that stay."""
        records: list[tuple[float, Path, Record]] = []
        with suppress(OSError):
            for path in (self.root / "layers").glob("*.json"):
                with suppress(OSError, msgspec.MsgspecError):
                    record = msgspec.json.decode(path.read_bytes(), type=Record)
                    records.append((path.stat().st_mtime, path, record))
        records.sort(key=lambda each: (each[1].stem not in used, -each[0]))
        kept: dict[str, int] = {}
        for last, path, record in records:
            total = sum(kept.values()) + (0 if record.diff_id in kept else record.bytes)
            if path.stem in used or (total <= LIMIT and last > time.time() - AGE):
                kept[record.diff_id] = record.bytes
            else:
                path.unlink(missing_ok=True)
        with suppress(OSError):
            for blob in (self.root / "blobs").iterdir():
                if f"sha256:{blob.name}" not in kept and blob.stat().st_mtime < time.time() - _SETTLED:
                    blob.unlink(missing_ok=True)
        for folder in ("memory", "facts"):  # small, and found out again
            with suppress(OSError):
                for path in (self.root / folder).iterdir():
                    if path.stat().st_mtime < time.time() - AGE:
                        path.unlink(missing_ok=True)
        for folder in ("layers", "environments"):  # the others' leave by their age, as all that is in there
            with suppress(OSError):
                for path in (self.root / folder).glob(".partial-*"):
                    if path.lstat().st_mtime < time.time() - _LEFT:
                        _remove(path)
        return sum(kept.values())

    def _blob(self, record: Record, resources: ExitStack) -> ByteRange | None:
        """The blob of a layer, known to be sound: nobody has touched it since it was written, or it is hashed now."""
        try:
            fd = os.open(
                self.root / "blobs" / record.diff_id[7:], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except OSError:
            return None
        resources.callback(os.close, fd)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != record.bytes:
            return None
        blob = ByteRange(fd, 0, status.st_size)
        if not self.memory.vouches(record.diff_id, status):
            digest = hashlib.sha256()
            for chunk in blob.chunks():
                digest.update(chunk)
            if f"sha256:{digest.hexdigest()}" != record.diff_id:
                return None
            self.memory.note(record.diff_id, status)
        return blob

    def _put(self, folder: str, name: str, data: bytes) -> None:
        place = self.root / folder
        place.mkdir(parents=True, exist_ok=True)
        partial = place / f".partial-{secrets.token_hex(8)}"
        try:
            partial.write_bytes(data)
            partial.replace(place / f"{name}.json")
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def default_folder() -> Path:
    """Where the cache is unless said otherwise: `deadweight/build` in XDG_CACHE_HOME, else in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # As the specification says: a relative path is to be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "deadweight" / "build"


def key_of(**inputs: object) -> str:
    """The key of what follows from these inputs alone."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _remove(path: Path) -> None:
    """Removes a file or a folder."""
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def _lock(place: Path, resources: ExitStack) -> bool:
    """Locks a folder; False where somebody has."""
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    resources.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(works: Path) -> None:
    """Removes the folders of builds that are no more: nobody holds their lock."""
    for place in works.iterdir():
        with suppress(OSError), ExitStack() as resources:
            # A folder that was made this moment may not be locked yet.
            if place.stat().st_mtime < time.time() - 60 and _lock(place, resources):
                remove_tree(place)
