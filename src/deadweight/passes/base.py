"""What a pass is: a name, a risk, and a function that proposes what may leave and says why."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Literal

import msgspec

from deadweight.image.content import Content
from deadweight.image.filesystem import Key
from deadweight.ledger.ledger import Ledger

Risk = Literal["lossless", "target", "policy", "observed"]
RISKS: tuple[Risk, ...] = ("lossless", "target", "policy", "observed")
"""Rising."""

Action = Literal["remove", "drop", "rewrite", "link"]


class Proposal(msgspec.Struct, frozen=True):
    """One thing that may leave.

    `remove` takes a path out of the view (a directory leaves only when nothing in it stays, so proposing whole trees
    is right), `drop` an entry that no container sees (`key`), `rewrite` gives a file new content by the pass's recipe,
    `link` makes a file a hard link to the equal file `to`.
    """

    action: Action
    path: str
    why: str
    evidence: str = ""
    to: str | None = None
    key: Key | None = None


@dataclass(frozen=True)
class Options:
    """What the user asked for, as far as passes care."""

    keep: tuple[str, ...] = ()
    """Patterns (fnmatch, over paths with or without leading slash): what matches stays."""
    keep_compile: bool | None = None
    """Whether torch.compile or C++ extensions run in the container, so that headers, compilers and libraries to link
    stay; None: where the application's code shows it."""
    roots: tuple[str, ...] = ()
    """Distributions that are needed, though no static check sees it."""
    remove: tuple[str, ...] = ()
    """Distributions to remove, with what only they need."""


@dataclass
class Context:
    """What a pass works on: the ledger, and what passes before it have proposed."""

    ledger: Ledger
    options: Options = field(default_factory=Options)
    keep_layers: frozenset[int] = frozenset()
    """Positions of layers that are to stay as they are."""
    blocked: frozenset[str] = frozenset()
    """Paths that cannot change since metadata about them lies in a layer that is to stay as it is."""
    gone: set[str] = field(default_factory=set)
    """Paths that earlier passes remove."""
    changed: set[str] = field(default_factory=set)
    """Paths that earlier passes rewrite or link."""
    dropped: set[Key] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    """What was left, and why: goes into the report."""

    def may_change(self, path: str) -> bool:
        """Whether a path of the view is there to be proposed: not gone, not kept, not in a layer that stays."""
        node = self.ledger.fs.nodes.get(path)
        if node is None or node.entry is None or path in self.gone or path in self.blocked:
            return False
        if node.layer in self.keep_layers or node.source_layer in self.keep_layers:
            return False
        return not self.kept(path)

    def kept(self, path: str) -> bool:
        """Whether the user asked to keep it: a pattern matches it, or a directory above it."""
        return any(matches(path, pattern.strip("/")) for pattern in self.options.keep)


TO_STAY = " is to stay"
"""How a reason ends that says no more than that the user keeps a path, or its layer."""


def noted(many: str, stays: Mapping[str, str]) -> list[str]:
    """Notes that name what stays, each with its reason; those that stay for the user's own sake are counted."""
    kept = [name for name in sorted(stays) if stays[name].endswith(TO_STAY)]
    if len(kept) < 4:
        kept = []
    notes = [f"{name} stays: {reason}" for name, reason in sorted(stays.items()) if name not in kept]
    if kept:
        what = "their files are in layers that stay, or --keep matches them"
        notes.append(f"{len(kept):,} {many} stay: {what} ({kept[0]}: {stays[kept[0]].removesuffix(TO_STAY)})")
    return notes


def matches(path: str, pattern: str) -> bool:
    """Whether `--keep pattern` (without slashes around it) is about a path: it matches, or a directory above does."""
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, pattern + "/*")


@dataclass(frozen=True)
class Pass:
    """One way of losing weight."""

    name: str
    risk: Risk
    order: int
    """Passes run by rising order: what removes comes before what rewrites."""
    summary: str
    """What leaves, in a line, for help and reports."""
    propose: Callable[[Context], Iterable[Proposal]]
    rewrite: Callable[[Ledger, str], Content] | None = None
    """For passes that rewrite: a path's new content. Raises ValueError, with the reason, when it cannot be done."""


@cache
def all_passes() -> tuple[Pass, ...]:
    """Every pass that is installed, in the order in which they run (entry points of the group `deadweight.passes`)."""
    found: list[Pass] = [point.load() for point in entry_points(group="deadweight.passes")]
    return tuple(sorted(found, key=lambda p: (p.order, p.name)))
