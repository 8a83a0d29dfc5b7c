"""What a pass is: a name, a risk, and a function that proposes what may leave and says why."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from importlib.metadata import EntryPoints, entry_points
from typing import Literal, NamedTuple

import msgspec

from deadweight.binary.gpu import Target
from deadweight.cache.known import name_of
from deadweight.errors import PlanError, shown
from deadweight.image.content import Content, Reader
from deadweight.image.filesystem import Key
from deadweight.image.leaving import pinned_by
from deadweight.ledger.ledger import Ledger
from deadweight.passes.outcomes import outcome

Risk = Literal["lossless", "target", "policy", "observed"]
RISKS: tuple[Risk, ...] = ("lossless", "target", "policy", "observed")
"""Rising."""

Action = Literal["remove", "drop", "rewrite", "link"]


class Proposal(msgspec.Struct, frozen=True):
    """One thing that may leave.

    `remove` takes a path out of the view (a directory leaves only when nothing in it stays, so proposing whole trees
    is right), `drop` an entry that no container sees (`key`), `rewrite` gives a file new content by the pass's recipe,
    `link` makes a file a hard link to the equal file `to`. What a rewrite makes of a file can depend on `to` as well.
    """

    action: Action
    path: str
    why: str
    evidence: str = ""
    to: str | None = None
    key: Key | None = None
    risk: Risk | None = None
    """Where this one thing is of another risk than its pass."""
    below: int = 0
    """For `remove`: how many paths below leave with it, as one thing. Passes need not say so: see `trees`."""


class Options(msgspec.Struct, frozen=True):
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
    target: Target | None = None
    """What GPU code is to run on; None: nothing was declared, and nothing is done about GPU code."""
    weights: str | None = None
    """What the float32 of models' weights becomes: fp16, bf16 or int8; None: it stays."""
    orphans: tuple[str, ...] = ()
    """Distributions (canonical names) that only a build needed which was swapped out."""


class Context(msgspec.Struct):
    """What a pass works on: the ledger, and what passes before it have proposed."""

    ledger: Ledger
    options: Options = msgspec.field(default_factory=Options)
    keep_layers: frozenset[int] = frozenset()
    """Positions of layers that are to stay as they are."""
    blocked: frozenset[str] = frozenset()
    """Paths that cannot change since metadata about them lies in a layer that is to stay as it is."""
    gone: set[str] = msgspec.field(default_factory=set)
    """Paths that earlier passes remove."""
    linked: set[str] = msgspec.field(default_factory=set)
    """Paths that earlier passes make links to an equal file, so that they have no content of their own any more."""
    rewritten: dict[Key, tuple[str, Content]] = msgspec.field(default_factory=dict)
    """By the entry that carries a file's bytes: what earlier passes make of them, and the last of these passes."""
    dropped: set[Key] = msgspec.field(default_factory=set)
    notes: list[str] = msgspec.field(default_factory=list)
    """What was left, and why: goes into the report."""

    def accept(self, one: Pass, proposal: Proposal) -> bool:
        """Whether a proposal goes with those before it; if so, it is what later ones find.

        What is rewritten can only be rewritten further, by another pass. Raises PlanError for a rewrite that fails.
        """
        if proposal.action == "drop":
            if proposal.key is None or proposal.key in self.dropped:
                return False
            self.dropped.add(proposal.key)
            return True
        path = proposal.path
        if proposal.below:
            whole = self.whole(path)
            self.gone.update(whole)
            return bool(whole)
        if not self.may_change(path) or path in self.linked:
            return False
        if proposal.action == "remove" and not self.rewritten:
            self.gone.add(path)
            return True
        inode = self.ledger.fs.nodes[path].inode
        assert inode is not None  # what may change has an entry
        last, first = self.rewritten.get(inode, ("", None))
        if proposal.action == "rewrite":
            if last == one.name:
                return False
            self.rewritten[inode] = (
                one.name,
                must_rewrite(self.ledger, one, path, first, self.options.target, proposal.to),
            )
        elif first is not None:
            return False
        elif proposal.action == "remove":
            self.gone.add(path)
        else:
            self.linked.add(path)
        return True

    def content(self, path: str) -> tuple[Reader, int]:
        """The content of the file at `path` as earlier passes leave it: a reader, and its size in bytes."""
        read, first = self.ledger.reader(path), self._content_before(path)
        return (read, self.ledger.fs.nodes[path].size) if first is None else (first.reader(read), first.size)

    def rewrite(self, one: Pass, path: str, to: str | None = None) -> Content:
        """What `one`, the pass that asks, makes of the file at `path`, in terms of the image's own.

        Worked out once, however often a pass or the planner asks. Raises ValueError, with the reason, when it cannot
        be done.
        """
        return rewritten(self.ledger, one, path, self._content_before(path), self.options.target, to)

    def _content_before(self, path: str) -> Content | None:
        inode = self.ledger.fs.nodes[path].inode
        return self.rewritten[inode][1] if inode is not None and inode in self.rewritten else None

    def may_change(self, path: str) -> bool:
        """Whether a path of the view is there to be proposed: not gone, not kept, not in a layer that stays."""
        node = self.ledger.fs.nodes.get(path)
        if node is None or node.entry is None or path in self.gone or path in self.blocked:
            return False
        if self.keep_layers and (node.layer in self.keep_layers or node.source_layer in self.keep_layers):
            return False
        return not (self.options.keep and self.kept(path))

    def whole(self, directory: str) -> Sequence[str]:
        """The paths of a directory, and of all below it, where that may leave as one thing; else none.

        Every path may change then, and got its name by one layer.
        """
        fs = self.ledger.fs
        paths, layer = fs.paths_below(directory), fs.nodes[directory].layer
        if {fs.nodes[path].layer for path in paths} != {layer} or not self.gone.isdisjoint(paths):
            return []
        if self.linked or self.rewritten or not (self.anything_may_change or all(map(self.may_change, paths))):
            return []
        pinned = pinned_by(fs, self.keep_layers)
        return [] if pinned and any(fs.nodes[path].key in pinned for path in paths) else paths

    @property
    def anything_may_change(self) -> bool:
        """Whether nothing is to stay as it is: all that is not gone may change then."""
        return not (self.keep_layers or self.blocked or self.options.keep)

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


class Rewriting(NamedTuple):
    """A file that a pass is to rewrite, as the passes before it leave it."""

    ledger: Ledger
    path: str
    read: Reader
    size: int
    """Bytes that `read` gives."""
    target: Target | None
    to: str | None = None
    """What it is to become, where a pass has a choice; as in the proposal."""


class Pass(msgspec.Struct, frozen=True, eq=False):
    """One way of losing weight."""

    name: str
    risk: Risk
    order: int
    """Passes run by rising order: what removes comes before what rewrites."""
    summary: str
    """What leaves, in a line, for help and reports."""
    propose: Callable[[Context], Iterable[Proposal]]
    rewrite: Callable[[Rewriting], Content] | None = None
    """For passes that rewrite: a file's new content, in terms of what it is given. Raises ValueError, with the reason,
    when it cannot be done. The same input must give the same content."""
    recipe: Callable[[Rewriting], Hashable] | None = None
    """What a rewrite depends on beside the content that it is given. Where one of deadweight's own passes says it, what
    it makes of a file is kept for other runs. The code of others is not known with deadweight's version."""
    slow: bool = False
    """Whether a rewrite takes longer than hashing the file does: then it is kept for other images, too."""


def rewritten(
    ledger: Ledger, one: Pass, path: str, first: Content | None, target: Target | None, to: str | None = None
) -> Content:
    """What a pass makes of the file at `path` where passes before it left `first`, in terms of the image's own content.

    Worked out once for a ledger. Raises ValueError, with the reason, when it cannot be done.
    """
    if one.rewrite is None:
        raise PlanError(f"the pass {one.name} does not rewrite, as the cut of {shown(path)} would")
    rewrite, key = one.rewrite, ledger.fs.nodes[path].inode
    assert key is not None  # it has content

    def task() -> Rewriting:
        read, size = ledger.reader(path), ledger.fs.nodes[path].size
        if first is not None:
            read, size = first.reader(read), first.size
        return Rewriting(ledger, path, read, size, target, to)

    def work() -> Content:
        content = rewrite(task())
        return content if first is None else content.after(first)

    memo = ledger.facts.memo
    before = None if first is None else first.digest or first
    asked = (one, path, before, target, to)
    if asked not in memo:
        said = one.recipe if one in own_passes() else None
        recipe = None if said is None else f"{one.name}-{name_of(said(task()))}"
        memo[asked] = outcome(ledger, key, recipe, first, work, slow=one.slow)
    found = memo[asked]
    if isinstance(found, Content):
        return found
    raise ValueError(found)


def must_rewrite(
    ledger: Ledger, one: Pass, path: str, first: Content | None, target: Target | None, to: str | None = None
) -> Content:
    """As `rewritten`, for what is planned already: raises PlanError when it cannot be done."""
    try:
        return rewritten(ledger, one, path, first, target, to)
    except ValueError as error:
        left = " as the passes before it leave it" if first is not None else ""
        raise PlanError(f"{shown(path)} cannot be rewritten by {one.name}{left}: {error}") from None


@cache
def all_passes() -> tuple[Pass, ...]:
    """Every pass that is installed, in the order in which they run (entry points of the group `deadweight.passes`)."""
    found: list[Pass] = [point.load() for point in registered()]
    return tuple(sorted(found, key=lambda p: (p.order, p.name)))


@cache
def own_passes() -> frozenset[Pass]:
    """Those that are part of deadweight: what they do is known by its version."""
    return frozenset(point.load() for point in registered() if point.module.startswith(f"{__package__}."))


@cache
def registered() -> EntryPoints:
    """What is installed as a pass: every distribution's lists are looked through once."""
    return entry_points(group="deadweight.passes")


def unregistered() -> list[str]:
    """The modules here that are passes and are installed under no name: an editable install older than its code.

    `all_passes` does not know them, so that plans would silently be without them.
    """
    known = {point.module for point in registered()}
    files = [file for file in resources.files(__package__).iterdir() if file.name.endswith(".py")]
    passes = [file.name.removesuffix(".py") for file in files if b"\nPASS = Pass(" in file.read_bytes()]
    return sorted(name for name in passes if f"{__package__}.{name}" not in known)
