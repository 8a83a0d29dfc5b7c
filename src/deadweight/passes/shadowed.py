"""Entries that no container sees: a later layer has the path again, or deletes it. And whiteouts that hide nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deadweight.image.filesystem import Filesystem, Key, by_layer
from deadweight.image.layer import Entry
from deadweight.passes.base import Context, Pass, Proposal


def propose(context: Context) -> Iterator[Proposal]:
    """Drops for hidden entries, then for the whiteouts that have nothing left to hide."""
    fs = context.ledger.fs
    names = _names(fs)
    dropped: set[Key] = set()
    for key in fs.hidden:
        entry = fs.entry(key)
        if not entry.name or key[0] in context.keep_layers or key in context.dropped or context.kept(entry.name):
            continue
        dropped.add(key)
        why, evidence = _reason(names, key, entry)
        yield Proposal("drop", entry.name, why, evidence, key=key)
    yield from _whiteouts(context, fs, dropped | context.dropped)


def _whiteouts(context: Context, fs: Filesystem, dropped: set[Key]) -> Iterator[Proposal]:
    """Layers from below: `there` are the names that a whiteout may have to hide, `above` all directories over them.

    These are of entries of lower layers that stay though they are not seen: what is seen no whiteout hides.
    """
    staying = by_layer(key for key in (*fs.hidden, *fs.nameless) if key not in dropped)
    last = max((position for position, own in enumerate(fs.whiteouts) if own), default=-1)
    there: set[str] = set()
    above: set[str] = set()
    for layer, own in zip(fs.image.layers, fs.whiteouts, strict=True):
        position = layer.position
        kept = [layer.entries[index].name for index in staying.get(position, ())]
        for entry in own:
            hides, key = entry.whiteout or "", (position, entry.index)  # the root's own is empty
            if key in dropped:
                continue
            # A whiteout of a lower layer counts as an entry: some engines make its directory when they meet it.
            needed = hides in above or (hides in there and not entry.opaque)
            if needed or position in context.keep_layers or context.kept(hides):
                kept.append(entry.name)
                continue
            yield Proposal(
                "drop", entry.name, "a deletion with nothing left to delete", "no lower layer has it", key=key
            )
        if position >= last:  # nothing asks any more what lies below
            return
        there.update(kept)
        for name in kept:
            while name and (name := name.rpartition("/")[0]) not in above:
                above.add(name)


def _names(fs: Filesystem) -> list[_Names]:
    """What each layer does to lower ones; the first has none."""
    return [
        _Names(layer.entries if layer.position else [], own)
        for layer, own in zip(fs.image.layers, fs.whiteouts, strict=True)
    ]


class _Names:
    """What a layer does to lower ones, by path."""

    def __init__(self, entries: Sequence[Entry], hiding: Sequence[Entry]) -> None:
        hidden = {e.index for e in hiding}
        self.names = {e.name: e.kind for e in entries if e.index not in hidden}
        self.whiteouts = {e.whiteout for e in hiding if not e.opaque}
        self.opaque = {e.whiteout for e in hiding if e.opaque}
        self._above: dict[str, tuple[str, str] | None] = {}

    def hides(self, path: str, directory: str) -> tuple[str, str] | None:
        """(verb, path) of what hides an entry of a lower layer at `path`, in `directory`."""
        if path in self.whiteouts:
            return "deletes", path
        if path in self.names:
            return "replaces", path
        return self._hides_all_of(directory) if path else None

    def _hides_all_of(self, directory: str) -> tuple[str, str] | None:
        """(verb, path) of what hides all that lower layers have in a directory; each is looked at once."""
        if directory not in self._above:
            # Not of those above it as well: a few names of many parts would fill the memory.
            self._above[directory] = self._find_above(directory)
        return self._above[directory]

    def _find_above(self, directory: str) -> tuple[str, str] | None:
        """As `_hides_all_of`: the nearest, at the directory or above it."""
        while True:
            if directory in self.whiteouts or directory in self.opaque:
                return "deletes", directory
            if self.names.get(directory, "dir") != "dir":
                return "replaces", directory
            if not directory:
                return None
            directory = directory.rpartition("/")[0]


def hidden_by(fs: Filesystem) -> dict[Key, tuple[int, str]]:
    """For each hidden entry the position of the layer that hides it, and whether that `replaces` or `deletes` it."""
    names = _names(fs)
    found = {}
    for key in fs.hidden:
        position, verb, _ = _hiding(names, key, fs.entry(key))
        found[key] = position, verb
    return found


def _hiding(names: Sequence[_Names], key: Key, entry: Entry) -> tuple[int, str, str]:
    """The position of the layer that hides an entry, the verb, and the path that does it."""
    directory = entry.name.rpartition("/")[0]
    for position in range(key[0] + 1, len(names)):
        found = names[position].hides(entry.name, directory)
        if found is not None:
            return position, *found
    return key[0], "replaces", entry.name


def _reason(names: Sequence[_Names], key: Key, entry: Entry) -> tuple[str, str]:
    position, verb, path = _hiding(names, key, entry)
    if position == key[0]:
        return "overwritten in its own layer", f"layer {key[0] + 1} has it again"
    what = "it" if path == entry.name else f"/{path}"
    if verb == "deletes":
        return "deleted by a later layer", f"layer {position + 1} deletes {what}"
    why = "repeated by a later layer" if entry.kind == "dir" else "overwritten by a later layer"
    return why, f"layer {position + 1} has {what} again"


PASS = Pass(
    name="shadowed",
    risk="lossless",
    order=10,
    summary="entries that a later layer overwrites or deletes, and deletions with nothing left to delete",
    propose=propose,
)
