"""Where blobs go: a tar that is an OCI layout, or an OCI layout directory."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from deadweight.image.bytes import file_state, only_named
from deadweight.image.layer import BLOCK, padding
from deadweight.image.model import sha256
from deadweight.image.transports.memory import Memory
from deadweight.image.transports.steady import SteadyFile
from deadweight.image.transports.stream import Stored

BLOBS = "blobs/sha256"


class Store(Protocol):
    """Takes blobs; equal ones are kept once."""

    def layer(self, write: Callable[[BinaryIO], Stored]) -> Stored:
        """Adds what `write` writes to the file that it is given, from its position on."""
        ...

    def blob(self, data: bytes) -> str:
        """Adds a small blob; gives its digest."""
        ...


class TarStore:
    """A tar, written in one go: a layer's digest is known only after its bytes, so its header is written last.

    Every header is one block, owner and time are zero: the same blobs give the same tar.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._seen: set[str] = set()
        for folder in ("blobs/", "blobs/sha256/"):
            file.write(tar_header(folder, 0, directory=True))

    def layer(self, write: Callable[[BinaryIO], Stored]) -> Stored:
        start = self._file.tell()
        self._file.write(bytes(BLOCK))
        stored = write(self._file)
        if stored.digest in self._seen:
            self._file.seek(start)
            self._file.truncate()
            return stored
        self._seen.add(stored.digest)
        self._file.write(bytes(padding(stored.stored)))
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(tar_header(f"{BLOBS}/{stored.digest[7:]}", stored.stored))
        self._file.seek(end)
        return stored

    def blob(self, data: bytes) -> str:
        digest = sha256(data)
        if digest not in self._seen:
            self._seen.add(digest)
            self.put(f"{BLOBS}/{digest[7:]}", data)
        return digest

    def put(self, name: str, data: bytes) -> None:
        """Adds a member."""
        self._file.write(tar_header(name, len(data)) + data + bytes(padding(len(data))))

    def finish(self) -> None:
        """Ends the tar."""
        self._file.write(bytes(2 * BLOCK))
        self._file.flush()


def tar_header(name: str, size: int, *, directory: bool = False) -> bytes:
    """A member's header: one block, with neither owner nor time."""
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o755 if directory else 0o644
    info.type = tarfile.DIRTYPE if directory else tarfile.REGTYPE
    # GNU: a size of 8 GiB and more fits into the same block, in base 256, where pax needs a second header.
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


class FolderStore:
    """An OCI layout directory. Blobs that are there already stay where the memory vouches for them, else those just
    written take their place; `undo` removes those that were added.
    """

    def __init__(self, folder: Path, memory: Memory | None = None) -> None:
        self._folder = folder / BLOBS
        self._added: list[Path] = []
        self._memory = memory
        self._folder.mkdir(parents=True, exist_ok=True)

    def has(self, stored: Stored) -> bool:
        """Whether a layer's blob is there: the memory vouches for it, or it is hashed now. One that is damaged is not,
        and will be replaced.
        """
        path = self._folder / stored.digest[7:]
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        with os.fdopen(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size != stored.stored:
                return False
            if self._memory is not None and self._memory.vouches(stored.digest, status):
                return True
            found = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
            same = found == stored.digest and _unchanged(status, os.fstat(fd))
        if same and self._memory is not None:
            self._memory.note(stored.digest, status)
        return same

    def layer(self, write: Callable[[BinaryIO], Stored]) -> Stored:
        partial, file = _partial(self._folder)
        try:
            with file:
                stored = write(file)
                file.flush()
                written = file_state(os.fstat(file.fileno()))
            self._settle(partial, stored.digest)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        if self._memory is not None:
            self._memory.note_packed(stored)
            now = (self._folder / stored.digest[7:]).lstat()
            if only_named(written, file_state(now)):
                self._memory.note(stored.digest, now)
        return stored

    def blob(self, data: bytes) -> str:
        digest = sha256(data)
        partial, file = _partial(self._folder)
        try:
            with file:
                file.write(data)
            self._settle(partial, digest)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return digest

    def undo(self) -> None:
        """Removes the blobs that this store added."""
        for path in self._added:
            path.unlink(missing_ok=True)

    def _settle(self, partial: Path, digest: str) -> None:
        """Gives a blob its name, unless a sound one has it."""
        path = self._folder / digest[7:]
        there = os.path.lexists(path)
        if there and self._memory is not None and self._memory.vouches(digest, path.lstat()):
            partial.unlink()
            return
        partial.replace(path)
        if not there:
            self._added.append(path)


def _unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file so that a reader sees the old or the new one, whole."""
    partial, file = _partial(path.parent)
    try:
        with file:
            file.write(data)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _partial(folder: Path) -> tuple[Path, BinaryIO]:
    path = folder / f".partial-{secrets.token_hex(8)}"
    return path, SteadyFile(path)
