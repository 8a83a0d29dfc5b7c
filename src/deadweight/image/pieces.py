"""What a new layer is made of: literal bytes, parts of original layers, what is made of such parts, and parts of files
kept aside, in order.
"""

from __future__ import annotations

import msgspec

from deadweight.image.bytes import ByteRange
from deadweight.image.content import Recoded

END = bytes(1024)
"""Two zero blocks: the end of a tar archive."""
_JOINED = 8192
"""Literal bytes that one piece has, about: joining copies them each time."""


class Span(msgspec.Struct, frozen=True, gc=False):
    """`length` bytes at `start` of an original layer's tar."""

    layer: int
    start: int
    length: int


class Made(msgspec.Struct, frozen=True, gc=False):
    """What is made of the content that lies at `start` of an original layer's tar, with `length` bytes."""

    layer: int
    start: int
    length: int
    part: Recoded

    @property
    def size(self) -> int:
        """Bytes that it comes to."""
        return self.part.size


Piece = bytes | Span | ByteRange | Made


def length_of(piece: Piece) -> int:
    """The bytes that a piece comes to."""
    return len(piece) if isinstance(piece, bytes) else piece.length if isinstance(piece, Span) else piece.size


class Pieces:
    """Collects pieces, joining neighbours."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.size = 0
        self._pieces: list[Piece] = []
        self._from = self._to = 0  # what is copied and not among the pieces yet

    @property
    def pieces(self) -> list[Piece]:
        """All that were added."""
        self._settle()
        return self._pieces

    def add(self, piece: Piece) -> None:
        length = length_of(piece)
        if not length:
            return
        self._settle()
        self.size += length
        last = self._pieces[-1] if self._pieces else None
        if isinstance(piece, bytes) and isinstance(last, bytes) and len(last) < _JOINED:
            self._pieces[-1] = last + piece
        elif (
            isinstance(piece, Span)
            and isinstance(last, Span)
            and (last.layer, last.start + last.length) == (piece.layer, piece.start)
        ):
            self._pieces[-1] = Span(last.layer, last.start, last.length + piece.length)
        else:
            self._pieces.append(piece)

    def copy(self, start: int, end: int) -> None:
        """Adds a part of the layer itself: most of them adjoin each other."""
        if start != self._to:
            self._settle()
            self._from = start
        self._to = end
        self.size += end - start

    def _settle(self) -> None:
        if self._from < self._to:
            start, length = self._from, self._to - self._from
            self._from = self._to
            self.size -= length
            self.add(Span(self.position, start, length))
