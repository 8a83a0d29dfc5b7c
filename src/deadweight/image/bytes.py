"""Random access to parts of files, without a shared position: what layers, blobs and archives are read through."""

from __future__ import annotations

import io
import os
import stat
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from deadweight.errors import BadInputError, EnvironmentFailure, shown

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 1 << 20


class Blob(Protocol):
    """A layer as its source stores it: a part of an open file, or what a registry sends when it is asked."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read_at(self, offset: int, length: int, /) -> bytes:
        """A few bytes from anywhere; for the content as a whole there is `chunks`."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """The whole, from the beginning, in pieces of at most a few MiB. Digests are the caller's to check."""
        ...


class ByteRange:
    """`size` bytes of an open file, from `start`. The file descriptor belongs to whoever opened it."""

    __slots__ = ("fd", "size", "start")

    def __init__(self, fd: int, start: int, size: int) -> None:
        self.fd = fd
        self.start = start
        self.size = size

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes at `offset`; fewer than `length` only where the range ends."""
        length = min(length, self.size - offset)
        if length <= 0 or offset < 0:
            return b""
        data = os.pread(self.fd, length, self.start + offset)
        if len(data) == length:
            return data
        parts = [data]
        got = len(data)
        while data and got < length:
            data = os.pread(self.fd, length - got, self.start + offset + got)
            parts.append(data)
            got += len(data)
        return b"".join(parts)

    def chunks(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The bytes from `offset` on in pieces of at most 1 MiB.

        Raises BadInputError when the file ends early (it was cut while in use).
        """
        end = self.size if length is None else offset + length
        while offset < end:
            data = self.read_at(offset, min(CHUNK, end - offset))
            if not data:
                raise BadInputError(f"the file ended {end - offset:,} bytes early while it was read")
            yield data
            offset += len(data)

    def window(self, offset: int, length: int) -> ByteRange:
        """A part of this range. Raises BadInputError when it does not lie inside."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise BadInputError(f"{length:,} bytes at {offset:,} lie outside the {self.size:,} bytes that there are")
        return ByteRange(self.fd, self.start + offset, length)

    def raw(self) -> RangeIO:
        """The range as a file object of its own."""
        return RangeIO(self)


State = tuple[int, ...]
"""Of a part of a file: device, inode, size, both times in nanoseconds; start and length where it is not all of it.

No write leaves the second time as it was.
"""


def state_of(source: ByteRange) -> State | None:
    """The state of the file that a range is of, as it is now; None where there is no one file."""
    if source.fd < 0:
        return None
    found = file_state(os.fstat(source.fd))
    return found if (source.start, source.size) == (0, found[2]) else (*found, source.start, source.size)


def file_state(status: os.stat_result) -> State:
    """The state of a whole file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def only_named(before: State, after: State) -> bool:
    """Whether a file was at most given another name, or one less: that changes the second time alone."""
    return before[:4] == after[:4]


class PiecedRange(ByteRange):
    """Ranges of files one after the other, read as if they were one. It has no file descriptor of its own (-1)."""

    __slots__ = ("pieces", "starts")

    def __init__(self, pieces: Iterable[ByteRange]) -> None:
        self.pieces = tuple(piece for piece in pieces if piece.size)
        self.starts = [0]
        for piece in self.pieces:
            self.starts.append(self.starts[-1] + piece.size)
        super().__init__(-1, 0, self.starts[-1])

    def read_at(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        if length <= 0 or offset < 0:
            return b""
        return b"".join(part.read_at(0, part.size) for part in self._parts(offset, length))

    def window(self, offset: int, length: int) -> ByteRange:
        """A part of this range: one of a file where one piece has all of it."""
        super().window(offset, length)
        parts = tuple(self._parts(offset, length))
        return parts[0] if len(parts) == 1 else PiecedRange(parts)

    def _parts(self, offset: int, length: int) -> Iterator[ByteRange]:
        index = max(0, bisect_right(self.starts, offset) - 1)
        while length > 0:
            skip = offset - self.starts[index]
            piece = self.pieces[index]
            take = min(length, piece.size - skip)
            yield piece if take == piece.size else piece.window(skip, take)
            offset, length, index = offset + take, length - take, index + 1


class RangeIO(io.RawIOBase):
    """A ByteRange as a seekable raw file, for libraries that want one."""

    def __init__(self, source: ByteRange) -> None:
        super().__init__()
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read_at(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._source.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position


def open_file(path: Path, resources: ExitStack) -> ByteRange:
    """The whole of a regular file; `resources` closes it.

    Raises BadInputError when it is missing or no regular file, EnvironmentFailure when it may not be read.
    """
    try:
        # A pipe that nobody writes to would be waited for, for ever.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise BadInputError(f"cannot read {shown(str(path))}: {error.strerror}") from None
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {shown(str(path))}: {error.strerror}") from None
    resources.callback(os.close, fd)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise BadInputError(f"{shown(str(path))} is no regular file; save the image to a file first")
    return ByteRange(fd, 0, status.st_size)
