"""The merged view: what a container sees of an image's layers, and what it does not see.

Layers are applied in order (OCI image specification, "Layer"): a whiteout deletes what *lower* layers have at its
path, an opaque marker all that they have in its directory, an entry replaces what was at its path unless both are
directories. Every name remembers the entry that carries its bytes, since names share bytes by hard links.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

import msgspec

from deadweight.errors import BadInputError, TarError, shown
from deadweight.image.layer import Entry
from deadweight.image.model import Image

Key = tuple[int, int]
"""An entry: the position of its layer, and its index in it."""

READ_LIMIT = 256 << 20
SYMLINK_LIMIT = 40
_NAMES, _CARRIES, _DELETES = 1, 2, 4
"""What an entry is for: it gives a visible name, carries the bytes of a visible hard link, deletes."""
IMPLIED_LIMIT = 512 << 20  # bytes of memory, about: a few names of many parts imply millions of directories


class Node(msgspec.Struct, frozen=True, gc=False):
    """A path that a container sees."""

    path: str
    layer: int
    """The layer whose entry gave the path its name; -1 for a directory that no entry names."""
    entry: Entry | None
    """That entry; None for a directory that is only implied by names below it."""
    source_layer: int
    source: Entry | None
    """The entry with metadata and bytes: another one than `entry` when the path is a hard link."""
    kind: str = "dir"
    """What is there: `file`, `dir`, `symlink`, `device` or `fifo`."""

    @property
    def key(self) -> Key | None:
        """The entry that gave the name."""
        return None if self.entry is None else (self.layer, self.entry.index)

    @property
    def inode(self) -> Key | None:
        """The entry that carries the bytes: equal for all names of one file."""
        return None if self.source is None else (self.source_layer, self.source.index)

    @property
    def size(self) -> int:
        """Bytes of content."""
        return self.source.size if self.source is not None else 0


class Filesystem:
    """The merged view of an image."""

    def __init__(self, image: Image) -> None:
        self.image = image
        merge = Merge([layer.entries for layer in image.layers])
        self.nodes: dict[str, Node] = merge.nodes
        """Every path, the root as the empty string."""
        self.link_targets: dict[Key, Key] = merge.link_targets
        """For each hard link, seen or not, the entry that its link name meant."""
        self.inodes: dict[Key, Key] = merge.inodes
        """For each hard link, seen or not, the entry that carries its bytes."""
        self.whiteouts: Sequence[Sequence[Entry]] = merge.whiteouts
        """The entries of each layer that delete what lower layers have."""
        self._children = merge.children
        self._tree: Sequence[str] = ()  # the last that was asked for: whoever takes one out asks several times

    @cached_property
    def symlinks(self) -> Sequence[str]:
        """The paths of symbolic links, in the order of the view."""
        return [path for path, node in self.nodes.items() if node.kind == "symlink"]

    @property
    def directories(self) -> Collection[str]:
        """The directories that something was put into, in the order in which they first were; some may be empty."""
        return self._children.keys()

    def children(self, path: str) -> Collection[str]:
        """The full paths of what is in a directory."""
        return self._children.get(path, ())

    def walk(self, path: str) -> Iterator[Node]:
        """The node at `path`, if there is one, and all below it."""
        stack = [path]
        while stack:
            here = stack.pop()
            if here in self.nodes:
                yield self.nodes[here]
            stack.extend(sorted(self.children(here), reverse=True))

    def paths_below(self, path: str) -> Sequence[str]:
        """The path of a directory, and of all below it, in no order."""
        if not self._tree or self._tree[0] != path:
            found = [path]
            for here in found:  # which grows
                found += self._children.get(here, ())
            self._tree = found
        return self._tree

    def entry(self, key: Key) -> Entry:
        """The entry that a key stands for."""
        return self.image.layers[key[0]].entries[key[1]]

    @cached_property
    def hidden(self) -> list[Key]:
        """Entries that no container sees and no visible name needs, in order; whiteouts are not among them."""
        return [(at, index) for at, roles in enumerate(self._roles) for index, role in enumerate(roles) if not role]

    @cached_property
    def nameless(self) -> list[Key]:
        """Entries whose bytes visible names need, though their own name is hidden; in order."""
        some = ((at, roles) for at, roles in enumerate(self._roles) if _CARRIES in roles)
        return [(at, index) for at, roles in some for index, role in enumerate(roles) if role == _CARRIES]

    @cached_property
    def _roles(self) -> list[bytearray]:
        """For each layer what its entries are for; a byte each, since there may be millions."""
        found = [bytearray(len(layer.entries)) for layer in self.image.layers]
        for roles, deleting in zip(found, self.whiteouts, strict=True):
            for entry in deleting:
                roles[entry.index] |= _DELETES
        for node in self.nodes.values():
            if node.entry is not None:
                found[node.layer][node.entry.index] |= _NAMES
            if node.source is not node.entry and node.source is not None:
                found[node.source_layer][node.source.index] |= _CARRIES
        return found

    def resolve(self, path: str, passed: dict[str, None] | None = None) -> Node | None:
        """The node at `path` with all symbolic links followed inside the image; None when it leads nowhere.

        `passed` gets the paths on the way, links as well as what they lead to.
        """
        todo = path.strip("/").split("/")[::-1]
        here = ""
        links = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                here = posixpath.dirname(here)
                continue
            node = self.nodes.get(f"{here}/{part}" if here else part)
            if node is None:
                return None
            if passed is not None:
                passed[node.path] = None
            if node.kind != "symlink" or node.source is None:
                here = node.path
                continue
            links += 1
            if links > SYMLINK_LIMIT:
                return None
            if node.source.linkname.startswith("/"):
                here = ""
            todo.extend(reversed(node.source.linkname.split("/")))
        return self.nodes.get(here)

    def reader(self, node: Node) -> Callable[[int, int], bytes]:
        """A function (offset, length) -> bytes over a file's content. Raises BadInputError for sparse files."""
        source = node.source
        if source is None or source.kind != "file" or source.sparse:
            raise BadInputError(f"{shown(node.path)} is no plain file")
        return self.image.layers[node.source_layer].tar.window(source.data, source.stored).read_at

    def read(self, path: str, limit: int = READ_LIMIT) -> bytes:
        """The content of the file at `path`, symbolic links followed.

        Raises BadInputError when there is none, or when it is larger than `limit` bytes.
        """
        node = self.resolve(path)
        if node is None or node.kind != "file":
            raise BadInputError(f"there is no file {shown(path)} in the image")
        if node.size > limit:
            raise BadInputError(f"{shown(path)} has {node.size:,} bytes, more than the {limit:,} expected there")
        return self.reader(node)(0, node.size)


def by_layer(keys: Iterable[Key]) -> dict[int, set[int]]:
    """The indices of entries, by the position of their layer."""
    found: dict[int, set[int]] = {}
    for position, index in keys:
        found.setdefault(position, set()).add(index)
    return found


class Merge:
    """Layers applied in order. Entries `dropped`, by layer, are passed over; `whiteouts` are added paths, by layer.

    With `inodes` it tries out an edit of layers that are known to be sound: the entries that hard links name may be
    dropped, `inodes` tells what they mean, and what comes back in the way of other names is there to be found.
    """

    def __init__(
        self,
        layers: Sequence[Sequence[Entry]],
        dropped: Sequence[Collection[int]] = (),
        whiteouts: Collection[tuple[int, str]] = (),
        inodes: Mapping[Key, Key] | None = None,
    ) -> None:
        self.nodes: dict[str, Node] = {"": Node("", -1, None, -1, None)}
        self.children: dict[str, dict[str, None]] = {}
        self.link_targets: dict[Key, Key] = {}
        self.inodes: dict[Key, Key] = {}
        self.whiteouts: list[list[Entry]] = []
        self._known = inodes
        self._layers = layers
        self._implied = 0
        for position, entries in enumerate(layers):
            leaving = dropped[position] if dropped else ()
            kept = [e for e in entries if e.index not in leaving] if leaving else entries
            lower = self._hide_lower(kept, [path for at, path in whiteouts if at == position])
            nodes, children = self.nodes, self.children
            deleting = {entry.index for entry in self.whiteouts[-1]}
            for entry in kept:
                path, kind = entry.name, entry.kind
                if deleting and entry.index in deleting:
                    continue
                siblings = children.get(path.rpartition("/")[0])
                if siblings is None or path in nodes:
                    self._add(position, entry, lower)
                    continue
                # A new name in a directory that is there, as most are.
                if kind == "hardlink":
                    source_layer, source = self._link_source(position, entry, lower)
                    nodes[path] = Node(path, position, entry, source_layer, source, source.kind)
                else:
                    nodes[path] = Node(path, position, entry, position, entry, kind)
                siblings[path] = None

    def _hide_lower(self, entries: Sequence[Entry], added: Sequence[str]) -> dict[str, Node]:
        """Applies a layer's whiteouts; gives what they hid, which hard links of the same layer may still name."""
        gone: dict[str, Node] = {}
        for path in added:
            self._remove(path, gone)
        own = [entry for entry in entries if ".wh." in entry.name and entry.whiteout is not None]
        self.whiteouts.append(own)
        for entry in own:
            hides = entry.whiteout or ""  # the root's own is empty
            if entry.opaque:
                for child in list(self.children.get(hides, ())):
                    self._remove(child, gone)
            else:
                self._remove(hides, gone)
        return gone

    def _remove(self, path: str, gone: dict[str, Node] | None = None) -> None:
        if path not in self.nodes or not path:
            return
        self.children[posixpath.dirname(path)].pop(path, None)
        stack = [path]
        while stack:
            here = stack.pop()
            node = self.nodes.pop(here)
            if gone is not None:
                gone[here] = node
            stack.extend(self.children.pop(here, ()))

    def _add(self, position: int, entry: Entry, lower: dict[str, Node]) -> None:
        path = entry.name
        source_layer, source = position, entry
        if entry.kind == "hardlink":
            source_layer, source = self._link_source(position, entry, lower)
        old = self.nodes.get(path)
        if old is None:
            self._add_parents(path, position)
        elif source.kind != "dir" or old.kind != "dir":
            self._remove(path)
            self._add_parents(path, position)
        self.nodes[path] = Node(path, position, entry, source_layer, source, source.kind)

    def _link_source(self, position: int, entry: Entry, lower: dict[str, Node]) -> tuple[int, Entry]:
        """The layer and entry that carry a hard link's bytes."""
        key = (position, entry.index)
        if self._known is not None:
            layer, index = self._known[key]
            return layer, self._layers[layer][index]
        target = self.nodes.get(entry.linkname) or lower.get(entry.linkname)
        if target is None or target.source is None or target.entry is None or target.kind == "dir":
            raise TarError(
                f"layer {position + 1}: the hard link {shown(entry.name)} names {shown(entry.linkname)}, "
                "where there is no file"
            )
        named = (target.layer, target.entry.index)
        self.link_targets[key] = named
        self.inodes[key] = named if target.source is target.entry else (target.source_layer, target.source.index)
        return target.source_layer, target.source

    def _add_parents(self, path: str, position: int) -> None:
        """Enters `path` into its directory, which is implied where no entry names it."""
        while path:
            parent = path.rpartition("/")[0]
            siblings = self.children.get(parent)
            if siblings is not None:  # then it is entered itself, and is a directory
                siblings[path] = None
                return
            self.children[parent] = {path: None}
            node = self.nodes.get(parent)
            if node is not None:
                if node.kind != "dir" and self._known is None:
                    raise TarError(
                        f"layer {position + 1}: {shown(path)} lies below {shown(parent)}, which is a {node.kind} and "
                        "no directory: engines disagree about where such a name leads, so it is refused"
                    )
                return
            self.nodes[parent] = Node(parent, -1, None, -1, None)
            self._implied += len(parent) + 256
            if self._implied > IMPLIED_LIMIT:
                raise TarError(f"layer {position + 1}: its names imply more directories than an image can have")
            path = parent
