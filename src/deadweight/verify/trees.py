"""Images unpacked for sandboxes: each at most once, what is equal shared, nothing left behind."""

from __future__ import annotations

import copy
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from deadweight.image.compression import temporary_folder
from deadweight.image.filesystem import Filesystem, Key
from deadweight.image.transports.destination import need_space, remove_tree, writing
from deadweight.image.transports.unpack import unpack_view
from deadweight.verify.cleanup import deferred

_PREFIX = "deadweight-trees-"
_YOUNG = 60.0
Unpack = Callable[[str, Filesystem, Mapping[Key, str]], tuple[Path, list[str]]]


@contextmanager
def trees() -> Iterator[Unpack]:
    """A function that unpacks a view under a name, and gives its root and notes of what could not be set.

    Its last argument names files that are on disk already, by the entry that carries their bytes. What was unpacked
    vanishes at the end, and nobody but this user may enter it before. The image's devices are left out: they would be
    this machine's. What a run left that was killed outright is removed first. Raises EnvironmentFailure when there is
    no space.
    """
    _collect(temporary_folder())
    folder = temporary_folder() / f"{_PREFIX}{secrets.token_hex(8)}"
    lock = None

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
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield unpack
    finally:
        with deferred():
            remove_tree(folder)
            if lock is not None:
                os.close(lock)


def _collect(place: Path) -> None:
    """Removes trees of this user that no run has a lock on. Young ones stay: their run may be about to lock them."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                seen = os.fstat(lock)
                if seen.st_uid == os.geteuid() and time.time() - seen.st_ctime > _YOUNG:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove_tree(folder)
            finally:
                os.close(lock)


def space(fs: Filesystem, shared: Mapping[Key, str], block: int) -> int:
    """Bytes that a view takes on disk: every file in whole blocks, once for all its names, and one for a directory."""
    carried = {node.inode: node.source.stored for node in fs.nodes.values() if node.kind == "file" and node.source}
    files = sum(-(-size // block) for key, size in carried.items() if key not in shared)
    return block * (files + sum(node.kind == "dir" for node in fs.nodes.values()))
