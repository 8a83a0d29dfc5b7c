"""The static proof: both merged views are walked, and nothing is run."""

from __future__ import annotations

from dataclasses import dataclass, field

from deadweight.image.filesystem import Filesystem, Key, Node


@dataclass
class Comparison:
    """How two views differ."""

    equal: dict[Key, str] = field(default_factory=dict)
    """By the entry that carries a file's bytes in the second view: the path of the equal file in the first, equal in
    content and metadata."""


def compare_views(before: Filesystem, after: Filesystem) -> Comparison:
    """Walks both views."""
    found = Comparison()
    for path, node in after.nodes.items():
        other = before.nodes.get(path)
        if (
            node.kind == "file"
            and other is not None
            and node.inode not in found.equal
            and _equal(before, other, after, node)
        ):
            assert node.inode is not None
            found.equal[node.inode] = path
    return found


def _equal(before: Filesystem, one: Node, after: Filesystem, two: Node) -> bool:
    a, b = one.source, two.source
    if a is None or b is None or one.kind != two.kind or a.sparse or b.sparse or a.stored != b.stored:
        return False
    if (a.mode, a.uid, a.gid, a.mtime, a.owner, a.xattrs) != (b.mode, b.uid, b.gid, b.mtime, b.owner, b.xattrs):
        return False
    first = before.image.layers[one.source_layer].tar.chunks(a.data, a.stored)
    second = after.image.layers[two.source_layer].tar.chunks(b.data, b.stored)
    return all(x == y for x, y in zip(first, second, strict=True))
