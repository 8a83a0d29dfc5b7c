"""How much two sets of arrays agree: vectors by their directions, verdicts by being equal, single numbers by distance.

The last dimension of arrays of floats is that of vectors; where it is 1, or there is none, they are single numbers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from deadweight.errors import shown
from deadweight.verify.arrays import FORMATS, Array

_FLOATS: Final = ("f2", "f4", "f8")
_VERDICTS: Final = "iubUS"


class NotComparable(ValueError):
    """Arrays that cannot be compared so; the message names them."""


@dataclass
class Accuracy:
    """What comparing gave. A loss of 0: the same directions, the same verdicts."""

    lowest_cosine: float = 1.0
    """Of all pairs of vectors."""
    mean_cosine: float = 1.0
    largest_difference: float = 0.0
    """Between any two numbers."""
    vectors: int = 0
    verdicts: int = 0
    agreeing: int = 0
    """How many verdicts are the same."""
    singles: int = 0
    apart: float = 0.0
    """The largest distance of two single numbers a and b, by max(1, |a|, |b|); infinite where of any two numbers, those
    of vectors too, one alone is finite."""

    @property
    def agreement(self) -> float:
        """The share of equal verdicts."""
        return self.agreeing / self.verdicts if self.verdicts else 1.0

    @property
    def loss(self) -> float:
        """The largest of what directions, verdicts and single numbers lose."""
        return max(1.0 - self.lowest_cosine, 1.0 - self.agreement, self.apart)

    @property
    def in_words(self) -> str:
        """For people: `cosine >= 0.99998, largest difference 0.00031, verdicts 100 % the same (32 of 32)`."""
        said = []
        if self.vectors:
            said.append(f"cosine {'= 1' if self.lowest_cosine == 1 else f'>= {_rounded_down(self.lowest_cosine)}'}")
        said.append(f"largest difference {self.largest_difference:.2g}")
        if self.verdicts:
            share = _rounded_down(100 * self.agreement, 1).removesuffix(".0")
            said.append(f"verdicts {share} % the same ({self.agreeing:,} of {self.verdicts:,})")
        return ", ".join(said)

    @property
    def numbers(self) -> dict[str, float]:
        """For programs; where there were no vectors or verdicts, theirs are left out."""
        found = {"largest_difference": self.largest_difference, "loss": self.loss}
        if self.vectors:
            found |= {"lowest_cosine": self.lowest_cosine, "mean_cosine": self.mean_cosine}
            found["vectors"] = self.vectors
        if self.verdicts:
            found |= {"agreement": self.agreement, "verdicts": self.verdicts}
        return found


def _rounded_down(number: float, digits: int = 6) -> str:
    """A number with so many digits that is no larger: 0.9999999 is not 1."""
    return f"{math.floor(number * 10**digits) / 10**digits:.{digits}f}"


def accuracy(before: Mapping[str, Array], after: Mapping[str, Array]) -> Accuracy:
    """Compares arrays of the same names. Raises NotComparable where names, shapes or kinds differ, or all are empty."""
    if before.keys() != after.keys():
        name = min(before.keys() ^ after.keys())
        raise NotComparable(f"{shown(name)}: {'there -> not there' if name in before else 'not there -> there'}")
    if not before:
        raise NotComparable("it left no arrays")
    found = Accuracy()
    cosines: list[float] = []
    for name, one in before.items():
        two = after[name]
        if one.shape != two.shape:
            raise NotComparable(f"{shown(name)}: shape {one.shape} -> {two.shape}")
        if one.dtype in _FLOATS and two.dtype in _FLOATS:
            _compare_floats(one, two, found, cosines)
        elif one.dtype[0] in _VERDICTS and (one.dtype[0] == two.dtype[0] or {one.dtype[0], two.dtype[0]} <= set("iu")):
            _compare_verdicts(one, two, found)
        else:
            raise NotComparable(f"{shown(name)}: dtype {one.dtype} -> {two.dtype}")
    if not (cosines or found.singles or found.verdicts):
        raise NotComparable("its arrays are empty")
    if cosines:
        found.vectors = len(cosines)
        found.lowest_cosine, found.mean_cosine = min(cosines), math.fsum(cosines) / len(cosines)
    return found


def _compare_floats(one: Array, two: Array, found: Accuracy, cosines: list[float]) -> None:
    columns = one.shape[-1] if one.shape else 1
    for first, second in zip(_rows(one, columns), _rows(two, columns), strict=True):
        if first != second:
            largest = _largest(first, second)
            found.largest_difference = max(found.largest_difference, largest)
            if columns == 1 or math.isinf(largest):
                found.apart = max(found.apart, _by_size(largest, first[0], second[0]))
        if columns == 1:
            found.singles += 1
        else:
            cosines.append(cosine(first, second))


def _largest(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest distance between two numbers of a place: infinite where one alone is none."""
    distances = (abs(a - b) for a, b in zip(first, second, strict=True) if a != b and not (a != a and b != b))  # noqa: PLR0124
    return max((math.inf if math.isnan(distance) else distance for distance in distances), default=0.0)


def _by_size(distance: float, a: float, b: float) -> float:
    """A distance by the size of what is apart; infinite ones stay so."""
    return distance / max(1.0, abs(a), abs(b)) if math.isfinite(distance) else math.inf


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """The cosine similarity of two vectors, at most 1: 1 where they are equal, 0 where one alone has no direction.

    Worked out by the distance of the unit vectors, so that little differences are not lost in rounding.
    """
    if first == second or all(a == b or (a != a and b != b) for a, b in zip(first, second, strict=True)):  # noqa: PLR0124
        return 1.0
    sizes = math.hypot(*first), math.hypot(*second)
    if not all(math.isfinite(size) and size for size in sizes):
        return 0.0
    apart = math.fsum((a / sizes[0] - b / sizes[1]) ** 2 for a, b in zip(first, second, strict=True))
    return 1.0 - apart / 2


def _rows(array: Array, columns: int) -> Iterator[tuple[float, ...]]:
    if columns and array.data:
        yield from struct.iter_unpack(f"<{columns}{FORMATS[array.dtype]}", array.data)


def _compare_verdicts(one: Array, two: Array, found: Accuracy) -> None:
    for a, b in zip(_values(one), _values(two), strict=True):
        found.verdicts += 1
        found.agreeing += a == b


def _values(array: Array) -> Iterator[object]:
    """The elements: numbers, or texts without what fills them up."""
    size, form = array.itemsize, FORMATS.get(array.dtype)
    for at in range(0, len(array.data), size or 1):
        raw = array.data[at : at + size]
        yield struct.unpack(f"<{form}", raw)[0] if form else raw.rstrip(b"\0")
