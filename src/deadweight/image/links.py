"""Files that an edit makes one: each becomes a hard link to an equal file."""

from __future__ import annotations

from collections.abc import Mapping

from deadweight.errors import PlanError, shown
from deadweight.image.filesystem import Filesystem, Key


class Links:
    """What an edit's links (path to the path of an equal file) come to. Raises PlanError for links across layers."""

    def __init__(self, fs: Filesystem, links: Mapping[str, str]) -> None:
        self._inodes = fs.inodes
        self.merged: dict[Key, Key] = {}
        """By inode: the equal one that it becomes a name of."""
        self.paths: dict[Key, str] = {}
        """By inode that becomes a name of another: the path whose link does that."""
        for path, target in links.items():
            mine, other = inode_of(fs, path), inode_of(fs, target)
            if mine[0] != other[0]:
                raise PlanError(f"{shown(path)} and {shown(target)} lie in different layers and cannot be linked")
            mine, other = self.root(mine), self.root(other)
            if mine != other:
                self.merged[mine] = other
                self.paths[mine] = path

    def root(self, key: Key) -> Key:
        """The entry that carries the bytes of the entry `key`: the same for all names of what is one file then."""
        key = self._inodes.get(key, key)
        while key in self.merged:
            key = self.merged[key]
        return key


def inode_of(fs: Filesystem, path: str) -> Key:
    """The entry that carries the bytes of the file at `path`. Raises PlanError where there is no plain file."""
    node = fs.nodes.get(path)
    if node is None or node.inode is None or node.kind != "file" or (node.source and node.source.sparse):
        raise PlanError(f"there is no plain file {shown(path)} in the image")
    return node.inode
