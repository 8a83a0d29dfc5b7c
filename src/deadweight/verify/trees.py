"""Images unpacked for sandboxes: each at most once, what is equal shared, nothing left behind."""

from __future__ import annotations

import copy
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deadweight.image.compression import temporary_folder
from deadweight.image.filesystem import Filesystem, Key
from deadweight.image.transports.destination import need_space, remove_tree, writing
from deadweight.image.transports.unpack import unpack_view
from deadweight.verify.cleanup import deferred

Unpack = Callable[[str, Filesystem, Mapping[Key, str]], tuple[Path, list[str]]]


@contextmanager
def trees() -> Iterator[Unpack]:
    """A function that unpacks a view under a name, and gives its root and notes of what could not be set.

    Its last argument names files that are on disk already, by the entry that carries their bytes. What was unpacked
    vanishes at the end, and nobody but this user may enter it before. The image's devices are left out: they would be
    this machine's. Raises EnvironmentFailure when there is no space.
    """
    folder = temporary_folder() / f"deadweight-verify-{secrets.token_hex(8)}"

    def unpack(name: str, fs: Filesystem, shared: Mapping[Key, str]) -> tuple[Path, list[str]]:
        root = folder / name
        shared = {key: path for key, path in shared.items() if os.path.lexists(path)}
        need_space(root, space(fs, shared, os.statvfs(folder).f_frsize))
        view = copy.copy(fs)
        view.nodes = {path: node for path, node in fs.nodes.items() if node.kind != "device"}
        try:
            with writing(root):
                root.mkdir(0o700)
                return root, list(unpack_view(view, str(root), shared))
        except BaseException:
            with deferred():
                remove_tree(root)
            raise

    try:
        with writing(folder):
            folder.mkdir(0o700)
        yield unpack
    finally:
        with deferred():
            remove_tree(folder)


def space(fs: Filesystem, shared: Mapping[Key, str], block: int) -> int:
    """Bytes that a view takes on disk: every file in whole blocks, once for all its names, and one for a directory."""
    carried = {node.inode: node.source.stored for node in fs.nodes.values() if node.kind == "file" and node.source}
    files = sum(-(-size // block) for key, size in carried.items() if key not in shared)
    return block * (files + sum(node.kind == "dir" for node in fs.nodes.values()))
