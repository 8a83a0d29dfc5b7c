"""What uv's own settings would make of a build: they may name another place to install to.

Indexes and what else they say of where distributions come from is meant for us too, so they are not switched off.

Reference: https://docs.astral.sh/uv/concepts/configuration-files/.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from packaging.utils import canonicalize_name

from deadweight.application.files import read_toml, table
from deadweight.build.pyproject import strings
from deadweight.errors import BadInputError, shown

_ELSEWHERE: Final = ("target", "prefix")
_REPLACING: Final = ("override-dependencies", "exclude-dependencies")
_NAME: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def check_settings(folder: Path, environment: Mapping[str, str]) -> None:
    """Raises BadInputError where settings that uv reads for the project in `folder` let it install elsewhere.

    No option of uv takes that back, and the image would be without what was installed.
    """
    for path, settings in _settings(folder, environment):
        stated = [name for name in _ELSEWHERE if name in table(settings, "pip")]
        if stated:
            raise BadInputError(
                f"{shown(str(path))} has uv install elsewhere ({stated[0]} in its table pip): nothing of that would be "
                "in the image; remove it, or set it where it is needed (UV_TARGET, --target)"
            )


def overridden(folder: Path) -> frozenset[str]:
    """Canonical names of the distributions whose requirements the project's settings replace or leave out."""
    found = _nearest(folder)
    if found is None:
        return frozenset()
    lines = [line for name in _REPLACING for line in strings(found[1].get(name))]
    names = (_NAME.match(line) for line in lines)
    return frozenset(canonicalize_name(name[1]) for name in names if name)


def _settings(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The settings that uv merges, by the files that they are in."""
    if file := environment.get("UV_CONFIG_FILE"):
        yield Path(file), _read(Path(folder, file))
        return
    if environment.get("UV_NO_CONFIG", "").lower() in ("1", "true", "yes", "on", "y", "t"):
        return
    found = _nearest(folder)
    if found is not None:
        yield found
    # As the specification of XDG says, a relative path there is to be ignored.
    homes = [environment.get("XDG_CONFIG_HOME", ""), f"{environment.get('HOME', '')}/.config"]
    system = [*environment.get("XDG_CONFIG_DIRS", "").split(":"), "/etc/xdg", "/etc"]
    for places in (homes, system):
        files = (Path(place, "uv", "uv.toml") for place in places if place.startswith("/"))
        file_there = next((path for path in files if path.is_file()), None)
        if file_there is not None:
            yield file_there, _read(file_there)


def _nearest(folder: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """Those of a project: of its folder, or the first above that has some."""
    here = folder.absolute()
    return next(filter(None, map(_of_folder, (here, *here.parents))), None)


def _of_folder(folder: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """What a folder states: uv.toml, else the table of pyproject.toml."""
    if (folder / "uv.toml").is_file():
        return folder / "uv.toml", _read(folder / "uv.toml")
    settings = table(_read(folder / "pyproject.toml"), "tool", "uv")
    return (folder / "pyproject.toml", settings) if settings else None


def _read(path: Path) -> dict[str, Any]:
    """A TOML file; empty where it is none, of which uv says so itself."""
    try:
        return read_toml(path.parent, path.name)
    except BadInputError:
        return {}
