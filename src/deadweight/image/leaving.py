"""Which entries of an image leave with a path of its view, so that nothing comes back that lower layers hid."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping

from deadweight.errors import PlanError, shown
from deadweight.image.filesystem import Filesystem, Key, Merge, by_layer

Subject = str | Key
"""What bytes are charged to: a path of the merged view, a dropped entry, or a layer's end as (layer, -1)."""


def pinned_by(fs: Filesystem, keep: Collection[int]) -> frozenset[Key]:
    """The entries that hard links of the layers at the positions `keep` name: these stay."""
    return frozenset(target for link, target in fs.link_targets.items() if link[0] in keep)


def removable(fs: Filesystem, wanted: Collection[str], pinned: Collection[Key]) -> frozenset[str]:
    """What of `wanted` can leave: directories only with all that is in them, and no entry (`pinned`) that a hard
    link names from a layer that stays as it is."""
    nodes = fs.nodes
    for path in wanted:
        if path not in nodes or not path:
            raise PlanError(f"there is no {shown(path)} in the image to remove")
    directories = [path for path in wanted if nodes[path].kind == "dir"]
    gone = set(wanted).difference(directories)
    if pinned:
        gone = {path for path in gone if nodes[path].key not in pinned}
    for path in sorted(directories, key=lambda p: p.count("/"), reverse=True):
        if nodes[path].key not in pinned and gone.issuperset(fs.children(path)):
            gone.add(path)
    return frozenset(gone)


def dropped_by(
    fs: Filesystem, removed: Mapping[str, str], drop: Collection[Key], keep: Collection[int], pinned: Collection[Key]
) -> dict[Key, Subject]:
    """The entries that leave with the paths `removed` and by `drop`, with what each is charged to.

    A path's are charged to what `removed` says, and so is what lower layers hide below it.
    Raises PlanError where one of them lies in a layer that is to stay (`keep`).
    """
    dropped: dict[Key, Subject] = {}
    above: dict[str, str | None] = {}  # for each directory seen, what leaves at or above it
    for layer in fs.image.layers:
        if layer.position in keep:
            continue
        position, rest = layer.position, []
        for entry in layer.entries:  # most leave by their own names, or not at all
            name = entry.name
            if name in removed and (".wh." not in name or entry.whiteout is None):
                dropped[position, entry.index] = removed[name]
            else:
                rest.append(entry)
        for entry in rest:
            hides = entry.whiteout if ".wh." in entry.name else None
            name = entry.name if hides is None else hides
            parent = name.rpartition("/")[0]
            if parent not in above:
                above[parent] = parent if parent in removed else _ancestor_in(parent, removed)
            top = above[parent]
            if top is not None:
                # Below a path that leaves, hidden entries and whiteouts would imply it again.
                dropped[position, entry.index] = removed[top]
    for key in drop:
        if key[0] not in keep:
            dropped.setdefault(key, key)
    for path in removed if keep else ():
        own = fs.nodes[path].key
        if own is not None and own[0] in keep:
            raise PlanError(f"{shown(path)} lies in layer {own[0] + 1}, which is to stay as it is")
    for key in pinned:
        dropped.pop(key, None)
    _undrop_directories(fs, drop, dropped)
    return dropped


def _ancestor_in(path: str, removed: Collection[str]) -> str | None:
    parent = path.rpartition("/")[0]
    while parent:
        if parent in removed:
            return parent
        parent = parent.rpartition("/")[0]
    return None


def _undrop_directories(fs: Filesystem, drop: Collection[Key], dropped: dict[Key, Subject]) -> None:
    """A hidden directory entry stays while its layer keeps something in that directory."""
    layers = {key[0] for key in drop if key in dropped and fs.entry(key).kind == "dir"}
    leaving = by_layer(dropped) if layers else {}
    for position in layers:
        gone = leaving[position]
        kept = [e for e in fs.image.layers[position].entries if e.index not in gone]
        needed: set[str] = set()
        for parent in {e.name.rpartition("/")[0] for e in kept}:
            above = parent
            while above and above not in needed:
                needed.add(above)
                above = above.rpartition("/")[0]
        for key in drop:
            entry = fs.entry(key)
            if key[0] == position and dropped.get(key) == key and entry.kind == "dir" and entry.name in needed:
                del dropped[key]


def repair(
    fs: Filesystem, removed: frozenset[str], dropped: dict[Key, Subject]
) -> tuple[dict[Key, Subject], dict[tuple[int, str], None]]:
    """Takes back drops, or adds whiteouts, until nothing that was hidden comes back."""
    layers = [layer.entries for layer in fs.image.layers]
    whiteouts: dict[tuple[int, str], None] = {}
    while dropped:
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
        before = (len(dropped), len(whiteouts))
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
                names = ((key[0], fs.entry(key)) for key in dropped)
                last = max((at for at, e in names if f"{e.name}/".startswith(f"{top}/")), default=None)
                if last is not None:
                    whiteouts[last, top] = None
        if before == (len(dropped), len(whiteouts)):
            raise PlanError(f"removing would bring back {shown(back[0])} from a lower layer")
    return dropped, whiteouts


def _hiding(fs: Filesystem, dropped: Mapping[Key, Subject]) -> dict[str, list[Key]]:
    """The hidden entries and whiteouts that are dropped, by the path at which they hide something."""
    found: dict[str, list[Key]] = {}
    for key, subject in dropped.items():
        if key == subject:
            entry = fs.entry(key)
            found.setdefault(entry.name if entry.whiteout is None else entry.whiteout, []).append(key)
    return found


def _undrop(dropped: dict[Key, Subject], hiding: dict[str, list[Key]], path: str) -> None:
    """Takes back the drops of what hid `path`: what is at its place, or above it."""
    while True:
        for key in hiding.pop(path, ()):
            del dropped[key]
        if not path:
            return
        path = posixpath.dirname(path)
