"""Layers that need not be made again, and a place to make new ones.

    layers/KEY        what a layer with these inputs came to
    blobs/HEX         its tar, named by its digest; not of every layer
    facts/HEX         what was found in a base image
    environments/KEY  what builds projects
    memory/           which files are known to hold which digest
    work/RANDOM/      where a build that is running has its files
    known/, made/     what is known of layers and files (known.py)

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

import msgspec

from deadweight.entries import keep, load
from deadweight.errors import EnvironmentFailure, shown
from deadweight.image.bytes import ByteRange, State, file_state, only_named, state_of
from deadweight.image.model import DIGEST
from deadweight.image.transports.destination import remove_tree, writing
from deadweight.image.transports.memory import Memory
from deadweight.image.transports.steady import SteadyFile

T = TypeVar("T")


class Packed(Protocol):
    """A tar that was written."""

    @property
    def diff_id(self) -> str:
        """Its digest."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...


class Record(msgspec.Struct, frozen=True):
    """What a layer came to."""

    diff_id: str
    bytes: int
    notes: tuple[str, ...] = ()
    about: dict[str, Any] = {}
    """What whoever made it wants to know of it the next time."""


class Cached(msgspec.Struct, frozen=True):
    """A layer that is there."""

    record: Record
    blob: ByteRange
    state: State
    """That of the blob's file when it was known to be sound."""
    fresh: bool
    """Whether it was made just now."""


class Cache(msgspec.Struct, frozen=True):
    """The folder."""

    root: Path

    @property
    def memory(self) -> Memory:
        """Which files are known to hold which digest."""
        return Memory(self.root / "memory")

    def record(self, key: str) -> Record | None:
        """What the layer with this key came to, wherever its bytes are."""
        found: Record | None = load(self.root / "layers" / key, Record)
        return found if found is not None and DIGEST.fullmatch(found.diff_id) else None

    def note_record(self, key: str, record: Record) -> None:
        """Remembers what a layer came to."""
        keep(self.root / "layers" / key, record)

    def layer(self, key: str, resources: ExitStack) -> Cached | None:
        """The layer with this key, if it is there and sound. It stays open in `resources`, whatever becomes of it."""
        record = self.record(key)
        blob = None if record is None else self._sound(record, resources)
        return None if record is None or blob is None else Cached(record, *blob, fresh=False)

    def adopt(self, diff_id: str, blob: Path, known: State) -> None:
        """Has the layer in a file here too, if that takes no room: as another name of the file.

        `known` is the file's state when it was known to hold the layer. Whoever changes the file changes it here as
        well, which is seen by its times: then it is no longer used, and another one takes its place.
        """
        place = self.root / "blobs" / diff_id[7:]
        with suppress(OSError):
            if self.memory.vouches(diff_id, place.lstat()):
                return
        partial = place.with_name(f".partial-{secrets.token_hex(8)}")
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(blob, partial, follow_symlinks=False)
            try:
                partial.replace(place)
            finally:
                partial.unlink(missing_ok=True)  # nothing is renamed where both are the same file already
            now = place.lstat()
            if only_named(known, file_state(now)):
                self.memory.note(diff_id, now)

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
            self.note_record(key, record)
        blob = self._sound(record, resources)
        if blob is None:
            raise EnvironmentFailure(
                f"{shown(str(place))} is gone again: does somebody else clear the cache? Try again"
            )
        return Cached(record, *blob, fresh=True)

    def facts(self, name: str, kind: type[T]) -> T | None:
        """What was found out before; None where it was not, or not by this version."""
        found: T | None = load(self.root / "facts" / name, kind)
        return found

    def note_facts(self, name: str, facts: msgspec.Struct) -> None:
        """Remembers what was found out."""
        keep(self.root / "facts" / name, facts)

    def forget(self, key: str) -> None:
        """Forgets the layer with this key."""
        (self.root / "layers" / key).unlink(missing_ok=True)

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

    def blob(self, record: Record, resources: ExitStack) -> tuple[ByteRange, State | None] | None:
        """The blob of a layer as it lies here, with its state where it is known to be sound in that."""
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
        vouched = self.memory.vouches(record.diff_id, status)
        return ByteRange(fd, 0, status.st_size), file_state(status) if vouched else None

    def _sound(self, record: Record, resources: ExitStack) -> tuple[ByteRange, State] | None:
        """The blob of a layer, known to be sound: nobody has touched it since it was written, or it is hashed now."""
        found = self.blob(record, resources)
        if found is None:
            return None
        blob, known = found
        if known is None:
            status = os.fstat(blob.fd)
            known = file_state(status)
            digest = hashlib.sha256()
            for chunk in blob.chunks():
                digest.update(chunk)
            if f"sha256:{digest.hexdigest()}" != record.diff_id or state_of(blob) != known:
                return None
            self.memory.note(record.diff_id, status)
        return blob, known


def key_of(**inputs: object) -> str:
    """The key of what follows from these inputs alone."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


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
