"""Which entries of an image leave with a path of its view, so that nothing comes back that lower layers hid."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping

from deadweight.errors import PlanError, shown
from deadweight.image.filesystem import Filesystem, Key, Merge, Node
from deadweight.image.layer import Entry

Subject = str | Key
"""What bytes are charged to: a path of the merged view, a dropped entry, or a layer's end as (layer, -1)."""


def pinned_by(fs: Filesystem, keep: Collection[int]) -> frozenset[Key]:
    """The entries that hard links of the layers at the positions `keep` name: these stay."""
    links = fs.link_targets.items() if keep else ()  # there can be tens of thousands
    return frozenset(target for link, target in links if link[0] in keep)


def removable(fs: Filesystem, wanted: Collection[str], pinned: Collection[Key]) -> frozenset[str]:
    """What of `wanted` can leave: directories only with all that is in them, and no entry (`pinned`) that a hard
    link names from a layer that stays as it is."""
    nodes, gone = fs.nodes, set(wanted)
    if "" in gone or not gone <= nodes.keys():
        missing = next(path for path in wanted if not path or path not in nodes)
        raise PlanError(f"there is no {shown(missing)} in the image to remove")
    directories = [path for path in wanted if nodes[path].kind == "dir"]
    gone.difference_update(directories)
    if pinned:
        gone = {path for path in gone if nodes[path].key not in pinned}
    for path in sorted(directories, key=lambda p: p.count("/"), reverse=True):
        if nodes[path].key not in pinned and gone.issuperset(fs.children(path)):
            gone.add(path)
    return frozenset(gone)


Dropped = list[dict[int, Subject]]
"""For each layer the indices of the entries that leave, with what each is charged to."""


def dropped_by(
    fs: Filesystem, removed: Mapping[str, str], drop: Collection[Key], keep: Collection[int], pinned: Collection[Key]
) -> Dropped:
    """The entries that leave with the paths `removed` and by `drop`.

    A path's are charged to what `removed` says, and so is what lower layers hide below it. Raises PlanError where one
    of them lies in a layer that is to stay (`keep`).
    """
    dropped: Dropped = [{} for _ in fs.image.layers]
    staying: dict[int, list[Entry]] = {}  # of each layer what does not leave by its own name
    above: dict[str, str | None] = {}  # for each directory seen, what leaves at or above it
    for layer in fs.image.layers:
        if layer.position in keep:
            continue
        entries = layer.entries
        leaving: dict[int, Subject] = {entry.index: removed[entry.name] for entry in entries if entry.name in removed}
        dropped[layer.position] = leaving  # most leave by their own names, or not at all
        hiding = {entry.index: entry.whiteout or "" for entry in fs.whiteouts[layer.position]}
        for index in hiding:
            leaving.pop(index, None)
        rest = staying[layer.position] = [entry for entry in entries if entry.index not in leaving]
        for entry in rest:
            parent = hiding.get(entry.index, entry.name).rpartition("/")[0]
            if parent not in above:
                above[parent] = parent if parent in removed else _ancestor_in(parent, removed)
            top = above[parent]
            if top is not None:
                # Below a path that leaves, hidden entries and whiteouts would imply it again.
                leaving[entry.index] = removed[top]
    for key in drop:
        if key[0] not in keep:
            dropped[key[0]].setdefault(key[1], key)
    for path in removed if keep else ():
        own = fs.nodes[path].key
        if own is not None and own[0] in keep:
            raise PlanError(f"{shown(path)} lies in layer {own[0] + 1}, which is to stay as it is")
    for position, index in pinned:
        if dropped[position].pop(index, None) is not None:
            staying[position].append(fs.image.layers[position].entries[index])
    _undrop_directories(fs, drop, dropped, staying)
    return dropped


def _ancestor_in(path: str, removed: Collection[str]) -> str | None:
    parent = path.rpartition("/")[0]
    while parent:
        if parent in removed:
            return parent
        parent = parent.rpartition("/")[0]
    return None


def _undrop_directories(
    fs: Filesystem, drop: Collection[Key], dropped: Dropped, staying: Mapping[int, Collection[Entry]]
) -> None:
    """A hidden directory entry stays while its layer keeps something in that directory.

    `staying` are entries of each layer, among them all that stay.
    """
    directories: dict[int, list[Entry]] = {}
    for key in dict.fromkeys(drop):
        if dropped[key[0]].get(key[1]) == key and (entry := fs.entry(key)).kind == "dir":
            directories.setdefault(key[0], []).append(entry)
    for position, entries in directories.items():
        leaving = dropped[position]
        needed: set[str] = set()
        for parent in {e.name.rpartition("/")[0] for e in staying[position] if e.index not in leaving}:
            above = parent
            while above and above not in needed:
                needed.add(above)
                above = above.rpartition("/")[0]
        for entry in entries:
            if entry.name in needed:
                del leaving[entry.index]


def repair(fs: Filesystem, removed: frozenset[str], dropped: Dropped) -> tuple[Dropped, dict[tuple[int, str], None]]:
    """Takes back drops, or adds whiteouts, until nothing that was hidden comes back."""
    whiteouts: dict[tuple[int, str], None] = {}
    if _nothing_comes_back(fs, removed, dropped):
        return dropped, whiteouts
    layers = [layer.entries for layer in fs.image.layers]
    while any(dropped):
        view = Merge(layers, dropped, whiteouts, fs.inodes).nodes
        back = [
            path
            for path, node in view.items()
            if (old := fs.nodes.get(path)) is None
            or node.entry is not old.entry  # the name is another entry's
            or node.layer != old.layer
            or path in removed
        ]
        # What comes back may also be in the way of what stays.
        back += [p for p, node in fs.nodes.items() if node.entry is not None and p not in removed and p not in view]
        if not back:
            break
        before = (sum(map(len, dropped)), len(whiteouts))
        hiding = _hiding(fs, dropped)
        tops: dict[str, None] = {}
        for path in back:
            top = path if path in removed else _ancestor_in(path, removed)
            while top is not None and (higher := _ancestor_in(top, removed)) is not None:
                top = higher
            if top is not None:
                tops[top] = None
            else:
                _undrop(dropped, hiding, path)
        for top in tops:
            own = fs.nodes[top].key
            if own is not None and (own[0], top) not in whiteouts:
                whiteouts[own[0], top] = None
            else:  # it comes back from above, out of a layer that stays: what hid it there leaves as well
                names = ((position, layers[position][index]) for position, each in enumerate(dropped) for index in each)
                last = max((at for at, e in names if f"{e.name}/".startswith(f"{top}/")), default=None)
                if last is not None:
                    whiteouts[last, top] = None
        if before == (sum(map(len, dropped)), len(whiteouts)):
            raise PlanError(f"removing would bring back {shown(back[0])} from a lower layer")
    return dropped, whiteouts


def _nothing_comes_back(fs: Filesystem, removed: frozenset[str], dropped: Dropped) -> bool:
    """Whether that is plain without merging the layers anew, as where a plan takes out all that is hidden.

    It is where all entries that are seen stay, but for those of removed paths, and any other that stays is of a
    directory which is seen at the same path by a later entry: then none that stays was hidden by one that leaves.
    """
    nodes = fs.nodes
    for layer, leaving in zip(fs.image.layers, dropped, strict=True):
        entries = layer.entries
        for index, subject in leaving.items():
            if isinstance(subject, tuple) and _is_seen(nodes, entries[index]):
                return False
        for entry in [each for each in entries if each.index not in leaving] if leaving else entries:
            node = nodes.get(entry.name)
            if node is None:
                if ".wh." in entry.name and entry.whiteout is not None:
                    continue
                return False
            if entry.name in removed:
                return False
            if node.entry is not entry and (entry.kind != "dir" or node.kind != "dir" or node.entry is None):
                return False
    return True


def _is_seen(nodes: Mapping[str, Node], entry: Entry) -> bool:
    node = nodes.get(entry.name)
    return node is not None and node.entry is entry


def _hiding(fs: Filesystem, dropped: Dropped) -> dict[str, list[Key]]:
    """The hidden entries and whiteouts that are dropped, by the path at which they hide something."""
    found: dict[str, list[Key]] = {}
    for position, leaving in enumerate(dropped):
        for index, subject in leaving.items():
            key = (position, index)
            if key == subject:
                entry = fs.entry(key)
                found.setdefault(entry.name if entry.whiteout is None else entry.whiteout, []).append(key)
    return found


def _undrop(dropped: Dropped, hiding: dict[str, list[Key]], path: str) -> None:
    """Takes back the drops of what hid `path`: what is at its place, or above it."""
    while True:
        for position, index in hiding.pop(path, ()):
            del dropped[position][index]
        if not path:
            return
        path = posixpath.dirname(path)
