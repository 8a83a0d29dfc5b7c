"""The layer with the project itself: its wheel, installed where `PYTHONPATH` names it, and what it reads beside that.

A project is copied before it is built: backends write where they build, and what earlier builds left there is not to
be in the image.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from deadweight.build.backend import build_wheel
from deadweight.build.base import Base, Python
from deadweight.build.dependencies import Host, Progress, silent
from deadweight.build.history import state, tracked
from deadweight.build.ignored import ignored_patterns, is_ignored, is_image
from deadweight.build.pack import Item, Packed, file_item, pack
from deadweight.build.places import APP, APP_LIB, VENV
from deadweight.build.recipe import Recipe
from deadweight.build.stage import Layout, new_stage, platform_words, put_right
from deadweight.build.uv import Uv, UvFailed, run_uv
from deadweight.cache.layers import Cache, Cached, key_of
from deadweight.errors import BadInputError, EnvironmentFailure, shown

FORMAT: Final = 2
"""Of the layer: raised where the same inputs give other bytes than before."""
_LEFT_OUT: Final = frozenset({".hg", ".svn", ".eggs", ".cache", ".ipynb_checkpoints"})
"""Folders that are left out anywhere, beside what no build reads."""


@dataclass(frozen=True)
class _File:
    """A file or link of the project."""

    path: str
    """Below the project."""
    digest: str
    """Of its content, or its target, and whether it is executable."""


class _Tree:
    """The files of a project, as far as they may be part of what is built."""

    def __init__(self, folder: Path, destination: Path, kept: Collection[str] = ()) -> None:
        self.folder = folder
        self._destination = destination
        self._kept = kept
        self._ignored = ignored_patterns(folder)

    def has(self, path: str) -> bool:
        """Whether a path is part of it, where the folders above are: environments, caches and old builds are not."""
        name, place = posixpath.basename(path), self.folder / path
        if path in self._kept:
            return True
        if name in _LEFT_OUT or is_ignored(path, self._ignored):
            return False
        if name == self._destination.name and Path(os.path.realpath(place)) == self._destination:
            return False
        return not (place / "pyvenv.cfg").exists() and not is_image(place)


def project_layer(
    recipe: Recipe,
    base: Base,
    uv: Uv,
    host: Callable[[], Host],
    cache: Cache,
    work: Path,
    epoch: int,
    resources: ExitStack,
    progress: Progress | None,
    destination: Path,
) -> tuple[str, Cached]:
    """The layer and its key: from the cache where no file of the project has changed, or made now.

    The image's `destination` is no part of it, wherever that lies. Building runs the project's own build backend.
    Raises BadInputError where that fails.
    """
    say = progress or silent
    say("looking for changes", 0, 0)
    copy = work / "project"
    place = Path(os.path.realpath(destination))
    tree = _Tree(recipe.folder, place)
    parts = list(_walk(tree, recipe.copied))
    # Where a file that is tracked is missing, its history makes another version of the project.
    kept = tracked(recipe.folder) if recipe.scm_version else ()
    files = (
        list(_copy(_Tree(recipe.folder, place, kept), copy))
        if recipe.installable
        else [_File(path, _digest(tree.folder / path)) for path in parts]
    )
    locks = (recipe.dev_lock, recipe.lock, recipe.core_lock)
    pins = [recipe.folder / lock.path for lock in locks if lock is not None and lock.kind == "requirements"]
    # Who builds may make a version of its history in a way that is not known here.
    dynamic = recipe.installable and not recipe.version and (recipe.folder / ".git").exists()
    history = state(recipe.folder) if dynamic else ""
    key = key_of(
        layer="project",
        format=FORMAT,
        deadweight=version("deadweight"),
        uv=uv.version,
        name=recipe.name,
        installable=recipe.installable,
        copied=parts,
        files=[(file.path, file.digest) for file in files],
        python=msgspec.to_builtins(base.python),
        epoch=epoch,
        history=history,
    )
    # A version that a known tool makes of the history follows from more: from what is staged, say.
    cached = None if recipe.scm_version or history is None else cache.layer(key, resources)
    if cached is not None:
        return key, cached
    items: list[Item] = []
    notes: list[str] = []
    if recipe.installable:
        say("building the project", 0, 0)
        wheel, said = build_wheel(copy, work / "wheel", uv, host().interpreter, cache, pins, epoch)
        notes += said
        if not _is_pure(wheel):
            _check_compiled(wheel, base.python, host())
            notes.append("the project's compiled code was built here: another machine's result may differ")
        say("installing the project", 0, 0)
        items += _installed(wheel, base.python, uv, host(), work, epoch)
    items += _copied(copy if recipe.installable else tree.folder, parts)

    def write(file: BinaryIO) -> Packed:
        return pack({item.path: item for item in items}.values(), file, epoch)

    return key, cache.make(key, write, resources, lambda: (tuple(notes), {}))


def _is_pure(wheel: Path) -> bool:
    """Whether a wheel is for every machine."""
    try:
        return all(tag.abi == "none" and tag.platform == "any" for tag in parse_wheel_filename(wheel.name)[3])
    except InvalidWheelFilename:
        return False


def _check_compiled(wheel: Path, python: Python, host: Host) -> None:
    """Raises BadInputError where compiled code of this machine would not run in the image, whatever its tag says."""
    if not host.builds:
        raise BadInputError(
            f"the project has compiled code ({shown(wheel.name)}), and what is built here does not run under Python "
            f"{python.version} on {platform_words(python)[-1]}: this machine has another Python, machine or C library, "
            "or a newer one; build it on one that has the base's, or in the base itself (deadweight dockerfile)"
        )


def _installed(wheel: Path, python: Python, uv: Uv, host: Host, work: Path, epoch: int) -> list[Item]:
    """The project's wheel, installed: its packages and scripts below `APP_LIB`."""
    stage = new_stage(work / "project-venv", uv, host.interpreter, epoch)
    words = ["pip", "install", "-q", "--no-deps", "--no-index", "--python", str(stage.root / "bin" / "python")]
    try:
        run_uv(uv, [*words, *platform_words(python), str(wheel)], work, epoch)
    except UvFailed as error:
        raise BadInputError(
            f"the project's wheel, {shown(wheel.name)}, does not fit the base's Python {python.version} on "
            f"{platform_words(python)[-1]}: {error}"
        ) from None
    return put_right(stage, python, Layout(APP_LIB.strip("/"), ""), f"{VENV}/bin/python")


def _copied(folder: Path, files: Iterable[str]) -> Iterator[Item]:
    """Files of the project that it reads when it runs, below `APP`, and the directories that they are in."""
    folders: set[str] = set()
    for file in files:
        place = f"{APP.strip('/')}/{file}"
        yield file_item(folder / file, place)
        while "/" in (place := place.rpartition("/")[0]):
            folders.add(place)
    yield from map(Item, sorted(folders))


def _walk(tree: _Tree, parts: Iterable[str]) -> Iterator[str]:
    """The files below some of a project's files and folders, without what is no part of it and what hides."""
    for part in filter(tree.has, parts):
        start = tree.folder / part
        if start.is_dir() and not start.is_symlink():
            for place, folders, names in os.walk(start):
                here = Path(place).relative_to(tree.folder)
                folders[:] = sorted(name for name in folders if name[0] != "." and tree.has((here / name).as_posix()))
                links = [name for name in folders if Path(place, name).is_symlink()]
                for name in sorted([*names, *links]):
                    path = (here / name).as_posix()
                    if name[0] != "." and tree.has(path):
                        yield path
        elif os.path.lexists(start):
            yield part


def _copy(tree: _Tree, to: Path) -> Iterator[_File]:
    """Copies what a build may need of a project; gives the digest of every file."""
    for place, folders, names in os.walk(tree.folder):
        here = Path(place).relative_to(tree.folder)
        kept = [name for name in folders if tree.has((here / name).as_posix())]
        links = [name for name in kept if Path(place, name).is_symlink()]
        folders[:] = sorted(name for name in kept if name not in links)
        (to / here).mkdir()
        for name in sorted([*(name for name in names if tree.has((here / name).as_posix())), *links]):
            source, target = Path(place, name), to / here / name
            try:
                if source.is_symlink():
                    target.symlink_to(os.readlink(source))  # noqa: PTH115
                elif source.is_file():
                    shutil.copy(source, target)
                else:
                    continue  # a socket, say
            except OSError as error:
                raise EnvironmentFailure(f"cannot copy {shown(str(source))}: {error.strerror}") from None
            yield _File((here / name).as_posix(), _digest(target))
    with suppress(OSError):  # whose history some backends make a version of
        (to / ".git").symlink_to((tree.folder / ".git").resolve(strict=True))


def _digest(path: Path) -> str:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return f"-> {os.readlink(path)}".encode("utf-8", "surrogateescape").hex()  # noqa: PTH115
    if not stat.S_ISREG(status.st_mode):
        raise BadInputError(f"{shown(str(path))} is neither file, directory nor link: it cannot be in an image")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest + ("x" if status.st_mode & 0o111 else "")
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {shown(str(path))}: {error.strerror}") from None
