"""Blobs that need not be read again: what deadweight wrote or hashed itself, and nobody has touched since; and which
repositories have them.

A file is known by device, inode, size, and both its times to the nanosecond: no write leaves its ctime as it was. On
any doubt, another machine's cache or a file that was copied, it is not known, and is hashed. What is known of a digest
holds wherever the file lies, so that renaming a layout loses nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from deadweight.entries import keep, load
from deadweight.image.bytes import State, file_state
from deadweight.image.compression import Compression
from deadweight.image.transports.stream import Stored

_PLACES = 8
"""Files, or repositories, of one digest that are remembered: the newest."""
_HEX = re.compile(r"sha256:([0-9a-f]{64})")


class _Seen(msgspec.Struct, frozen=True):
    """Files that hold a digest's content, newest first."""

    files: list[tuple[int, ...]]


class _Held(msgspec.Struct, frozen=True):
    """Repositories that have a blob, as (HOST[:PORT], NAME), newest first."""

    repositories: list[tuple[str, str]]


class _Packed(msgspec.Struct, frozen=True):
    """What a layer came to in one compression."""

    digest: str
    size: int
    stored: int


class Memory(msgspec.Struct, frozen=True):
    """What is remembered, in a folder of small files. It may vanish at any time, and then all is read again."""

    folder: Path

    def vouches(self, digest: str, status: os.stat_result) -> bool:
        """Whether the file of which `status` speaks is known to have this digest."""
        return self.vouches_part(digest, file_state(status))

    def note(self, digest: str, status: os.stat_result) -> None:
        """Remembers that the file, as it is now, has this digest: whoever says so has hashed all of it."""
        self.note_part(digest, file_state(status))

    def vouches_part(self, digest: str, state: State) -> bool:
        """Whether a part of a file, a layer in an archive say, is known to have this digest."""
        return state in self._seen(digest)

    def note_part(self, digest: str, state: State) -> None:
        """Remembers that a part of a file has this digest."""
        seen = self._seen(digest)
        if state in seen[:1]:
            return
        # An inode holds one content: what was known of it is no more.
        others = [each for each in seen if each[:2] != state[:2] or (each[:5] == state[:5] and each != state)]
        keep(self._place("seen", digest), _Seen([state, *others][:_PLACES]))

    def packed(self, diff_id: str, compression: Compression) -> Stored | None:
        """What the layer came to when it was last compressed so."""
        if compression == "none":
            return None
        found: _Packed | None = load(self._place(compression, diff_id), _Packed)
        if found is None or not _HEX.fullmatch(found.digest) or min(found.size, found.stored) < 0:
            return None
        return Stored(diff_id, found.digest, found.size, found.stored, compression)

    def note_packed(self, stored: Stored) -> None:
        """Remembers what a layer came to."""
        if stored.compression != "none":
            packed = _Packed(stored.digest, stored.size, stored.stored)
            keep(self._place(stored.compression, stored.diff_id), packed)

    def repositories(self, digest: str, host: str) -> list[str]:
        """Repositories of a registry that had the blob with this digest, newest first. They may have lost it."""
        return [path for at, path in self._repositories(digest) if at == host]

    def note_repository(self, digest: str, host: str, path: str) -> None:
        """Remembers that a repository of a registry has the blob with this digest."""
        held = self._repositories(digest)
        if (host, path) not in held[:1]:
            others = [each for each in held if each != (host, path)]
            keep(self._place("held", digest), _Held([(host, path), *others][:_PLACES]))

    def _repositories(self, digest: str) -> list[tuple[str, str]]:
        found: _Held | None = load(self._place("held", digest), _Held)
        return [] if found is None else found.repositories

    def _seen(self, digest: str) -> list[State]:
        found: _Seen | None = load(self._place("seen", digest), _Seen)
        return [] if found is None else found.files

    def _place(self, kind: str, digest: str) -> Path:
        match = _HEX.fullmatch(digest)
        assert match is not None  # digests are checked where they are read
        return self.folder / f"{kind}-{match[1]}"
