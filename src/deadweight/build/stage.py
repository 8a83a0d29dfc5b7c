"""A staged environment: where uv installs, and what is put right there so that it is the same wherever it was made.

uv installs into a virtual environment, so that every kind of file goes where it belongs in one. Of that the image gets
what the installed distributions have brought; the environment itself is written by `venv.py`. Scripts begin with the
image's interpreter, and nothing tells of this machine's folders or times; RECORD files follow.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from deadweight.build.base import Python
from deadweight.build.pack import Item, file_item
from deadweight.build.uv import Uv, run_uv
from deadweight.errors import BadInputError, shown
from deadweight.files.records import encode_hash
from deadweight.ledger.record import read_record

_RELOCATABLE: Final = re.compile(
    rb"#!/bin/sh\n'''exec' \"\$\(dirname -- \"\$\(realpath -- \"\$0\"\)\"\)\"/'python' \"\$0\" \"\$@\"\n' '''\n"
)
"""How uv begins a script in an environment that may be moved."""
_TELLING: Final = ("direct_url.json", "uv_cache.json", "uv_build.json")
"""Of what uv leaves in metadata, what may tell of this machine."""


@dataclass(frozen=True)
class Stage:
    """A staged environment."""

    root: Path
    site: Path
    """Its site-packages."""
    own: frozenset[str]
    """What the environment has of itself, as paths below its root: not for the image."""


def new_stage(root: Path, uv: Uv, interpreter: str, epoch: int) -> Stage:
    """An empty environment at `root`, for which the host's `interpreter` stands in for the image's."""
    run_uv(uv, ["venv", "-q", "--no-project", "--relocatable", "--python", interpreter, str(root)], root.parent, epoch)
    site = next(root.glob("lib/python3*/site-packages"))
    own = (path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return Stage(root, site, frozenset(path.relative_to(root).as_posix() for path in own))


def platform_words(python: Python) -> list[str]:
    """What tells uv for which Python, machine and C library it resolves."""
    return ["--python-version", python.full_version, "--python-platform", platform(python)]


def platform(python: Python) -> str:
    """The newest platform that uv knows and the image's C library is good for."""
    if python.musl:
        return f"{python.machine}-unknown-linux-musl"
    known = [(2, 17), (2, 28), *((2, minor) for minor in range(31, 41))]
    good = [one for one in known if one <= python.glibc]
    if not good:
        major, minor = python.glibc
        raise BadInputError(
            f"the base's C library, {major}.{minor}, is older than wheels are made for: take a newer base"
        )
    return f"{python.machine}-manylinux_{good[-1][0]}_{good[-1][1]}"


@dataclass(frozen=True)
class Layout:
    """Where what was installed goes in the image."""

    root: str
    """Without a leading `/`."""
    site: str
    """The directory that Python imports from, below the root; empty where that is the root itself."""


def put_right(stage: Stage, python: Python, layout: Layout, interpreter: str) -> list[Item]:
    """Makes what was installed independent of this machine; gives it as entries for the image.

    Scripts begin with `interpreter`. RECORD files list every file where it will be. Raises BadInputError where two
    files would be in one place.
    """
    scripts = dict(_scripts(stage, interpreter))
    for info in sorted(stage.site.glob("*.dist-info")):
        _rewrite_record(stage, info, _untell(info), scripts, python, layout)
    found: dict[str, Item] = {}
    for path in _files(stage):
        place = f"{layout.root}/{_place(stage, path, python, layout)}"
        if place in found:
            raise BadInputError(f"two of the files that are installed would be {shown('/' + place)}")
        found[place] = file_item(stage.root / path, place)
    folders = {str(folder) for place in found for folder in PurePosixPath(place).parents}
    above = {str(folder) for folder in PurePosixPath(layout.root).parents}
    return [*(Item(folder) for folder in sorted(folders - above)), *found.values()]


def _place(stage: Stage, path: str, python: Python, layout: Layout) -> str:
    """Where a file of the stage goes, below the layout's root."""
    host = stage.site.parent.name
    site = f"lib/{host}/site-packages/"
    if path.startswith(site):
        return posixpath.join(layout.site, path[len(site) :])
    for folder in (f"lib/{host}/", f"include/site/{host}/"):
        if path.startswith(folder):
            return f"{posixpath.dirname(folder[:-1])}/python{python.version}/{path[len(folder) :]}"
    return path


def _scripts(stage: Stage, interpreter: str) -> Iterator[tuple[str, tuple[str, int]]]:
    """Gives scripts their first line; yields the hash and size of each that changed, by its path in the stage."""
    folder = stage.root / "bin"
    for path in sorted(folder.iterdir()):
        name = f"bin/{path.name}"
        if name in stage.own or path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            if file.read(2) != b"#!":
                continue
            data = b"#!" + file.read()
        match = _RELOCATABLE.match(data)
        new = f"#!{interpreter}\n".encode() + data[match.end() :] if match else data
        if os.fsencode(stage.root) in new:
            raise BadInputError(
                f"the script {shown(path.name)} names a folder of this machine: it cannot be in an image"
            )
        if match:
            _replace(path, new)
            yield name, (encode_hash(hashlib.sha256(new).digest()), len(new))


def _untell(info: Path) -> set[str]:
    """Removes from metadata what tells of this machine; gives the names as RECORD has them.

    The origin of what came from the net stays: it is the same everywhere.
    """
    gone = set()
    for name in _TELLING:
        path = info / name
        if path.is_file() and (name != "direct_url.json" or b'"file:' in path.read_bytes()):
            path.unlink()
            gone.add(f"{info.name}/{name}")
    return gone


def _rewrite_record(
    stage: Stage, info: Path, gone: set[str], scripts: Mapping[str, tuple[str, int]], python: Python, layout: Layout
) -> None:
    """Brings a RECORD up to date with what changed, and with where things go."""
    record = info / "RECORD"
    if not record.is_file():
        return
    site = stage.site.relative_to(stage.root).as_posix()
    lines = []
    for line in read_record(record.read_bytes()):
        if line.name in gone:
            continue
        if not line.name.startswith("../"):  # nearly all: in site-packages, where nothing changed
            lines.append(line.raw)
            continue
        path = posixpath.normpath(f"{site}/{line.name}")
        name = posixpath.relpath(_place(stage, path, python, layout), layout.site or ".")
        changed = scripts.get(path)
        if changed is None and name == line.name:
            lines.append(line.raw)
            continue
        digest, size = (f"sha256={changed[0]}", str(changed[1])) if changed else (line.hash, line.size)
        quoted = '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\n\r') else name
        lines.append(f"{quoted},{digest},{size}\n".encode("utf-8", "surrogateescape"))
    _replace(record, b"".join(lines))


def _replace(path: Path, data: bytes) -> None:
    """A new file in the place of one that may have other names, in uv's cache."""
    mode = path.stat().st_mode
    new = path.with_name(f".{secrets.token_hex(8)}")
    new.write_bytes(data)
    new.chmod(mode & 0o777)
    new.replace(path)


def _files(stage: Stage) -> Iterator[str]:
    """What was installed, as paths below the root."""
    for folder, folders, names in os.walk(stage.root):
        here = Path(folder).relative_to(stage.root).as_posix()
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in [*names, *links]:
            path = name if here == "." else f"{here}/{name}"
            if path not in stage.own and path != ".lock" and "/__pycache__/" not in path:
                yield path
