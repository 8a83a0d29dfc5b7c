"""What a rule is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from deadweight.build.lint.subject import Subject

Severity = Literal["error", "warning"]


class Place(NamedTuple):
    """A line of a file, or an entry of an image's history; both count from 1."""

    file: str
    line: int


class Charge(NamedTuple):
    """Bytes that a mistake costs. The same key stands for the same bytes, whoever finds them."""

    key: Hashable
    path: str
    bytes: int


@dataclass(frozen=True)
class Finding:
    """One mistake."""

    what: str
    """In a line."""
    places: tuple[Place, ...]
    """The first is the one to go to."""
    charges: tuple[Charge, ...] | None = None
    """What it costs; None where that cannot be known from what was given, or where it costs no bytes."""
    layer: int | None = None
    """The position of the layer with these bytes, where they are in one."""
    severity: Severity | None = None
    """Where it is another one than the rule's."""
    weighs: bool = True
    """Whether it costs bytes at all, known or not."""
    comments: tuple[str, ...] = ()
    """Those of the instruction, which may say that it is meant."""

    @property
    def bytes(self) -> int | None:
        """What it costs, each byte once."""
        return None if self.charges is None else total([self])


@dataclass(frozen=True)
class Rule:
    """One kind of mistake."""

    name: str
    severity: Severity
    summary: str
    """What it is."""
    why: str
    """What it costs, and why."""
    instead: str
    """What to do."""
    check: Callable[[Subject], Iterable[Finding]]


def total(findings: Iterable[Finding]) -> int:
    """The bytes of several findings together, each byte once."""
    found: dict[Hashable, int] = {}
    for finding in findings:
        for charge in finding.charges or ():
            found[charge.key] = max(charge.bytes, found.get(charge.key, 0))
    return sum(found.values())
