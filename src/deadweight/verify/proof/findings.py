"""What became of every path: it is the same, a cut, a rewrite, metadata that follows, or none of these."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.metadata import version
from typing import Final, NamedTuple

from deadweight.binary.gpu import Target
from deadweight.binary.target_document import IN_IMAGE, gpu_numbers
from deadweight.errors import shown
from deadweight.image.filesystem import Key
from deadweight.ledger.ledger import Ledger
from deadweight.passes.target import read_slimmed
from deadweight.verify.proof.contents import Digests, Pair, file_of, first_difference, plain_file, run_all
from deadweight.verify.proof.declarations import Declared
from deadweight.verify.proof.expected import unexpected
from deadweight.verify.proof.metadata import Changes, is_metadata, plain_addition, stale, untrue
from deadweight.verify.proof.rewrites import check_declared, undeclared_rewrite
from deadweight.verify.proof.walk import Walk

_EXAMPLES: Final = 3


@dataclass
class Findings:
    """What was found; paths are without a leading `/`."""

    differences: list[tuple[str, str]] = field(default_factory=list)
    """Paths that are other than they should be, and how."""
    rewritten: dict[str, list[str]] = field(default_factory=dict)
    """Files that are rewritten so that loaders cannot tell, one name each, by what was done to them."""
    follows: int = 0
    """How many metadata files have a new content that follows from the rest."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Views:
    """Two images, what a plan declares, and what is known of how they differ."""

    before: Ledger
    after: Ledger
    declared: Declared
    walk: Walk
    changed: Sequence[Pair]
    """Files whose contents differ."""

    @cached_property
    def old(self) -> Digests:
        """Digests of the original's files."""
        return Digests(self.before.fs)

    @cached_property
    def new(self) -> Digests:
        """Digests of the slim image's files."""
        return Digests(self.after.fs)

    @cached_property
    def names(self) -> dict[Key, list[str]]:
        """All names of each of the original's files."""
        return self.before.names

    @cached_property
    def target(self) -> Target | None:
        """What GPU code is to run on, as the slim image itself says."""
        document = read_slimmed(self.after.fs)
        if document is None:
            return None
        return Target(gpu_numbers(document.gpus), document.keep_ptx, document.raw_blobs)


def find(views: Views, say: Callable[[int, int], None]) -> Findings:
    """Judges every path. `say` is told how many bytes of rewritten files are done, and how many there are."""
    found = Findings()
    fresh = _fresh(views)
    for path, differences in views.walk.described.items():
        if path not in fresh:
            found.differences += [(path, each) for each in differences]
    _judge_gone(views, found)
    for path in views.walk.added:
        if path not in fresh:
            found.differences.append((path, "it is new, undeclared"))
    _judge_fresh(views, fresh, found)
    if views.declared.document == "new" and IN_IMAGE not in views.after.fs.nodes:
        found.differences.append((IN_IMAGE, "it is declared to be new, and is not there"))
    _judge_changed(views, found, say)
    found.differences.sort()
    return found


def _fresh(views: Views) -> set[str]:
    """What may be new: the target's document, and the directories that it needs."""
    declared, nodes = views.declared, views.after.fs.nodes
    if IN_IMAGE not in nodes or (declared.plan is not None and declared.document == "none"):
        return set()
    parts = IN_IMAGE.split("/")
    above = {"/".join(parts[:i]) for i in range(1, len(parts))}
    return {path for path in above if path not in views.before.fs.nodes and nodes[path].kind == "dir"} | {IN_IMAGE}


def _judge_gone(views: Views, found: Findings) -> None:
    declared, nodes, there = views.declared, views.before.fs.nodes, views.after.fs.nodes
    # A directory without an entry of its own goes with the last thing in it.
    undeclared = [path for path in views.walk.gone if path not in declared.removed and nodes[path].entry is not None]
    if declared.plan is not None:
        found.differences += [(path, "it is gone, undeclared") for path in undeclared]
        still = sorted(path for path in declared.removed if path in there)
        found.notes += _noted("declared to leave, and still there", still)
    elif undeclared:
        every = set(undeclared)
        missed = unexpected(views.before, views.after, undeclared)
        found.differences += [(path, "it is gone, undeclared, and no pass takes it out") for path in missed]
        every = set(undeclared) - set(missed)
        tops = [path for path in undeclared if path in every and posixpath.dirname(path) not in every]
        found.notes += _noted(
            f"{len(every):,} paths are gone undeclared (--plan FILE declares), with all in them", tops
        )


def _judge_fresh(views: Views, fresh: Collection[str], found: Findings) -> None:
    for path in fresh:
        new = path in views.walk.added
        if (new or path in views.walk.described) and not plain_addition(views.after.fs.nodes[path]):
            found.differences.append((path, "it is new, and not root's and for all to read"))
        if new and path == IN_IMAGE:
            reason = untrue(path, _changes(views, found), views.declared)
            if reason is not None:
                found.differences.append((path, reason))


def _noted(what: str, paths: Collection[str]) -> list[str]:
    if not paths:
        return []
    named = ", ".join(shown(f"/{path}") for path in list(paths)[:_EXAMPLES])
    more = f" and {len(paths) - _EXAMPLES:,} more" if len(paths) > _EXAMPLES else ""
    return [f"{what}: {named}{more}"]


# --- contents that changed -----------------------------------------------------------------------------


def _changes(views: Views, found: Findings) -> Changes:
    rewritten = {path for pair in views.changed for path in views.walk.pairs[pair]}
    damaged = {path for path, _ in found.differences}
    return Changes(views.before, views.after, rewritten, damaged, views.old, views.new)


def _judge_changed(views: Views, found: Findings, say: Callable[[int, int], None]) -> None:
    follows: list[str] = []
    rest: dict[Pair, list[str]] = {}
    for pair in views.changed:
        for path in views.walk.pairs[pair]:
            if is_metadata(path):
                follows.append(path)
            else:
                rest.setdefault(pair, []).append(path)
    tasks = [(views.before.fs.entry(pair.before).stored, partial(_judge_rewrite, views, pair)) for pair in rest]
    for (pair, paths), judged in zip(rest.items(), run_all(tasks, say), strict=True):
        if judged.reason:
            found.differences += [(path, judged.reason) for path in paths]
            continue
        found.rewritten.setdefault(judged.what, []).append(paths[0])
        if judged.sha256 is not None:
            views.new.know(pair.after, "sha256", judged.sha256)
    if views.declared.plan is None:
        for what, paths in sorted(found.rewritten.items()):
            found.notes += _noted(f"rewritten, undeclared ({what})", paths)
    changes = _changes(views, found)
    for path in follows:
        wrong = untrue(path, changes, views.declared)
        if wrong is None:
            found.follows += 1
        else:
            found.differences.append((path, wrong))
    if views.declared.plan is not None:
        found.differences += stale(changes, views.declared)


class _Judged(NamedTuple):
    """What was found out of a file whose content is another one."""

    what: str = ""
    """What was done to it, where loaders cannot tell."""
    sha256: bytes | None = None
    """Of its new content, where that was read whole."""
    reason: str = ""
    """How it is other than it should be; empty: it is not."""


def _judge_rewrite(views: Views, pair: Pair) -> _Judged:
    declared = views.declared
    before, after = views.before.fs, views.after.fs
    if before.entry(pair.before).sparse or after.entry(pair.after).sparse:
        return _Judged(reason="its content differs, or is stored in another way: it is a sparse file")
    old, new = file_of(before, pair.before), file_of(after, pair.after)
    steps = declared.rewrites.get(pair.before, ())
    reason = "undeclared"
    try:
        if steps:
            linked = before.nodes[steps[0].path]
            if linked.inode == pair.before or first_difference(plain_file(before, linked), old) is None:
                assert declared.plan is not None
                same_version = declared.plan.deadweight == version("deadweight")
                digest = check_declared(views.before, steps, new, declared.target, same_version)
                return _Judged(", ".join(step.by.name for step in steps), digest)
            reason = f"it was not equal to {shown('/' + linked.path)}, to which it is linked"
        elif declared.plan is None:
            return _Judged(undeclared_rewrite(views.before, old, new, views.target, views.names[pair.before]))
    except ValueError as error:
        reason = str(error).removeprefix("self-check: ")
    return _Judged(reason=f"its content differs, from byte {first_difference(old, new) or 0:,} on: {reason}")
