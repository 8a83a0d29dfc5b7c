"""Two merged views side by side: which paths are gone, new, or other than they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from deadweight.errors import shown
from deadweight.image.filesystem import Filesystem, Key, Node
from deadweight.image.layer import Entry
from deadweight.verify.proof.contents import Pair


@dataclass
class Walk:
    """What the names and headers of two views tell."""

    gone: list[str] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    described: dict[str, list[str]] = field(default_factory=dict)
    """How paths' metadata differ, in words."""
    same: dict[Pair, list[str]] = field(default_factory=dict)
    """Files of layers that both images have: their paths, by the entries that carry their bytes."""
    pairs: dict[Pair, list[str]] = field(default_factory=dict)
    """Files whose contents are to be compared."""


def walk(before: Filesystem, after: Filesystem) -> Walk:
    """Compares all but contents."""
    found = Walk()
    found.gone = [path for path in before.nodes if path not in after.nodes]
    shared = _shared_layers(before, after)
    for path, two in after.nodes.items():
        one = before.nodes.get(path)
        if one is None:
            found.added.append(path)
            continue
        same = _same_entry(shared, one.inode, two.inode)
        if not (same and (one.key, two.key) == (one.inode, two.inode)):
            differences = [*_differences(one, two), *_link_differences(one, two)]
            if differences:
                found.described[path] = differences
        if one.kind == two.kind == "file":
            assert one.inode is not None
            assert two.inode is not None
            (found.same if same else found.pairs).setdefault(Pair(one.inode, two.inode), []).append(path)
    return found


def _shared_layers(before: Filesystem, after: Filesystem) -> set[tuple[int, int]]:
    """Positions of layers with equal diff-ids, of the one image and the other."""
    positions: dict[str, list[int]] = {}
    for layer in before.image.layers:
        positions.setdefault(layer.diff_id, []).append(layer.position)
    return {(one, two.position) for two in after.image.layers for one in positions.get(two.diff_id, ())}


def _same_entry(shared: set[tuple[int, int]], one: Key | None, two: Key | None) -> bool:
    return one is not None and two is not None and one[1] == two[1] and (one[0], two[0]) in shared


def _differences(one: Node, two: Node) -> Iterator[str]:
    """How the metadata of two nodes differ."""
    a, b = one.source, two.source
    if one.kind != two.kind:
        yield f"it was a {one.kind}, now it is a {two.kind}"
    elif a is None or b is None:
        if a is not b:
            yield "a directory that had an entry of its own has none" if b is None else "a directory has a new entry"
    else:
        yield from entry_differences(a, b)


def entry_differences(a: Entry, b: Entry) -> Iterator[str]:
    """How what two headers of one kind say of a file differs."""
    if a.mode != b.mode:
        yield f"its mode was {a.mode:o}, now it is {b.mode:o}"
    for what, old, new in (("uid", a.uid, b.uid), ("gid", a.gid, b.gid), ("mtime", a.mtime, b.mtime)):
        if old != new:
            yield f"its {what} was {old}, now it is {new}"
    if a.owner != b.owner:
        yield f"its owner was {shown(a.owner, 80)}, now it is {shown(b.owner, 80)}"
    if a.kind == "symlink" and a.linkname != b.linkname:
        yield f"it led to {shown(a.linkname, 80)}, now it leads to {shown(b.linkname, 80)}"
    if a.device != b.device:
        yield "it is another device"
    if a.xattrs != b.xattrs:
        names = sorted({key for key, _ in set(a.xattrs) ^ set(b.xattrs)})
        yield f"its extended attributes differ: {', '.join(shown(name, 60) for name in names)}"


def _link_differences(one: Node, two: Node) -> Iterator[str]:
    """Engines give a file what a hard link's own header says, which is to be what it was, or what the file's says."""
    mine = two.entry
    if mine is None or mine.kind != "hardlink" or two.source is None or one.entry is None:
        return

    def said(entry: Entry) -> tuple[object, ...]:
        return entry.mode, entry.uid, entry.gid, entry.mtime, entry.owner, entry.xattrs

    if said(mine) not in (said(two.source), said(one.entry)):
        yield "its hard link says other metadata than the file"
