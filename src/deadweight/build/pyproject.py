"""pyproject.toml as a recipe needs it: read, checked, and never run.

What goes into a Dockerfile or a command line is checked here: names and extras are letters, digits, `.`, `_` and `-`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from deadweight.application.files import read_inside, read_toml, table
from deadweight.build.history import version_tool
from deadweight.errors import BadInputError, shown

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")
_CLASSIFIER = re.compile(r"Programming Language :: Python :: 3\.(\d{1,2})\Z")
_DEVELOPMENT = re.compile(
    r"(?:dev|devel|develop|development|tests?|testing|docs?|documentation|lint|linting|linters?|typing|types|mypy|"
    r"type-?check(?:ing)?|style|format|bench|benchmarks?|examples?|ci|debug|notebooks?|release|build|pre-commit)\Z"
)
"""Extras and groups for who works on a project."""


@dataclass(frozen=True)
class Pyproject:
    """A project's own description of itself."""

    name: str
    version: str = ""
    """Empty where it is worked out when the project is built."""
    installable: bool = False
    build_requires: tuple[str, ...] = ()
    """Canonical names of what building needs."""
    requires_python: str = ""
    minors: tuple[int, ...] = ()
    """Y of each Python 3.Y that the classifiers name."""
    dependencies: tuple[Requirement, ...] = ()
    extras: Mapping[str, tuple[Requirement, ...]] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    """Of PEP 735, those for developers."""
    scripts: tuple[str, ...] = ()
    metadata: str = "pyproject.toml"
    """The file that states the requirements."""
    dynamic: bool = False
    """Whether it takes a build to know them."""
    version_variable: str | None = None
    """Where the version comes from history: the variable that says it instead, empty where there is none; else None."""
    notes: tuple[str, ...] = ()

    def development(self, extra: str) -> bool:
        """Whether an extra is for developers: by its name, or since it takes in one that is."""
        todo, seen = [extra], set[str]()
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            if _DEVELOPMENT.match(name):
                return True
            own = (one for one in self.extras.get(name, ()) if canonicalize_name(one.name) == self.name)
            todo += [str(canonicalize_name(each)) for one in own for each in one.extras]
        return False

    def required(self, extras: Iterable[str] = ()) -> list[Requirement]:
        """What the project requires, and what these extras add; those that it names of itself are taken apart."""
        found = list(self.dependencies)
        todo, seen = list(extras), set[str]()
        while todo:
            extra = todo.pop()
            if extra in seen:
                continue
            seen.add(extra)
            for one in self.extras.get(extra, ()):
                if canonicalize_name(one.name) == self.name:
                    todo += [str(canonicalize_name(each)) for each in one.extras]
                else:
                    found.append(one)
        return found


def strings(value: Any) -> list[str]:
    """The strings of a list; none of what is no list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def read_pyproject(folder: Path) -> Pyproject:
    """What pyproject.toml says; the folder's name, and little more, where there is none.

    Raises BadInputError for what is no TOML, and for names that no project can have.
    """
    document = read_toml(folder, "pyproject.toml")
    project, poetry = table(document, "project"), table(document, "tool", "poetry")
    notes: list[str] = []
    where = shown(str(folder / "pyproject.toml"))
    extras = {
        _name(name, "an extra", where): _requirements(strings(lines), notes)
        for name, lines in table(project, "optional-dependencies").items()
    }
    if not project:
        extras |= {
            _name(name, "an extra", where): _requirements(strings(lines), notes)
            for name, lines in table(poetry, "extras").items()
        }
    name = project.get("name") or poetry.get("name")
    groups = [_name(one, "a dependency group", where) for one in table(document, "dependency-groups")]
    installable = bool(table(document, "build-system")) or any(
        read_inside(folder, one) is not None for one in ("setup.py", "setup.cfg")
    )
    build_requires = tuple(
        str(canonicalize_name(one.name))
        for one in _requirements(strings(table(document, "build-system").get("requires")), notes)
    )
    version = _version(project.get("version") or poetry.get("version"))
    variable = version_tool(
        table(document, "tool"),
        build_requires,
        stated=bool(version),
        bundled=read_inside(folder, "versioneer.py") is not None,
    )
    return Pyproject(
        name=_name(name, "the project", where) if name else _folder_name(folder),
        version=version if variable is None else "",
        version_variable=variable,
        installable=installable and table(document, "tool", "uv").get("package") is not False,
        build_requires=build_requires,
        requires_python=_specifier(project.get("requires-python"), where),
        minors=tuple(
            sorted(int(match[1]) for one in strings(project.get("classifiers")) if (match := _CLASSIFIER.match(one)))
        ),
        dependencies=_requirements(
            strings(project.get("dependencies"))
            or [name for name in table(poetry, "dependencies") if name != "python" and not project],
            notes,
        ),
        extras=extras,
        groups=tuple(one for one in groups if _DEVELOPMENT.match(one)),
        scripts=tuple(one for one in table(project, "scripts") if _NAME.match(one)),
        metadata="pyproject.toml" if document else "setup.py",
        dynamic=not project or "dependencies" in strings(project.get("dynamic")),
        notes=tuple(notes),
    )


def _name(text: Any, what: str, where: str) -> str:
    if not isinstance(text, str) or not _NAME.match(text) or len(text) > 200:
        raise BadInputError(
            f"{where} calls {what} {shown(str(text))}: names are letters and digits, with . _ - in between; rename it"
        )
    return str(canonicalize_name(text))


def _folder_name(folder: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._")
    return str(canonicalize_name(name[:200])) or "project"


def _version(text: Any) -> str:
    try:
        return str(Version(text)) if isinstance(text, str) else ""
    except InvalidVersion:
        return ""


def _specifier(text: Any, where: str) -> str:
    try:
        return str(SpecifierSet(text)) if isinstance(text, str) else ""
    except InvalidSpecifier:
        raise BadInputError(
            f"{where}: requires-python is {shown(text)}, which is no version specifier: write it as '>=3.11'"
        ) from None


def read_requirement(text: str) -> Requirement:
    """A requirement (PEP 508). Raises InvalidRequirement, and BadInputError for one that nests without end."""
    try:
        return Requirement(text)
    except RecursionError:
        raise BadInputError(
            f"{shown(text, 60)} nests too deep to be read: write it without all those parentheses"
        ) from None


def _requirements(lines: Iterable[str], notes: list[str]) -> tuple[Requirement, ...]:
    found = []
    for line in lines:
        try:
            found.append(read_requirement(line))
        except InvalidRequirement:
            notes.append(f"{shown(line)} is no requirement: passed over")
    return tuple(found)
