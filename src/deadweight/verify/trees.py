"""Images unpacked for sandboxes: each at most once, what is equal shared, nothing left behind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deadweight.image.compression import temporary_folder
from deadweight.image.filesystem import Filesystem, Key
from deadweight.image.transports.destination import need_space, remove_tree, writing
from deadweight.image.transports.unpack import unpack_view

Unpack = Callable[[str, Filesystem, Mapping[Key, str]], tuple[Path, list[str]]]


@contextmanager
def trees() -> Iterator[Unpack]:
    """A function that unpacks a view under a name, and gives its root and notes of what could not be set.

    Its last argument names files that are on disk already, by the entry that carries their bytes. What was unpacked
    vanishes at the end. Raises EnvironmentFailure when there is no space.
    """
    folder = Path(tempfile.mkdtemp(prefix="deadweight-verify-", dir=temporary_folder()))

    def unpack(name: str, fs: Filesystem, shared: Mapping[Key, str]) -> tuple[Path, list[str]]:
        root = folder / name
        sizes = {node.inode: node.source.stored for node in fs.nodes.values() if node.source is not None}
        need_space(root, sum(size for key, size in sizes.items() if key not in shared))
        root.mkdir(0o700)
        return root, list(unpack_view(fs, str(root), shared))

    try:
        with writing(folder):
            yield unpack
    finally:
        remove_tree(folder)
