"""Sequences that are worked out when somebody asks for a member: where the result is there already, nobody does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class Deferred(Sequence[T]):
    """What `find` gives, which is asked once, or once by each thread. Equal to a tuple with the same members."""

    def __init__(self, find: Callable[[], Sequence[T]]) -> None:
        self._find = find
        self._members: tuple[T, ...] | None = None

    @property
    def _found(self) -> tuple[T, ...]:
        # No cached_property: in Python 3.11 that has a lock for all instances, and finding one may need another's.
        if self._members is None:
            self._members = tuple(self._find())
        return self._members

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._found[index]

    def __iter__(self) -> Iterator[T]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def __eq__(self, other: object) -> bool:
        return self._found == tuple(other) if isinstance(other, (tuple, Deferred)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._found)
