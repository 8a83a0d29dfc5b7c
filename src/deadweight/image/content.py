"""What replaces a file's content: new bytes, and parts of the original, in order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from deadweight.image.bytes import ByteRange

Reader = Callable[[int, int], bytes]
"""`read_at(offset, length) -> bytes`, short at the end of the file."""

ContentPiece = bytes | tuple[int, int] | ByteRange
"""New bytes, an (offset, length) range of the original content, or a range of a file kept aside."""

_ZEROS: Final = bytes(65536)


@dataclass(frozen=True)
class Content:
    """A file's new content, as pieces."""

    pieces: tuple[ContentPiece, ...]

    @property
    def size(self) -> int:
        """Bytes of the new content."""
        return self._starts[-1]

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for piece in self.pieces:
            starts.append(starts[-1] + length_of(piece))
        return starts

    def parts(self, offset: int, length: int) -> Iterable[ContentPiece]:
        """The pieces, or parts of them, that make up a range of the new content."""
        index = max(0, bisect_right(self._starts, offset) - 1)
        while length > 0 and index < len(self.pieces):
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
            else:
                yield from piece.chunks()

    def after(self, first: Content) -> Content:
        """This content's pieces in terms of the original, where `first` was what they were written for."""
        pieces: list[ContentPiece] = []
        for piece in self.pieces:
            pieces.extend(first.parts(*piece) if isinstance(piece, tuple) else (piece,))
        return Content(tuple(pieces))


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
    return piece.read_at(0, piece.size)
