"""Editing an image: which bytes of which entries go where, so that the merged view loses exactly what was asked.

For any request the result's merged view is the original's, less the removed paths, with the rewritten contents;
nothing else differs, and nothing that lower layers hid comes back. The result is a list of pieces for each layer,
so its size is known before a byte is written.

Requests are honoured where that holds: a directory stays while something in it stays, and a hidden entry or
whiteout stays while it still hides something.
"""

from __future__ import annotations

import posixpath
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from deadweight.errors import PlanError, shown
from deadweight.image.bytes import ByteRange
from deadweight.image.content import Content, Recoded
from deadweight.image.filesystem import Filesystem, Key, Merge, Node
from deadweight.image.layer import Entry, change_header, padding, whiteout_header
from deadweight.image.links import Links, inode_of
from deadweight.image.model import Image
from deadweight.image.pieces import END, Made, Piece, Pieces, Span

Subject = str | Key
"""What bytes are charged to: a path of the merged view, a dropped entry, or a layer's end as (layer, -1)."""


@dataclass(frozen=True)
class Edit:
    """A request. Paths are of the merged view."""

    remove: Collection[str] = ()
    rewrite: Mapping[str, Content] = field(default_factory=dict)
    link: Mapping[str, str] = field(default_factory=dict)
    """Path to path of an equal file whose bytes lie in the same layer."""
    drop: Collection[Key] = ()
    """Entries that no container sees, and whiteouts."""
    keep_layers: Collection[int] = ()
    """Positions of layers that stay as they are. Nothing in `rewrite`, `link` or `drop` may lie there, nor may
    the entry that names a path in `remove`."""
    steps: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """For a content of `rewrite` that came about in several steps: the sizes in between, each to be charged apart."""


@dataclass
class Charge:
    """Bytes of the layers' tars, framing included, before and after."""

    before: int = 0
    after: int = 0
    between: tuple[int, ...] = ()
    """What a rewritten file takes after each of its steps but the last."""


@dataclass(frozen=True)
class LayerEdit:
    """A layer of the result: its pieces in order, or None for a layer that stays as it is."""

    position: int
    pieces: tuple[Piece, ...] | None
    size: int


@dataclass(frozen=True)
class Edited:
    """What an edit comes to. The charges account for every byte by which the layers differ in size."""

    layers: tuple[LayerEdit, ...]
    charges: Mapping[Subject, Charge]


def edit_image(fs: Filesystem, edit: Edit, removed: frozenset[str] | None = None) -> Edited:
    """Works out an edit; `removed` is what `really_removed` says of it, where that was asked.

    Raises PlanError when it cannot be done.
    """
    pinned = _pinned(fs, edit)
    if removed is None:
        removed = _removable(fs, edit.remove, pinned)
    dropped, whiteouts = _repair(fs, removed, _dropped(fs, edit, removed, pinned))
    return _Emission(fs, edit, dropped, whiteouts).run()


def really_removed(fs: Filesystem, edit: Edit) -> frozenset[str]:
    """The paths that an edit takes out of the view: what it asks for, as far as that can leave."""
    return _removable(fs, edit.remove, _pinned(fs, edit))


def _pinned(fs: Filesystem, edit: Edit) -> frozenset[Key]:
    keep = frozenset(edit.keep_layers)
    return frozenset(target for link, target in fs.link_targets.items() if link[0] in keep)


def _removable(fs: Filesystem, wanted: Collection[str], pinned: Collection[Key]) -> frozenset[str]:
    """What of `wanted` can leave: directories only with all that is in them, and no entry (`pinned`) that a hard
    link names from a layer that stays as it is."""
    gone: set[str] = set()
    directories: list[str] = []
    for path in wanted:
        node = fs.nodes.get(path)
        if node is None or not path:
            raise PlanError(f"there is no {shown(path)} in the image to remove")
        if node.kind == "dir":
            directories.append(path)
        elif not pinned or node.key not in pinned:
            gone.add(path)
    for path in sorted(directories, key=lambda p: p.count("/"), reverse=True):
        if fs.nodes[path].key not in pinned and all(child in gone for child in fs.children(path)):
            gone.add(path)
    return frozenset(gone)


def _dropped(fs: Filesystem, edit: Edit, removed: frozenset[str], pinned: Collection[Key]) -> dict[Key, Subject]:
    """The entries that leave, with what each is charged to."""
    dropped: dict[Key, Subject] = {}
    keep = frozenset(edit.keep_layers)
    above: dict[str, str | None] = {}  # for each directory seen, what leaves at or above it
    for layer in fs.image.layers:
        if layer.position in keep:
            continue
        for entry in layer.entries:
            hides = entry.whiteout if ".wh." in entry.name else None
            name = entry.name if hides is None else hides
            if hides is None and name in removed:
                dropped[layer.position, entry.index] = name
                continue
            parent = name.rpartition("/")[0]
            if parent not in above:
                above[parent] = parent if parent in removed else _ancestor_in(parent, removed)
            top = above[parent]
            if top is not None:
                # Below a path that leaves, hidden entries and whiteouts would imply it again.
                dropped[layer.position, entry.index] = top
    for key in edit.drop:
        if key[0] not in keep:
            dropped.setdefault(key, key)
    for path in removed if keep else ():
        own = fs.nodes[path].key
        if own is not None and own[0] in keep:
            raise PlanError(f"{shown(path)} lies in layer {own[0] + 1}, which is to stay as it is")
    for key in pinned:
        dropped.pop(key, None)
    _undrop_directories(fs, edit, dropped)
    return dropped


def _ancestor_in(path: str, removed: frozenset[str]) -> str | None:
    parent = path.rpartition("/")[0]
    while parent:
        if parent in removed:
            return parent
        parent = parent.rpartition("/")[0]
    return None


def _undrop_directories(fs: Filesystem, edit: Edit, dropped: dict[Key, Subject]) -> None:
    """A hidden directory entry stays while its layer keeps something in that directory."""
    layers = {key[0] for key in edit.drop if key in dropped and fs.entry(key).kind == "dir"}
    for position in layers:
        entries = fs.image.layers[position].entries
        needed: set[str] = set()
        for parent in {e.name.rpartition("/")[0] for e in entries if (position, e.index) not in dropped}:
            above = parent
            while above and above not in needed:
                needed.add(above)
                above = above.rpartition("/")[0]
        for key in [k for k in dropped if k[0] == position and k == dropped[k]]:
            if fs.entry(key).kind == "dir" and fs.entry(key).name in needed:
                del dropped[key]


def _repair(
    fs: Filesystem, removed: frozenset[str], dropped: dict[Key, Subject]
) -> tuple[dict[Key, Subject], dict[tuple[int, str], None]]:
    """Takes back drops, or adds whiteouts, until nothing that was hidden comes back."""
    layers = [layer.entries for layer in fs.image.layers]
    whiteouts: dict[tuple[int, str], None] = {}
    while dropped:
        view = Merge(layers, dropped, whiteouts, fs.inodes).nodes
        back = [p for p, node in view.items() if p in removed or _has_changed(node, fs.nodes.get(p))]
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


def _has_changed(node: Node, before: Node | None) -> bool:
    """Whether a path has its name from another entry than before."""
    return before is None or node.entry is not before.entry or node.layer != before.layer


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


def layer_chunks(image: Image, edited: LayerEdit) -> Iterator[bytes]:
    """The uncompressed tar of a layer of the result, in pieces of at most 1 MiB."""
    if edited.pieces is None:
        yield from image.layers[edited.position].tar.chunks()
        return
    for piece in edited.pieces:
        if isinstance(piece, bytes):
            yield piece
        elif isinstance(piece, ByteRange):
            yield from piece.chunks()
        elif isinstance(piece, Made):
            yield from piece.part.chunks(image.layers[piece.layer].tar.window(piece.start, piece.length).read_at)
        else:
            yield from image.layers[piece.layer].tar.chunks(piece.start, piece.length)


class _Emission:
    """Turns dropped entries and new contents into pieces, and charges the differences."""

    def __init__(
        self,
        fs: Filesystem,
        edit: Edit,
        dropped: Mapping[Key, Subject],
        whiteouts: Iterable[tuple[int, str]],
    ) -> None:
        self.fs = fs
        self.dropped = dropped
        self.charges: dict[Subject, Charge] = {}
        self.whiteouts: dict[int, list[str]] = {}
        for position, path in whiteouts:
            self.whiteouts.setdefault(position, []).append(path)
        self.keep = frozenset(edit.keep_layers)
        self.links = Links(fs, edit.link)
        self.steps = edit.steps
        self.content: dict[Key, tuple[str, Content]] = {}
        # When all names of a file leave, its bytes count for the last: uv's cache comes first in a tar and carries what
        # is installed, and removing it alone would save nothing.
        self.last_dropped = {fs.inodes[key]: dropped[key] for key in sorted(fs.inodes.keys() & dropped.keys())}
        self.places: dict[int, dict[str, list[int]]] = {}  # by layer: where its entries have each name
        for path, content in edit.rewrite.items():
            self.content[self.links.root(inode_of(fs, path))] = (path, content)

    def run(self) -> Edited:
        layers = tuple(self._layer(layer.position) for layer in self.fs.image.layers)
        return Edited(layers, self.charges)

    def _charge(self, subject: Subject, before: int, after: int, between: Sequence[int] = ()) -> None:
        charge = self.charges.get(subject)
        if charge is None:
            charge = self.charges[subject] = Charge()
        charge.before += before
        charge.after += after
        if between:
            charge.between = tuple(map(sum, zip_longest(charge.between, between, fillvalue=0)))

    def _layer(self, position: int) -> LayerEdit:
        layer = self.fs.image.layers[position]
        untouched = LayerEdit(position, None, layer.size)
        if position in self.keep:
            return untouched
        roots = self._roots(layer.entries, position)
        first: dict[Key, Entry] = {}  # for each file, the first entry that names it: the one to carry the bytes
        for entry in layer.entries:
            root = roots.get(entry.index)
            if root is not None and root not in first:
                first[root] = entry
        out = Pieces(position)
        changed = False
        end = missing = 0
        for entry in layer.entries:
            if entry.start > end:  # a pax global header, which holds for all that follows
                out.copy(end, entry.start)
            end = entry.end
            key = (position, entry.index)
            subject = self.dropped.get(key)
            if subject is not None:
                self._charge(subject, entry.data - entry.start, 0)
                self._charge(self.last_dropped.get(key, subject), entry.end - entry.data, 0)
                changed = True
                continue
            root = roots.get(entry.index)
            pieces = None if root is None else self._changed(entry, position, first[root], root)
            if pieces is None:
                out.copy(entry.start, entry.end)
                missing = padding(entry.end)  # the last entry's padding, which some tools leave out
                if missing:
                    out.add(bytes(missing))
            else:
                changed = True
                for piece in pieces:
                    out.add(piece)
        # Behind the entries, since a hard link of this layer may name what a lower layer has there.
        for path in sorted(self.whiteouts.get(position, ())):
            header = whiteout_header(path)
            out.add(header)
            self._charge(path, 0, len(header))
            changed = True
        if not changed:
            return untouched
        out.add(END)
        self._charge((position, -1), layer.size - end, len(END) + missing)
        return LayerEdit(position, tuple(out.pieces), out.size)

    def _roots(self, entries: list[Entry], position: int) -> dict[int, Key]:
        """The files of the layer that stay, whiteouts left out: by the index of the entry, which one has the bytes."""
        found: dict[int, Key] = {}
        inodes, merged = self.fs.inodes, self.links.merged
        for entry in entries:
            key = (position, entry.index)
            if entry.kind not in ("file", "hardlink") or key in self.dropped:
                continue
            if ".wh." not in entry.name or entry.whiteout is None:
                root = inodes[key] if entry.kind == "hardlink" else key
                found[entry.index] = self.links.root(root) if root in merged else root
        return found

    def _changed(self, entry: Entry, position: int, carrier: Entry, root: Key) -> list[Piece] | None:
        """The entry's pieces in the result, or None when it stays as it is."""
        key = (position, entry.index)
        if entry.kind == "file":
            if carrier is entry and root not in self.content:  # as most are
                return None
            if carrier is entry or not self._names(position, carrier, entry):
                return self._carry(entry, position, root, None)
            # A cut may link to an equal file that comes later: then that one becomes the link.
            paths = self.links.paths
            carried = (position, carrier.index)
            linked = key if key in paths else self.fs.inodes.get(carried, carried)
            return self._point(entry, position, carrier, paths[linked])
        target = self.fs.link_targets[key]
        if target not in self.dropped:
            return None
        if carrier is entry or not self._names(position, carrier, entry):
            return self._carry(entry, position, root, self.dropped[target])
        return self._point(entry, position, carrier, self.dropped[target])

    def _names(self, position: int, carrier: Entry, entry: Entry) -> bool:
        """Whether the carrier's name still means it when `entry` is unpacked: names can be taken again."""
        if position not in self.places:
            self.places[position] = _places(self.fs.image.layers[position].entries)
        places, name = self.places[position], carrier.name
        while name:
            found = places.get(name, [])
            at = bisect_right(found, carrier.index)
            if at < len(found) and found[at] < entry.index:
                return False
            name = name.rpartition("/")[0]
        return True

    def _point(self, entry: Entry, position: int, carrier: Entry, subject: Subject) -> list[Piece]:
        """The entry as a hard link to the one that carries the bytes."""
        header = change_header(self.fs.image.layers[position].tar, entry, hardlink_to=carrier.name)
        self._charge(subject, entry.end - entry.start, len(header))
        return [header]

    def _carry(self, entry: Entry, position: int, root: Key, moved: Subject | None) -> list[Piece] | None:
        """The entry with the file's bytes: its own, or those of an entry that leaves (`moved`: whose fault)."""
        own = moved is None
        data_key = (position, entry.index) if own else self.fs.inodes[position, entry.index]
        data = self.fs.entry(data_key)
        tar = self.fs.image.layers[data_key[0]].tar
        rewrite = self.content.get(root)
        if own and rewrite is None:
            return None
        if data.sparse:
            raise PlanError(f"{shown(entry.name)} is a sparse file and takes over from a name that leaves: keep both")
        name = None if own else entry.name
        size = data.stored if rewrite is None else rewrite[1].size
        header = change_header(tar, data, name=name, size=size)
        pieces: list[Piece] = [header]
        taken = data.end - data.start  # what the file takes before it is rewritten
        if moved is not None:
            before = header if rewrite is None else change_header(tar, data, name=name)
            taken = len(before) + data.stored + padding(data.stored)
            self._charge(moved, entry.end - entry.start, taken)
        if rewrite is None:
            pieces.append(Span(data_key[0], data.data, data.stored))
        else:
            path, content = rewrite
            *between, after = (
                len(change_header(tar, data, name=name, size=each)) + each + padding(each)
                for each in (*self.steps.get(path, ()), size)
            )
            self._charge(path, taken, after, between)
            for piece in content.pieces:
                if isinstance(piece, tuple):
                    pieces.append(Span(data_key[0], data.data + piece[0], piece[1]))
                elif isinstance(piece, Recoded):
                    pieces.append(Made(data_key[0], data.data, data.stored, piece))
                else:
                    pieces.append(piece)
        pieces.append(bytes(padding(size)))
        return pieces


def _places(entries: list[Entry]) -> dict[str, list[int]]:
    """The indices of each name that something else than a directory has: whoever has it next takes it."""
    places: dict[str, list[int]] = {e.name: [] for e in entries if e.kind != "dir"}
    for e in entries:
        if e.name in places:
            places[e.name].append(e.index)
    return places
