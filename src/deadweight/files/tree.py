"""What is in a directory: the programs and libraries, by inode, and the files that say something about them.

Symbolic links are never followed, so nothing outside the directory is reached. Only files that begin as ELF files do
are of interest; everything else is only counted.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from deadweight.binary.elf import HEADER, is_elf
from deadweight.binary.target_document import IN_DIRECTORY
from deadweight.errors import BadInputError, EnvironmentFailure, shown
from deadweight.files.replace import LEFTOVER
from deadweight.models.finding import CONFIG, INDEX
from deadweight.models.formats import may_be_model

_OF_MODELS: Final = (CONFIG, INDEX)
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Inode(NamedTuple):
    """One ELF file, with all its names below the directory."""

    paths: list[str]
    status: os.stat_result

    @property
    def outside(self) -> int:
        """How many more names it has elsewhere."""
        return self.status.st_nlink - len(self.paths)


@dataclass
class Tree:
    """What a directory holds. Paths are absolute and free of links, lists of them sorted."""

    root: str
    elf_files: dict[tuple[int, int], Inode] = field(default_factory=dict)
    """By device and inode."""
    models: dict[tuple[int, int], Inode] = field(default_factory=dict)
    """Files that may belong to a model, by their names; likewise."""
    model_links: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    """Symbolic links that are called like such files, by the device and inode of what they lead to."""
    records: list[str] = field(default_factory=list)
    """The RECORD files of distributions."""
    declarations: list[str] = field(default_factory=list)
    """The files that say for which GPUs something was pruned before."""
    leftovers: list[str] = field(default_factory=list)
    """Temporary files of runs that were killed."""
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    """What could not be looked into, and why."""
    links_out: list[str] = field(default_factory=list)
    """Symbolic links to shared libraries and directories elsewhere."""
    bytes: int = 0
    """Of all regular files, each once however many names it has."""


def find_root(directory: str) -> str:
    """Where a directory really is. BadInputError when there is none, EnvironmentFailure when it may not be read."""
    root = os.path.realpath(directory)
    try:
        with os.scandir(root):
            pass
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInputError(f"{shown(directory)} cannot be pruned: {error.strerror}") from None
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {shown(directory)}: {error.strerror}") from None
    return root


def read_tree(root: str) -> Tree:
    """Looks through what `find_root` found."""
    tree = Tree(root)
    seen: set[tuple[int, int]] = set()
    todo = [root]
    while todo:
        here = todo.pop()
        try:
            with os.scandir(here) as listing:
                entries = list(listing)
        except OSError as error:
            tree.unreadable.append((here, _why(error)))
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                todo.append(entry.path)
            elif entry.is_symlink():
                _add_link(tree, entry)
                if _leads_out(entry, root):
                    tree.links_out.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                _add_file(tree, entry.path, seen)
    for inode in (*tree.elf_files.values(), *tree.models.values()):
        inode.paths.sort()
    for paths in (tree.records, tree.declarations, tree.links_out):
        paths.sort()
    return tree


def _add_link(tree: Tree, entry: os.DirEntry[str]) -> None:
    if may_be_model(entry.path) or entry.name in _OF_MODELS:
        with suppress(OSError):  # it leads nowhere
            status = entry.stat()
            tree.model_links.setdefault((status.st_dev, status.st_ino), []).append(entry.path)


def _add_file(tree: Tree, path: str, seen: set[tuple[int, int]]) -> None:
    folder, _, name = path.rpartition("/")
    try:
        status = os.lstat(path)
        key = status.st_dev, status.st_ino
        if key not in seen:
            seen.add(key)
            tree.bytes += status.st_size
        if may_be_model(path) or name in _OF_MODELS:
            tree.models.setdefault(key, Inode([], status)).paths.append(path)
        if name == "RECORD" and folder.endswith(".dist-info"):
            tree.records.append(path)
        elif name == IN_DIRECTORY:
            tree.declarations.append(path)
        elif LEFTOVER.fullmatch(name):
            tree.leftovers.append(path)
        elif key in tree.elf_files:
            tree.elf_files[key].paths.append(path)
        elif status.st_size >= HEADER.size and is_elf(_head(path)):
            tree.elf_files[key] = Inode([path], status)
    except OSError as error:
        tree.unreadable.append((path, _why(error)))


def _head(path: str) -> bytes:
    fd = os.open(path, _FLAGS)
    try:
        return os.pread(fd, 4, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)


def _why(error: OSError) -> str:
    return f"cannot be read: {error.strerror}"


def _leads_out(link: os.DirEntry[str], root: str) -> bool:
    """Whether a symbolic link is to something elsewhere that might have lost weight: a library or a directory."""
    with suppress(OSError):
        if ".so" in link.name or link.is_dir():
            return not f"{os.path.realpath(link.path, strict=True)}/".startswith(f"{root.rstrip('/')}/")
    return False
