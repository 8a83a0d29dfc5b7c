"""How a project becomes an image: what `deadweight dockerfile` prints, and `deadweight build` carries out.

Both lay the image out alike: the base, dependencies in a virtual environment of their own at `VENV`, and last, so that
a change of code changes one small layer, the application in `APP`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from packaging.utils import canonicalize_name

from deadweight.application.discover import discover_in
from deadweight.application.files import read_inside
from deadweight.application.project import read_project
from deadweight.build.locks import Candidate, find_locks
from deadweight.build.parts import copied_parts, serving
from deadweight.build.places import APP, APP_LIB, UID, USER, VENV
from deadweight.build.pyproject import Pyproject, read_pyproject
from deadweight.build.pythons import newest
from deadweight.build.system import system_packages
from deadweight.errors import BadInputError, shown

__all__ = ["APP", "APP_LIB", "UID", "USER", "VENV", "Lock", "Recipe", "read_recipe"]


@dataclass(frozen=True)
class Lock:
    """A file that names every distribution and its version."""

    kind: Literal["uv", "pylock", "requirements"]
    """uv.lock; PEP 751's pylock.toml; or what `uv pip compile` and pip-tools write."""
    path: str
    """Below the project."""
    hashes: bool
    """Whether it states the hash of every file."""
    files: tuple[str, ...] = ()
    """All that installing from it reads: itself, what it includes by -r and -c, pyproject.toml beside uv.lock."""
    pinned: bool = True
    """False for a requirements file that leaves versions open: then there is nothing better."""


@dataclass(frozen=True)
class Recipe:
    """What a project's image is made of."""

    folder: Path
    """The project."""
    name: str
    """As pyproject.toml says it, normalised; the folder's name where it says none."""
    installable: bool
    """Whether it has a build system: then it is installed into `APP_LIB`; else its files are copied to `APP`."""
    requires_python: str
    """A version specifier; empty where none is stated."""
    extras: tuple[str, ...]
    """Those of the whole image: all but what developers need, unless said otherwise."""
    dev_extras: tuple[str, ...]
    """Those that INCLUDE_DEV adds."""
    core_lock: Lock | None
    """For the image without extras; None where there is no lock: versions are then resolved anew each time."""
    lock: Lock | None
    """For the whole image. The same uv.lock serves both."""
    dev_lock: Lock | None
    """For developers, to be installed beside the core's or the whole one."""
    packages: tuple[str, ...]
    """Debian packages that the running service needs: of shared libraries and programs. The health check
    is asked by the image's Python, and by curl where that is asked for."""
    build_packages: tuple[str, ...]
    """Debian packages that only installing needs: compilers and headers."""
    command: tuple[str, ...]
    """What the container runs; empty where no application was found."""
    port: int | None
    health: str
    """The path of the health check; empty where there is none."""
    copied: tuple[str, ...]
    """Files and folders of the project that it reads when it runs, beside its package, or all of it where it is not
    installable. Paths below the project, which they keep below `APP`."""
    notes: tuple[str, ...]
    """What was assumed, and what could not be found."""
    version: str = ""
    """The project's; empty where only building it tells."""
    python: str = "3.13"
    """The newest Python, as X.Y, that the project and its lock allow."""
    python_path: tuple[str, ...] = ()
    """PYTHONPATH."""
    dev_groups: tuple[str, ...] = ()
    """Dependency groups (PEP 735) that INCLUDE_DEV adds."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why each of `packages` is needed."""
    metadata: str = "pyproject.toml"
    """The file that states the requirements, for uv to resolve where there is no lock."""
    dynamic: bool = False
    """Whether the requirements are not in `metadata` as they are: building the project tells them."""
    scm_version: bool = False
    """Whether building the project asks version control for its version, which an engine's build does not see."""
    required: tuple[str, ...] = ()
    """Canonical names of what the project itself asks for, with the extras of the whole image."""
    version_variable: str = ""
    """What says the version in its place; empty where nothing does."""


def read_recipe(folder: Path, *, extras: tuple[str, ...] | None = None) -> Recipe:
    """The recipe of a project directory; nothing of it is run. `extras` None: all but those for development.

    Raises BadInputError where there is no project, or an extra that it does not have.
    """
    _check_project(folder)
    project = read_pyproject(folder)
    dev = tuple(extra for extra in project.extras if project.development(extra))
    wanted = _extras(project, extras, dev)
    dev = tuple(extra for extra in dev if extra not in wanted)
    locks = find_locks(folder, project, wanted, dev)
    notes = [*project.notes, *locks.notes]
    if locks.whole is None:
        notes.append(
            "no lock was found (uv.lock, pylock.toml, requirements*.txt): versions are resolved anew each time; "
            "`uv lock` pins them"
        )
    if locks.core is None and locks.whole is not None and wanted:
        bound = (
            f"it takes its versions from {locks.whole.path}"
            if locks.whole.kind == "requirements"
            else "nothing pins it"
        )
        notes.append(f"no lock was found for the image without extras: {bound}")
    python, why = newest(folder, project, locks, wanted)
    notes += why
    names = locks.names(project, wanted, int(python.partition(".")[2])) | {
        str(canonicalize_name(one.name)) for one in project.required(wanted)
    }
    found = discover_in(read_project(folder).material)
    service = serving(folder, project, found, names, wanted)
    copied, python_path = copied_parts(folder, project, service.file)
    reasons, building = system_packages(names)
    return Recipe(
        folder=folder,
        name=project.name,
        version=project.version,
        installable=project.installable,
        requires_python=project.requires_python,
        python=python,
        extras=wanted,
        dev_extras=dev,
        dev_groups=project.groups,
        core_lock=_lock(locks.core),
        lock=_lock(locks.whole),
        dev_lock=_lock(locks.developers),
        packages=tuple(reasons),
        reasons=reasons,
        build_packages=building,
        command=service.command,
        port=service.port,
        health=service.health,
        copied=copied,
        python_path=python_path,
        metadata=project.metadata,
        dynamic=project.dynamic,
        notes=tuple(dict.fromkeys([*notes, *service.notes])),
        scm_version=project.version_variable is not None,
        version_variable=project.version_variable or "",
        required=tuple(dict.fromkeys(str(canonicalize_name(one.name)) for one in project.required(wanted))),
    )


def _check_project(folder: Path) -> None:
    if "\0" in str(folder) or not folder.is_dir():
        raise BadInputError(f"there is no directory {shown(str(folder))}: name the folder of a Python project")
    signs = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "uv.lock", "pylock.toml")
    if not any(read_inside(folder, sign) is not None for sign in signs) and not list(
        folder.glob("requirements*/*.txt")
    ):
        raise BadInputError(
            f"{shown(str(folder))} is no Python project: it has none of {', '.join(signs)}; name another folder"
        )


def _extras(project: Pyproject, extras: tuple[str, ...] | None, dev: tuple[str, ...]) -> tuple[str, ...]:
    if extras is None:
        return tuple(extra for extra in project.extras if extra not in dev)
    wanted = [str(canonicalize_name(extra)) for extra in extras]
    for extra in wanted:
        if extra not in project.extras:
            there = ", ".join(project.extras) or "none"
            raise BadInputError(f"{project.name} has no extra {shown(extra)}; there are: {there}")
    return tuple(dict.fromkeys(wanted))


def _lock(one: Candidate | None) -> Lock | None:
    return Lock(one.kind, one.path, one.hashes, one.files, one.pinned) if one is not None else None
