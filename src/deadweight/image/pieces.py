"""What a new layer is made of: literal bytes and parts of original layers, in order."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

END = bytes(1024)
"""Two zero blocks: the end of a tar archive."""


class Span(msgspec.Struct, frozen=True, gc=False):
    """`length` bytes at `start` of an original layer's tar."""

    layer: int
    start: int
    length: int


Piece = bytes | Span


@dataclass(frozen=True)
class Content:
    """What replaces a file's content: literal bytes and (offset, length) ranges of the original content."""

    pieces: tuple[bytes | tuple[int, int], ...]

    @property
    def size(self) -> int:
        """Bytes of the new content."""
        return sum(len(p) if isinstance(p, bytes) else p[1] for p in self.pieces)


class Pieces:
    """Collects pieces, joining neighbours."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.pieces: list[Piece] = []
        self.size = 0

    def add(self, piece: Piece) -> None:
        length = len(piece) if isinstance(piece, bytes) else piece.length
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
