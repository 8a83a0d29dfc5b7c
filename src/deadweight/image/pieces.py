"""What a new layer is made of: literal bytes, parts of original layers, what is made of such parts, and parts of files
kept aside, in order.
"""

from __future__ import annotations

import msgspec

from deadweight.image.bytes import ByteRange
from deadweight.image.content import Recoded

END = bytes(1024)
"""Two zero blocks: the end of a tar archive."""


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


class Pieces:
    """Collects pieces, joining neighbours."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.pieces: list[Piece] = []
        self.size = 0

    def add(self, piece: Piece) -> None:
        length = len(piece) if isinstance(piece, bytes) else piece.length if isinstance(piece, Span) else piece.size
        if not length:
            return
        self.size += length
        last = self.pieces[-1] if self.pieces else None
        if isinstance(piece, bytes) and isinstance(last, bytes) and len(last) < 1 << 16:
            self.pieces[-1] = last + piece
        elif (
            isinstance(piece, Span)
            and isinstance(last, Span)
            and (last.layer, last.start + last.length) == (piece.layer, piece.start)
        ):
            self.pieces[-1] = Span(last.layer, last.start, last.length + piece.length)
        else:
            self.pieces.append(piece)

    def copy(self, start: int, end: int) -> None:
        self.add(Span(self.position, start, end - start))
