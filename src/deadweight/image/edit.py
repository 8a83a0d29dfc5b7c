"""Editing an image: which bytes of which entries go where, so that the merged view loses exactly what was asked.

For any request the result's merged view is the original's, less the removed paths, with the rewritten contents;
nothing else differs, and nothing that lower layers hid comes back. The result is a list of pieces for each layer,
so its size is known before a byte is written.

Requests are honoured where that holds: a directory stays while something in it stays, and a hidden entry or
whiteout stays while it still hides something.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest

import msgspec

from deadweight.errors import PlanError, shown
from deadweight.image import emitted
from deadweight.image.bytes import ByteRange
from deadweight.image.content import Content, Recoded
from deadweight.image.emitted import Charge, Memo, Recalled
from deadweight.image.filesystem import Filesystem, Key
from deadweight.image.layer import Entry, change_header, padding, whiteout_header
from deadweight.image.leaving import Dropped, Subject, dropped_by, pinned_by, removable, repair
from deadweight.image.links import Links, inode_of
from deadweight.image.model import Image
from deadweight.image.pieces import END, Made, Piece, Pieces, Span


class Edit(msgspec.Struct, frozen=True):
    """A request. Paths are of the merged view."""

    remove: Collection[str] = ()
    rewrite: Mapping[str, Content] = msgspec.field(default_factory=dict)
    link: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Path to path of an equal file whose bytes lie in the same layer."""
    drop: Collection[Key] = ()
    """Entries that no container sees, and whiteouts."""
    keep_layers: Collection[int] = ()
    """Positions of layers that stay as they are. Nothing in `rewrite`, `link` or `drop` may lie there, nor may
    the entry that names a path in `remove`."""
    steps: Mapping[str, Sequence[int]] = msgspec.field(default_factory=dict)
    """For a content of `rewrite` that came about in several steps: the sizes in between, each to be charged apart."""
    within: Mapping[str, str] = msgspec.field(default_factory=dict)
    """For paths of `remove` that leave with a directory above them, as one thing: that directory, which their bytes are
    charged to."""


class LayerEdit(msgspec.Struct, frozen=True, dict=True):
    """A layer of the result: its pieces in order, or None for a layer that stays as it is."""

    position: int
    pieces: Sequence[Piece] | None
    size: int


class Edited(msgspec.Struct, frozen=True):
    """What an edit comes to. The charges account for every byte by which the layers differ in size."""

    layers: tuple[LayerEdit, ...]
    charges: Mapping[Subject, Charge]


def edit_image(fs: Filesystem, edit: Edit, removed: frozenset[str] | None = None, memo: Memo | None = None) -> Edited:
    """Works out an edit; `removed` is what `really_removed` says of it, where that was asked.

    What `memo` has of large layers is not worked out again. Raises PlanError when it cannot be done.
    """
    keep = frozenset(edit.keep_layers)
    pinned = pinned_by(fs, keep)
    if removed is None:
        removed = removable(fs, edit.remove, pinned)
    within = edit.within
    if not removed.issuperset(within):
        within = {path: top for path, top in within.items() if path in removed}
    subjects = {**dict(zip(removed, removed, strict=True)), **within}
    dropped, whiteouts = repair(fs, removed, dropped_by(fs, subjects, edit.drop, keep, pinned))
    return _Emission(fs, edit, dropped, whiteouts, memo).run()


def really_removed(fs: Filesystem, edit: Edit) -> frozenset[str]:
    """The paths that an edit takes out of the view: what it asks for, as far as that can leave."""
    return removable(fs, edit.remove, pinned_by(fs, edit.keep_layers))


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
        dropped: Dropped,
        whiteouts: Iterable[tuple[int, str]],
        memo: Memo | None,
    ) -> None:
        self.fs = fs
        self.memo = memo
        self.dropped = dropped
        self.charges: dict[Subject, Charge] = {}  # of the layer at hand
        self.whiteouts: dict[int, list[str]] = {}
        for position, path in whiteouts:
            self.whiteouts.setdefault(position, []).append(path)
        self.keep = frozenset(edit.keep_layers)
        self.links = Links(fs, edit.link)
        self.steps = edit.steps
        self.content: dict[Key, tuple[str, Content]] = {}
        # When all names of a file leave, its bytes count for the last: uv's cache comes first in a tar and carries what
        # is installed, and removing it alone would save nothing.
        leaving = sorted(key for key in fs.inodes if key[1] in dropped[key[0]])
        self.last_dropped = {fs.inodes[key]: dropped[key[0]][key[1]] for key in leaving}
        self.below: dict[int, set[Key]] = {}  # by layer: what its hard links name of lower ones
        for link, target in fs.link_targets.items():
            if link[0] != target[0]:
                self.below.setdefault(link[0], set()).add(target)
        self.places: dict[int, dict[str, list[int]]] = {}  # by layer: where its entries have each name
        for path, content in edit.rewrite.items():
            self.content[self.links.root(inode_of(fs, path))] = (path, content)

    def run(self) -> Edited:
        layers: list[LayerEdit] = []
        charges: dict[Subject, Charge] = {}
        for layer in self.fs.image.layers:
            self.charges = {}
            layers.append(self._remembered(layer.position))
            for subject, charge in self.charges.items():
                if charges.setdefault(subject, charge) is not charge:
                    _add(charges[subject], charge.before, charge.after, charge.between)
        return Edited(tuple(layers), charges)

    def _remembered(self, position: int) -> LayerEdit:
        """What becomes of a layer, and its charges: as it is remembered, or worked out."""
        few = len(self.fs.image.layers[position].entries) < emitted.MANY
        key = None if self.memo is None or few or position in self.keep else self._key(position)
        if self.memo is None or key is None:
            return self._layer(position)
        found = self.memo.find_emitted(position, key)
        if found is not None:
            self.charges = found.charges
            find = partial(self._pieces, self.memo, position, key)
            pieces = None if found.name is None else Recalled(found.name, found.sources, find)
            return LayerEdit(position, pieces, found.size)
        edit = self._layer(position)
        made = emitted.freeze(self.fs.image.layers[: position + 1], edit.size, edit.pieces, self.charges)
        if made is not None:
            self.memo.note_emitted(position, key, *made)
        return edit

    def _pieces(self, memo: Memo, position: int, key: str) -> Sequence[Piece]:
        """The pieces of a layer that is remembered: as they are, or, where they are lost, worked out."""
        kept = memo.find_pieces(position, key)
        if kept is not None:
            return emitted.thaw(kept)
        self.charges = {}  # those that were there are charged already
        pieces = self._layer(position).pieces
        assert pieces is not None  # or they had no name
        return pieces

    def _key(self, position: int) -> str | None:
        """By what `_layer` makes of a layer is known: all that it asks of anything but this layer and those below."""
        layers = self.fs.image.layers[: position + 1]
        content = [(root, path, new.digest) for root, (path, new) in self.content.items() if root[0] <= position]
        if any(digest is None for _, _, digest in content):
            return None
        below = self.below.get(position, ())
        return emitted.emission_key(
            layers,
            sorted(self.dropped[position].items()),
            sorted((key, self.dropped[key[0]][key[1]]) for key in below if key[1] in self.dropped[key[0]]),
            [(key, heir) for key, heir in self.last_dropped.items() if key[0] == position],
            sorted(content),
            sorted((path, self.steps[path]) for _, path, _ in content if path in self.steps),
            sorted((mine, other) for mine, other in self.links.merged.items() if mine[0] <= position),
            sorted((mine, path) for mine, path in self.links.paths.items() if mine[0] <= position),
            sorted(self.whiteouts.get(position, ())),
        )

    def _charge(self, subject: Subject, before: int, after: int, between: Sequence[int] = ()) -> None:
        charge = self.charges.get(subject)
        if charge is None:
            charge = self.charges[subject] = Charge()
        _add(charge, before, after, between)

    def _layer(self, position: int) -> LayerEdit:
        layer = self.fs.image.layers[position]
        untouched = LayerEdit(position, None, layer.size)
        if position in self.keep:
            return untouched
        roots = self._roots(layer.entries, position)
        # For each file the entry that carries the bytes: the first that names it, and again one where names are taken.
        first: dict[Key, Entry] = {}
        for entry in layer.entries:
            root = roots.get(entry.index)
            if root is not None and root not in first:
                first[root] = entry
        out = Pieces(position)
        changed = False
        end = missing = 0
        gaps: list[tuple[int, int]] = []  # pax global headers: a tar may not end in one, so they wait for an entry

        def emit_gaps() -> None:
            for gap in gaps:
                out.copy(*gap)
            gaps.clear()

        for entry in layer.entries:
            if entry.start > end:
                gaps.append((end, entry.start))
            end = entry.end
            subject = self.dropped[position].get(entry.index)
            if subject is not None:
                self._charge(subject, entry.data - entry.start, 0)
                last = self.last_dropped.get((position, entry.index), subject)
                self._charge(last, entry.end - entry.data, 0)
                changed = True
                continue
            if gaps:
                emit_gaps()
            root = roots.get(entry.index)
            pieces = None if root is None else self._changed(entry, position, first, root)
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
            emit_gaps()
            header = whiteout_header(path)
            out.add(header)
            self._charge(path, 0, len(header))
            changed = True
        if not changed:
            return untouched
        out.add(END)
        unused = sum(stop - start for start, stop in gaps)
        self._charge((position, -1), layer.size - end + unused, len(END) + missing)
        return LayerEdit(position, tuple(out.pieces), out.size)

    def _roots(self, entries: list[Entry], position: int) -> dict[int, Key]:
        """The files of the layer that stay, whiteouts left out: by the index of the entry, which one has the bytes."""
        found: dict[int, Key] = {}
        inodes, merged, leaving = self.fs.inodes, self.links.merged, self.dropped[position]
        for entry in entries:
            if entry.kind == "dir" or entry.index in leaving:
                continue
            if ".wh." not in entry.name or entry.whiteout is None:
                key = (position, entry.index)
                root = inodes[key] if entry.kind == "hardlink" else key
                found[entry.index] = self.links.root(root) if root in merged else root
        return found

    def _changed(self, entry: Entry, position: int, first: dict[Key, Entry], root: Key) -> list[Piece] | None:
        """The entry's pieces in the result, or None when it stays as it is; it may become the one that carries."""
        key, carrier = (position, entry.index), first[root]
        if entry.kind != "hardlink":
            if carrier is entry and root not in self.content:  # as most are, and all that are no regular files
                return None
            if carrier is entry or not self._names(position, carrier, entry):
                first[root] = entry
                return self._carry(entry, position, root, None)
            # A cut may link to an equal file that comes later: then that one becomes the link.
            paths = self.links.paths
            carried = (position, carrier.index)
            linked = key if key in paths else self.fs.inodes.get(carried, carried)
            return self._point(entry, position, carrier, paths[linked])
        target = self.fs.link_targets[key]
        moved = self.dropped[target[0]].get(target[1])
        if moved is None:
            return None
        if carrier is entry or not self._names(position, carrier, entry):
            first[root] = entry
            return self._carry(entry, position, root, moved)
        return self._point(entry, position, carrier, moved)

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


def _add(charge: Charge, before: int, after: int, between: Sequence[int]) -> None:
    charge.before += before
    charge.after += after
    if between:
        charge.between = tuple(map(sum, zip_longest(charge.between, between, fillvalue=0)))


def _places(entries: list[Entry]) -> dict[str, list[int]]:
    """The indices of each name that something else than a directory has: whoever has it next takes it."""
    places: dict[str, list[int]] = {e.name: [] for e in entries if e.kind != "dir"}
    for e in entries:
        if e.name in places:
            places[e.name].append(e.index)
    return places
