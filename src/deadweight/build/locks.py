"""Which of a project's files are locks, and for which image: the core, the whole, or for developers.

Requirements files say nothing of that. So they are told apart by what they hold: a lock of the core has what the
project requires, one of the whole also what its extras require, and of several the smallest is taken. Where a project
says nothing of its requirements, names decide.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deadweight.application.files import read_inside, read_toml
from deadweight.build.locked import applies, from_directories, names, pylock_packages, runs_on, uv_packages
from deadweight.build.locked import requires_python as locked_python
from deadweight.build.pyproject import Pyproject, strings
from deadweight.build.requirements_file import RequirementsFile, read_requirements_file
from deadweight.errors import shown

SAFE_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+-]*)*\Z")
"""Paths that need no quoting anywhere: in a shell, a Dockerfile, a mount's options."""
_PATTERNS = (
    *("requirements.txt", "requirements/*.txt", "requirements-*.txt", "requirements_*.txt", "*-requirements.txt"),
    *("requirements*.lock", "*.lock", "requirements/*.lock"),
)
_OTHERS = {"poetry.lock": "poetry export", "pdm.lock": "pdm export", "Pipfile.lock": "pipenv requirements --hash"}
_CONSTRAINTS = re.compile(r"constraints?|overrides?")
_DEVELOPERS = re.compile(r"(?:^|[^a-z])(?:dev|develop|development|tests?|testing|ci|docs?|lint|typing)(?:[^a-z]|\Z)")
_WHOLE = re.compile(r"(?:^|[^a-z])(?:all|full|ml|gpu|cuda)(?:[^a-z]|\Z)")
_CORE = re.compile(r"(?:^|[^a-z])(?:requirements|core|base|main|prod|production|runtime|deploy|locked?)(?:[^a-z]|\Z)")


@dataclass(frozen=True)
class Candidate:
    """A file that may be the lock of some image."""

    kind: Literal["uv", "pylock", "requirements"]
    path: str
    names: frozenset[str]
    files: tuple[str, ...]
    """Files that installing from it reads."""
    pinned: bool
    hashes: bool
    minor: int | None = None


@dataclass(frozen=True)
class Locks:
    """The locks of a project's images."""

    core: Candidate | None = None
    whole: Candidate | None = None
    developers: Candidate | None = None
    document: dict[str, Any] = field(default_factory=dict)
    """Of a uv.lock or pylock.toml."""
    notes: tuple[str, ...] = ()

    def names(self, project: Pyproject, extras: Collection[str], minor: int) -> frozenset[str]:
        """Canonical names of the distributions that the image with these extras gets, as far as a lock says."""
        if self.whole is None:
            return frozenset()
        if self.whole.kind == "uv":
            return names(uv_packages(self.document, project.name, extras, minor))
        if self.whole.kind == "pylock":
            return names(pylock_packages(self.document, extras, minor))
        return self.whole.names

    def allows(self, project: Pyproject, extras: Collection[str], minor: int) -> bool:
        """Whether the whole image can be installed on Python 3.`minor`, as far as the lock says."""
        if self.whole is None:
            return True
        if self.whole.kind == "requirements":
            return all(one is None or one.minor in (None, minor) for one in (self.core, self.whole))
        found = (
            uv_packages(self.document, project.name, extras, minor)
            if self.whole.kind == "uv"
            else pylock_packages(self.document, extras, minor)
        )
        return runs_on(found, minor)

    @property
    def requires_python(self) -> str:
        """What a uv.lock or pylock.toml says of Python."""
        return locked_python(self.document)


def find_locks(folder: Path, project: Pyproject, extras: Sequence[str], developers: Sequence[str]) -> Locks:
    """The locks of a project. Raises BadInputError for a uv.lock or pylock.toml that is no TOML."""
    document = read_toml(folder, "uv.lock")
    if document:
        others = from_directories(document, project.name)
        named = ", ".join(others)
        notes = (
            [f"uv.lock takes {named} from directories, which are not copied: build wheels of them"] if others else []
        )
        one = Candidate("uv", "uv.lock", frozenset(), ("uv.lock", "pyproject.toml"), True, True)
        return Locks(one, one, one, document, tuple(notes))
    document = read_toml(folder, "pylock.toml")
    if document:
        one = Candidate("pylock", "pylock.toml", frozenset(), ("pylock.toml",), True, True)
        marked = bool(strings(document.get("extras")))
        notes = (
            [] if marked or not extras else ["pylock.toml marks no extras: it is taken for a lock of the whole image"]
        )
        core = one if marked or not extras else None
        return Locks(core, one, one if developers or project.groups else None, document, tuple(notes))
    return _requirements_files(folder, project, extras, developers)


def _requirements_files(folder: Path, project: Pyproject, extras: Sequence[str], developers: Sequence[str]) -> Locks:
    notes = [
        f"{other} is not read: export it (`{how}`) to a requirements file with hashes"
        for other, how in _OTHERS.items()
        if read_inside(folder, other) is not None
    ]
    found = []
    for path in _paths(folder):
        one = read_requirements_file(folder, path)
        if one is None:
            continue
        odd = [name for name in one.files if not SAFE_PATH.match(name)]
        trouble = one.trouble or (f"{shown(odd[0])} is an unusual name for a lock: rename it" if odd else "")
        if trouble:
            notes.append(f"{shown(path)} is not used: {trouble}")
        else:
            found.append(one)
    core, whole, dev = _by_content(found, project, extras, developers) if project.dependencies else _by_name(found)
    for each in dict.fromkeys(one for one in (core, whole, dev) if one is not None):
        if not each.pinned:
            notes.append(f"{each.path} does not pin every version, so builds differ: lock it (`uv pip compile`)")
    return Locks(_candidate(core), _candidate(whole), _candidate(dev), {}, tuple(notes))


def _paths(folder: Path) -> list[str]:
    """Files that are called like requirements."""
    found = {
        path.relative_to(folder).as_posix(): None
        for pattern in _PATTERNS
        for path in sorted(folder.glob(pattern))
        if path.name not in _OTHERS and not _CONSTRAINTS.search(path.name)
    }
    return list(found)


def _by_content(
    found: Sequence[RequirementsFile], project: Pyproject, extras: Sequence[str], developers: Sequence[str]
) -> tuple[RequirementsFile | None, RequirementsFile | None, RequirementsFile | None]:
    required, wanted = _names(project.required()), _names(project.required(extras))
    development = _names(project.required(developers)) - wanted
    # Some of what developers need is also in other locks: setuptools, say. All of it is in theirs alone.
    theirs = [one for one in found if (development and development <= one.names) or _DEVELOPERS.search(one.path)]
    plain = [one for one in found if one not in theirs]
    core = _smallest([one for one in plain if required <= one.names])
    whole = _smallest([one for one in plain if wanted <= one.names])
    if core is whole and wanted > required:  # it is no lock of the core alone
        core = None
    dev = _smallest([one for one in theirs if development <= one.names]) or _smallest(theirs)
    return core, whole, dev


def _by_name(
    found: Sequence[RequirementsFile],
) -> tuple[RequirementsFile | None, RequirementsFile | None, RequirementsFile | None]:
    dev = [one for one in found if _DEVELOPERS.search(one.path)]
    rest = [one for one in found if one not in dev]
    whole = [one for one in rest if _WHOLE.search(one.path.removeprefix("requirements"))]
    core = [one for one in rest if one not in whole]
    named = [one for one in core if _CORE.search(one.path)] or core
    first = min(named, key=lambda one: (one.path != "requirements.txt", one.path), default=None)
    return first or _smallest(whole), max(whole, key=lambda one: len(one.names), default=first), _smallest(dev)


def _smallest(found: Sequence[RequirementsFile]) -> RequirementsFile | None:
    """The one with the fewest names; pinned ones, then ones with hashes, come first."""
    return min(found, key=lambda one: (not one.pinned, not one.hashes, len(one.names), one.path), default=None)


def _names(requirements: Sequence[Requirement]) -> set[str]:
    """Canonical names of what is required on the machines that images run on."""
    return {
        str(canonicalize_name(one.name))
        for one in requirements
        if one.marker is None or all(applies(str(one.marker), minor) for minor in (11, 12, 13))
    }


def _candidate(one: RequirementsFile | None) -> Candidate | None:
    if one is None:
        return None
    return Candidate("requirements", one.path, one.names, one.files, one.pinned, one.hashes, one.minor)
