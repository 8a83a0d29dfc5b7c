"""What an edit made of a layer, as it can be kept: where upper layers change, the lower ones are edited as before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from deadweight.image.deferred import Deferred
from deadweight.image.leaving import Subject
from deadweight.image.model import Layer
from deadweight.image.pieces import Piece, Span

MANY: Final = 1000
"""Entries of a layer: to edit one that has fewer takes less than to look whether that was done before."""


class Charge(msgspec.Struct, array_like=True):
    """Bytes of the layers' tars, framing included, before and after."""

    before: int = 0
    after: int = 0
    between: tuple[int, ...] = ()
    """What a rewritten file takes after each of its steps but the last."""


Kept = list[bytes | tuple[int, int, int]]
"""A layer's pieces: new bytes, or (layer, start, length) of what is copied."""


class Emitted(msgspec.Struct, frozen=True, array_like=True):
    """What a layer comes to, but for its pieces."""

    size: int
    name: str | None
    """Of its pieces, see `name_of`; None for a layer that stays as it is."""
    sources: list[int]
    """Positions of the layers that something is copied from."""
    charges: dict[Subject, Charge]


class Memo(Protocol):
    """Remembers what edits made of layers; what it gives was made of the same bytes, by the same code."""

    def find_emitted(self, position: int, key: str) -> Emitted | None:
        """What was made of the layer at a position."""

    def find_pieces(self, position: int, key: str) -> Kept | None:
        """Its pieces."""

    def note_emitted(self, position: int, key: str, emitted: Emitted, pieces: Kept) -> None:
        """Remembers what was made of the layer at a position, and of those below it."""


class Recalled(Deferred[Piece]):
    """A layer's pieces, to be looked up: where the layer itself is still there, nobody asks for one."""

    def __init__(self, name: str, sources: Sequence[int], find: Callable[[], Sequence[Piece]]) -> None:
        super().__init__(find)
        self.name = name
        self.sources = sources


def emission_key(layers: Sequence[Layer], *asked: object) -> str | None:
    """The name of what `asked` makes of the last of some layers, which are all that it depends on.

    None where something in it cannot be written down, as names that are no UTF-8.
    """
    try:
        data = msgspec.msgpack.encode([[layer.diff_id for layer in layers], *asked])
    except (UnicodeError, OverflowError, TypeError):
        return None
    return hashlib.sha256(data).hexdigest()


def name_of(diff_ids: Sequence[str | None], pieces: Iterable[Piece]) -> str | None:
    """The name of what some pieces come to, the same whatever else is in an image: of every piece, in hex.

    None where one is more than bytes and ranges of layers, or of a layer without a diff-id.
    """
    names = [None if diff_id is None else diff_id.encode() for diff_id in diff_ids]
    parts: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            parts += (b"b%d:" % len(piece), piece)
        elif isinstance(piece, Span) and (name := names[piece.layer]) is not None:
            parts.append(b"r%b,%d,%d:" % (name, piece.start, piece.length))
        else:
            return None
    return hashlib.sha256(b"deadweight.layer/1" + b"".join(parts)).hexdigest()


def sources_of(pieces: Iterable[Piece]) -> set[int]:
    """The positions of the layers that pieces are copied from."""
    return {piece.layer for piece in pieces if isinstance(piece, Span)}


def freeze(
    layers: Sequence[Layer], size: int, pieces: Sequence[Piece] | None, charges: Mapping[Subject, Charge]
) -> tuple[Emitted, Kept] | None:
    """What was made of the last of some layers; None where a piece is more than bytes and ranges of them."""
    name = None if pieces is None else name_of([layer.diff_id for layer in layers], pieces)
    if pieces is not None and name is None:
        return None
    kept: Kept = []
    for piece in pieces or ():
        if isinstance(piece, bytes):
            kept.append(piece)
        elif isinstance(piece, Span):
            kept.append((piece.layer, piece.start, piece.length))
    # Whoever sums charges up over layers changes them, and this is written later.
    copied = {subject: Charge(one.before, one.after, one.between) for subject, one in charges.items()}
    return Emitted(size, name, sorted(sources_of(pieces or ())), copied), kept


def thaw(kept: Kept) -> tuple[Piece, ...]:
    """The pieces again."""
    return tuple(piece if isinstance(piece, bytes) else Span(*piece) for piece in kept)
