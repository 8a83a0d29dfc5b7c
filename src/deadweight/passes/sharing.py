"""Files that several models share: new content is for all who open them, so all have to take it.

In Hugging Face's cache the snapshots of a model share what did not change between them; hard links make copies of one
file. A configuration that comes to speak of int8 is wrong for a model that stays, and int8 is no model for what else
opens the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from deadweight.passes.base import Context, Proposal
from deadweight.passes.inodes import links_by_inode, names_by_inode


@dataclass(frozen=True)
class Change:
    """What would become of one model."""

    folder: str
    proposals: tuple[Proposal, ...]
    """New contents."""
    names: frozenset[str]
    """The paths by which the model's library opens these files."""


def agreed(
    context: Context, changes: Iterable[Change], leaving: Collection[str]
) -> tuple[list[Change], dict[str, str]]:
    """The changes whose files nothing else opens but models that change along; and who does, by folder, of the others.

    `leaving` are paths that are about to leave.
    """
    good = list(changes)
    stays: dict[str, str] = {}
    while True:
        known = frozenset(leaving).union(*(change.names for change in good))
        others = {change.folder: other for change in good if (other := _other(context, change, known)) is not None}
        if not others:
            return good, stays
        stays |= {
            folder: f"/{other} is a file of it, too, and would not do with the new one"
            for folder, other in others.items()
        }
        good = [change for change in good if change.folder not in others]


def _other(context: Context, change: Change, known: Collection[str]) -> str | None:
    """A path that leads to what a model changes, and is of no model that changes along."""
    for proposal in change.proposals:
        names = list(paths_of(context, proposal.path))
        folders = tuple(folder for name in names if (folder := blobs(name)) is not None)
        for name in names:
            if name not in known and not name.startswith(folders):
                return name
    return None


def paths_of(context: Context, path: str) -> Iterator[str]:
    """All paths that lead to the file at a path, hard links and symbolic ones, but for those that have left."""
    inode = context.ledger.fs.nodes[path].inode
    if inode is not None:
        for names in (names_by_inode(context.ledger), links_by_inode(context.ledger)):
            yield from (name for name in names.get(inode, ()) if name not in context.gone)


def blobs(link: str) -> str | None:
    """The folder where the blobs of a snapshot of Hugging Face's cache lie; None of what is in no snapshot."""
    above, snapshots, _ = link.rpartition("/snapshots/")
    return f"{above}/blobs/" if snapshots else None
