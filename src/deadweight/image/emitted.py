"""What an edit made of a layer, as it can be kept: where upper layers change, the lower ones are edited as before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec

from deadweight.image.filesystem import Key
from deadweight.image.leaving import Subject
from deadweight.image.model import Layer
from deadweight.image.pieces import Piece, Span

MANY: Final = 1000
"""Entries of a layer: to edit one that has fewer takes less than to look whether that was done before."""


@dataclass
class Charge:
    """Bytes of the layers' tars, framing included, before and after."""

    before: int = 0
    after: int = 0
    between: tuple[int, ...] = ()
    """What a rewritten file takes after each of its steps but the last."""


class Emitted(msgspec.Struct, frozen=True, array_like=True):
    """A layer's pieces and charges."""

    size: int
    pieces: list[bytes | tuple[int, int, int]] | None
    """New bytes, or (layer, start, length) of what is copied; None for a layer that stays as it is."""
    charges: list[tuple[str | tuple[int, int], int, int, tuple[int, ...]]]


class Memo(Protocol):
    """Remembers what edits made of layers; what it gives was made of the same bytes, by the same code."""

    def find_emitted(self, position: int, key: str) -> Emitted | None:
        """What was made of the layer at a position."""

    def note_emitted(self, position: int, key: str, emitted: Emitted) -> None:
        """Remembers what was made of the layer at a position, and of those below it."""


def emission_key(layers: Sequence[Layer], *asked: object) -> str | None:
    """The name of what `asked` makes of the last of some layers, which are all that it depends on.

    None where something in it cannot be written down, as names that are no UTF-8.
    """
    try:
        data = msgspec.msgpack.encode([[layer.diff_id for layer in layers], *asked])
    except (UnicodeError, OverflowError, TypeError):
        return None
    return hashlib.sha256(data).hexdigest()


def freeze(size: int, pieces: Iterable[Piece] | None, charges: Mapping[Subject, Charge]) -> Emitted | None:
    """What was made of a layer; None where a piece is more than bytes and ranges of layers."""
    kept: list[bytes | tuple[int, int, int]] = []
    for piece in pieces or ():
        if isinstance(piece, bytes):
            kept.append(piece)
        elif isinstance(piece, Span):
            kept.append((piece.layer, piece.start, piece.length))
        else:
            return None
    each = [(subject, one.before, one.after, one.between) for subject, one in charges.items()]
    return Emitted(size, None if pieces is None else kept, each)


def thaw(emitted: Emitted) -> tuple[tuple[Piece, ...] | None, dict[Subject, Charge]]:
    """The pieces and charges again."""
    charges: dict[Subject, Charge] = {subject: Charge(*numbers) for subject, *numbers in emitted.charges}  # type: ignore[arg-type]
    if emitted.pieces is None:
        return None, charges
    return tuple(piece if isinstance(piece, bytes) else Span(*piece) for piece in emitted.pieces), charges


def dropped_of(entries: int, position: int, dropped: Mapping[Key, Subject]) -> list[Subject | None]:
    """For each entry of a layer what it is charged to if it leaves."""
    return [dropped.get((position, index)) for index in range(entries)]
