"""What replaces a file's content: new bytes, and parts of the original, in order."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Final

import msgspec

from deadweight.errors import BadInputError
from deadweight.image.bytes import CHUNK, ByteRange
from deadweight.image.deferred import Deferred

Reader = Callable[[int, int], bytes]
"""`read_at(offset, length) -> bytes`, short at the end of the file."""


class Recoded(msgspec.Struct, frozen=True):
    """Part of what `recode` makes of a range of the original content: worked out when it is read, never held whole.

    `recode` takes any number of units and gives as many made ones; the same bytes must give the same.
    """

    recode: Callable[[bytes], bytes]
    unit: int
    """Bytes of the original that are recoded on their own."""
    made: int
    """What a unit becomes, in bytes."""
    start: int
    """Where the range of units begins, in the original content."""
    skip: int
    """Bytes of what it becomes that come before this part."""
    size: int
    """Bytes of this part."""

    def window(self, skip: int, size: int) -> Recoded:
        """A part of this part."""
        return msgspec.structs.replace(self, skip=self.skip + skip, size=size)

    def read(self, read: Reader) -> bytes:
        """The bytes, given a reader of the original. Raises BadInputError where that ends early."""
        first, last = self.skip // self.made, -(-(self.skip + self.size) // self.made)
        length = (last - first) * self.unit
        data = read(self.start + first * self.unit, length)
        if len(data) != length:
            raise BadInputError(f"the file ended {length - len(data):,} bytes early while it was read")
        at = self.skip - first * self.made
        return self.recode(data)[at : at + self.size]

    def chunks(self, read: Reader) -> Iterator[bytes]:
        """The same in pieces that fit into memory, as long as a unit does."""
        step = max(CHUNK // self.unit, 1) * self.made
        for at in range(0, self.size, step):
            yield self.window(at, min(step, self.size - at)).read(read)


ContentPiece = bytes | tuple[int, int] | ByteRange | Recoded
"""New bytes, an (offset, length) range of the original content, a range of a file kept aside, or a range recoded."""

_ZEROS: Final = bytes(65536)
_SMALL: Final = 4096


@dataclass(frozen=True)
class Content:
    """A file's new content, as pieces."""

    pieces: Sequence[ContentPiece]

    @cached_property
    def size(self) -> int:
        """Bytes of the new content."""
        return self._starts[-1]

    @cached_property
    def _starts(self) -> list[int]:
        return list(accumulate(map(length_of, self.pieces), initial=0))

    @cached_property
    def digest(self) -> bytes | None:
        """Tells it from other contents made of the same original; None where a piece is more than bytes and ranges."""
        found = hashlib.sha256()
        small: list[bytes] = []  # there can be a hundred thousand, of a few bytes each
        for piece in self.pieces:
            if isinstance(piece, tuple):
                small.append(b"r%d,%d:" % piece)
            elif not isinstance(piece, bytes):
                return None
            elif len(piece) < _SMALL:
                small += (b"b%d:" % len(piece), piece)
            else:
                small.append(b"b%d:" % len(piece))
                found.update(b"".join(small))
                found.update(piece)
                small.clear()
        found.update(b"".join(small))
        return found.digest()

    def parts(self, offset: int, length: int) -> Iterable[ContentPiece]:
        """The pieces, or parts of them, that make up a range of the new content."""
        count = len(self.pieces)  # they are found here, and not under the lock that a cached_property has
        index = max(0, bisect_right(self._starts, offset) - 1)
        while length > 0 and index < count:
            skip = offset - self._starts[index]
            take = min(length, self._starts[index + 1] - offset)
            if take:
                yield _part(self.pieces[index], skip, take)
            offset, length, index = offset + take, length - take, index + 1

    def reader(self, read: Reader) -> Reader:
        """Reads the new content, given a reader of the original."""

        def read_at(offset: int, length: int) -> bytes:
            return b"".join(_read(part, read) for part in self.parts(offset, length))

        return read_at

    def chunks(self, original: ByteRange) -> Iterator[bytes]:
        """The new content, in pieces that fit into memory, given the original."""
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
            elif isinstance(piece, tuple):
                yield from original.chunks(*piece)
            elif isinstance(piece, Recoded):
                yield from piece.chunks(original.read_at)
            else:
                yield from piece.chunks()

    def after(self, first: Content) -> Content:
        """This content's pieces in terms of the original, where `first` was what they were written for.

        Raises ValueError where it recodes what is not the original's own.
        """
        if any(isinstance(piece, Recoded) for piece in self.pieces):
            raise ValueError("what another pass has changed cannot be converted")
        pieces: list[ContentPiece] = []
        for piece in self.pieces:
            pieces.extend(first.parts(*piece) if isinstance(piece, tuple) else (piece,))
        return Content(tuple(pieces))


def known_content(find: Callable[[], Content], size: int, digest: bytes) -> Content:
    """The content that `find` gives, once somebody asks for a piece of it; its size and digest are known."""
    content = Content(Deferred(lambda: find().pieces))
    content.__dict__.update(size=size, digest=digest)
    return content


def length_of(piece: ContentPiece) -> int:
    """The bytes of a piece."""
    return len(piece) if isinstance(piece, bytes) else piece[1] if isinstance(piece, tuple) else piece.size


def zeros(length: int) -> Iterable[bytes]:
    """Zeros, in pieces that share their memory: a page can have 16 MiB and there may be many."""
    return [_ZEROS] * (length // len(_ZEROS)) + [_ZEROS[: length % len(_ZEROS)]]


def joined(pieces: Iterable[ContentPiece]) -> Content:
    """A content of these pieces, the empty ones left out and adjoining ranges made one."""
    found: list[ContentPiece] = []
    for piece in pieces:
        if not length_of(piece):
            continue
        last = found[-1] if found else None
        if isinstance(piece, tuple) and isinstance(last, tuple) and last[0] + last[1] == piece[0]:
            found[-1] = (last[0], last[1] + piece[1])
        else:
            found.append(piece)
    return Content(tuple(found))


def _part(piece: ContentPiece, skip: int, take: int) -> ContentPiece:
    if take == length_of(piece):
        return piece
    if isinstance(piece, bytes):
        return piece[skip : skip + take]
    if isinstance(piece, tuple):
        return piece[0] + skip, take
    return piece.window(skip, take)


def _read(piece: ContentPiece, read: Reader) -> bytes:
    if isinstance(piece, bytes):
        return piece
    if isinstance(piece, tuple):
        return read(*piece)
    if isinstance(piece, Recoded):
        return piece.read(read)
    return piece.read_at(0, piece.size)
