"""A root for bwrap where there is no overlay: read-only, with memory for temporary files and a few writable copies."""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from deadweight.image.compression import temporary_folder
from deadweight.image.transports.destination import remove_tree, writing
from deadweight.verify.sandbox.paths import Tree

COPY_LIMIT = 64 << 20
"""Bytes of a directory that is still copied."""
_COUNT_LIMIT = 20_000
_TEMPORARY = ("/tmp", "/var/tmp", "/run")  # noqa: S108
_MOUNTED = frozenset({"proc", "dev"})


@contextmanager
def temporary_copies() -> Iterator[Path]:
    """A folder for copies, which vanishes. Signals are to be deferred meanwhile."""
    folder = Path(tempfile.mkdtemp(prefix="deadweight-copies-", dir=temporary_folder()))
    try:
        with writing(folder):
            yield folder
    finally:
        remove_tree(folder)


def read_only_root(root: Path, tree: Tree, writable: Sequence[str], folder: Path, memory: int) -> list[str]:
    """bwrap's options for a root with the files of `root`. The `writable` paths are copied to `folder` where they are
    small; where one is not there, its nearest parent is. Temporary files have `memory` bytes.
    """
    words: list[str] = []
    # Entry by entry: there may be no directory in the image to mount /proc on, and none can be made in a read-only one.
    for entry in sorted(os.scandir(root), key=lambda entry: entry.name):
        if entry.is_symlink():
            words += ["--symlink", os.readlink(entry.path), f"/{entry.name}"]  # noqa: PTH115
        elif entry.name not in _MOUNTED:
            words += ["--ro-bind", entry.path, f"/{entry.name}"]
    taken = [tree.resolve(path) for path in _TEMPORARY]
    for place in taken:
        if tree.is_dir(place) or posixpath.dirname(place) == "/":
            words += ["--perms", "755" if place == "/run" else "1777", "--size", str(memory), "--tmpfs", place]
    for path in writable:
        place = tree.resolve(path)
        while not tree.is_dir(place):
            place = posixpath.dirname(place)
        if place == "/" or any(f"{place}/".startswith(f"{other}/") for other in taken):
            continue
        if _is_small(root / place[1:]):
            target = folder / str(len(taken))
            _copy(root / place[1:], target)
            words += ["--bind", str(target), place]
            taken.append(place)
    return words


def _is_small(folder: Path) -> bool:
    size = count = 0
    for here, folders, names in os.walk(folder):
        count += len(folders) + len(names)
        if count > _COUNT_LIMIT:
            return False
        for name in names:
            size += os.lstat(os.path.join(here, name)).st_size  # noqa: PTH118
    return size <= COPY_LIMIT


def _copy(source: Path, target: Path) -> None:
    """Copies a directory with its owners, modes and times. Not by recursion: names can be thousands of levels deep."""
    folders = []
    for here, names, files in os.walk(source):
        to = target / os.path.relpath(here, source)
        to.mkdir(mode=0o700)
        folders.append((Path(here), to))
        for name in files + [name for name in names if (Path(here) / name).is_symlink()]:
            _copy_file(Path(here) / name, to / name)
    for old, new in reversed(folders):
        _describe(old, new)


def _copy_file(old: Path, new: Path) -> None:
    kind = old.lstat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISLNK(kind):
        return
    with suppress(PermissionError):  # the program inside could not read it either
        shutil.copyfile(old, new, follow_symlinks=False)
        _describe(old, new)


def _describe(old: Path, new: Path) -> None:
    status = old.lstat()
    if os.geteuid() == 0:
        os.chown(new, status.st_uid, status.st_gid, follow_symlinks=False)
    shutil.copystat(old, new, follow_symlinks=False)
