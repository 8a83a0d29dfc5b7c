"""The names of each file: hard links make several paths one file, and symbolic links lead to it."""

from __future__ import annotations

from collections.abc import Iterator

from deadweight.image.filesystem import Key
from deadweight.ledger.ledger import Ledger, once_for_ledger
from deadweight.passes.base import Context


@once_for_ledger
def links_by_inode(ledger: Ledger) -> dict[Key, list[str]]:
    """For each regular file that symbolic links lead to, their paths in the order of the view; worked out once."""
    found: dict[Key, list[str]] = {}
    for path in ledger.fs.symlinks:
        target = ledger.fs.resolve(path)
        if target is not None and target.inode is not None and target.kind == "file":
            found.setdefault(target.inode, []).append(path)
    return found


def paths_of(context: Context, path: str) -> Iterator[str]:
    """All paths that lead to the file at a path, hard links and symbolic ones, but for those that have left."""
    inode = context.ledger.fs.nodes[path].inode
    if inode is not None:
        for names in (context.ledger.names, links_by_inode(context.ledger)):
            yield from (name for name in names.get(inode, ()) if name not in context.gone)


def changeable_name(context: Context, names: list[str]) -> str | None:
    """The name by which a file's content can be changed: the first that stays.

    None when nothing of it stays, when an earlier pass makes it a link, or when one of its names must stay as it is.
    """
    staying = [name for name in names if name not in context.gone]
    if not staying or any(name in context.linked or not context.may_change(name) for name in staying):
        return None
    return min(staying, key=lambda name: (context.ledger.fs.nodes[name].key or (0, 0), name))
