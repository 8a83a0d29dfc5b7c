"""Directories that leave whole: what is removed of one is one thing, though it has thousands of files."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby

import msgspec

from deadweight.image.leaving import pinned_by
from deadweight.ledger.ledger import Ledger, Owner
from deadweight.passes.chain import Step


def whole_trees(ledger: Ledger, steps: Iterable[Step], keep_layers: Collection[int] = ()) -> list[Step]:
    """The proposals, those that remove a directory and all that is in it as one.

    Only where they are a single statement: one pass says the same of every path, one owner has all files (no list has
    directories), and one layer gave them their names. Nothing that a cut says of itself is lost then.
    """
    steps = list(steps)
    pinned = pinned_by(ledger.fs, keep_layers)
    whole: dict[str, int] = {}
    for paths in _statements(steps):
        _find_whole(ledger, paths, pinned, whole)
    found: list[Step] = []
    for step in steps:
        one, proposal = step
        if proposal.action != "remove":
            found.append(step)
        elif proposal.path.rpartition("/")[0] not in whole:
            below = whole.get(proposal.path, proposal.below)
            found.append((one, msgspec.structs.replace(proposal, below=below)) if below else step)
    return found


def every_path(ledger: Ledger, steps: Iterable[Step]) -> Iterator[Step]:
    """The proposals, those that remove a whole directory as one for each path."""
    nodes = ledger.fs.nodes
    for one, proposal in steps:
        if not proposal.below:
            yield one, proposal
            continue
        for path in ledger.fs.paths_below(proposal.path):
            if nodes[path].entry is not None:  # it is not only implied
                yield one, msgspec.structs.replace(proposal, path=path, below=0)


def _statements(steps: Iterable[Step]) -> Iterable[set[str]]:
    """The paths that are removed, those together of which the same is said."""
    found: dict[tuple[object, ...], set[str]] = {}
    removals = (step for step in steps if step[1].action == "remove" and not step[1].below)
    for said, each in groupby(removals, key=lambda step: (step[0].name, step[1].risk, step[1].why, step[1].evidence)):
        found.setdefault(said, set()).update(proposal.path for _, proposal in each)
    return found.values()


def _find_whole(ledger: Ledger, paths: set[str], pinned: Collection[tuple[int, int]], whole: dict[str, int]) -> None:
    """Adds to `whole` the directories that leave whole with `paths`, each with how many of these are below it."""
    nodes, children = ledger.fs.nodes, ledger.fs.children
    owners: dict[str, Owner | None] = {}  # whose the files below each directory are, as far as it has any
    directories = {path for path in paths if nodes[path].kind == "dir"}
    for path in sorted(directories, key=lambda each: each.count("/"), reverse=True):
        inside = children(path)
        if not inside or not paths.issuperset(inside):
            continue
        folders = directories.intersection(inside)
        files = [child for child in inside if child not in folders] if folders else inside
        if any(folder not in whole and children(folder) for folder in folders):
            continue
        if {nodes[child].layer for child in inside} != {nodes[path].layer}:
            continue
        if pinned and not all(nodes[each].key not in pinned for each in (path, *inside)):
            continue
        whose = {owner for folder in folders if (owner := owners.get(folder)) is not None} | ledger.owners_of(files)
        if len(whose) > 1:
            continue
        owners[path] = next(iter(whose), None)
        whole[path] = len(inside) + sum(whole.get(folder, 0) for folder in folders)
