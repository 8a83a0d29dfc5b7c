"""A project as two services: the core, which serves the API, and another instance of it that does the inference.

Both are images of the same project: the core without the extra that brings models, the other with it. What tells them
apart is what is installed, and the variable by which the core finds the other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name

from deadweight.application.discover import discover_in
from deadweight.application.import_graph import ImportCheck, check_imports, code_of_project
from deadweight.application.project import MODULES, read_project
from deadweight.application.settings import Setting, settings_of
from deadweight.build.locks import Locks, find_locks
from deadweight.build.pyproject import Pyproject, read_pyproject
from deadweight.build.recipe import Recipe, read_recipe
from deadweight.build.variant import Entry, entries_of
from deadweight.errors import BadInputError, UsageError, shown

CORE: Final = "api-core"
ML: Final = "ml-inference"
PARTS: Final = (CORE, ML)
_URL: Final = re.compile(r"(?:^|_)(?:URL|URI|ENDPOINT|HOST|ADDRESS|SERVER)$")
_INFERENCE: Final = re.compile(
    r"(?:^|_)(?:ML|AI|INFERENCE|MODELS?|EMBED(?:DING|DER)?S?|PREDICT(?:OR|ION)?|NLI|LLM)(?:_|$)"
)
_REMOTE: Final = re.compile(r"(?:^|_)(?:REMOTE|BACKEND|WORKER|UPSTREAM)(?:_|$)")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}\Z")
_DATABASE: Final = re.compile(r"(?:^|_)(?:DATABASE|DB|SQLALCHEMY)(?:_|$)")


@dataclass(frozen=True)
class Split:
    """A project in two parts."""

    extra: str
    core: Recipe
    ml: Recipe
    core_names: frozenset[str]
    """Canonical names of the distributions that the core has."""
    ml_names: frozenset[str]
    """Those that the extra alone brings."""
    entry: str
    """The module that the core's server imports first."""
    variable: str
    """By which the core finds the other; empty where nothing shows it."""
    variable_evidence: str
    databases: tuple[Setting, ...]
    """Variables with the default of a file of SQLite, which a read-only container cannot write."""
    notes: tuple[str, ...]


def read_split(
    folder: Path,
    extra: str,
    *,
    more: Sequence[str] = (),
    entry: str | None = None,
    variable: str | None = None,
) -> Split:
    """The two parts of a project, by the extra that only inference needs; `more` are extras that both have.

    Raises BadInputError where the project has no such extra or nothing tells what the core has, and UsageError where
    the application is not found.
    """
    extra = str(canonicalize_name(extra))
    core = read_recipe(folder, extras=tuple(more))
    ml = read_recipe(folder, extras=(*more, extra))
    project = read_pyproject(folder)
    locks = find_locks(folder, project, (*more, extra), ())
    minor = int(ml.python.partition(".")[2])
    whole = locks.names(project, (*more, extra), minor)
    notes = list(dict.fromkeys([*core.notes, *ml.notes]))
    core_names = _core_names(folder, project, locks, more, minor, core, notes)
    if locks.whole is None:
        whole = _names(project, (*more, extra))
    only = frozenset(whole - core_names)
    if not only:
        raise BadInputError(f"the extra {extra} of {project.name} brings nothing that the core does not have already")
    found = discover_in(read_project(folder).material)
    module = entry or found.app.partition(":")[0]
    code = code_of_project(folder)
    if not module:
        raise UsageError("no application was found: name the module that the server imports, as --entry service.main")
    if module not in code.paths:
        raise UsageError(f"the project has no module {shown(module)}: name another by --entry")
    settings = settings_of(code)
    name, why = _variable(settings, variable)
    databases = [one for one in settings if _DATABASE.search(one.variable) and one.default.startswith("sqlite")]
    return Split(extra, core, ml, core_names, only, module, name, why, tuple(databases), tuple(notes))


def check_split(split: Split) -> ImportCheck:
    """Whether the core ever imports what only the extra brings."""
    forbidden = {module: name for name in split.ml_names for module in modules_of(name)}
    known = {module: name for name in split.core_names for module in modules_of(name)}
    return check_imports(code_of_project(split.core.folder), split.entry, forbidden, known)


def modules_of(name: str) -> list[str]:
    """What the top-level modules of a distribution are likely called; exact for those that are known otherwise."""
    if name in MODULES:
        return [MODULES[name]]
    plain = name.replace("-", "_")
    return [plain, plain.removeprefix("python_")] if plain.startswith("python_") else [plain]


def _core_names(
    folder: Path, project: Pyproject, locks: Locks, more: Sequence[str], minor: int, core: Recipe, notes: list[str]
) -> frozenset[str]:
    """What the core has: by its own lock, by the graph that a lock of the whole shows, or by what is required."""
    if locks.whole is not None and locks.whole.kind != "requirements":
        return locks.names(project, more, minor)
    if locks.whole is None:
        notes.append("there is no lock: only what the project itself requires is known, and not what that requires")
        return _names(project, more)
    own = core.core_lock or core.lock
    if own is not None and own.path != locks.whole.path:
        return frozenset(entry.name for entry in entries_of(folder, own.path) if entry.name)
    entries = list(entries_of(folder, locks.whole.path))
    if not any(entry.via for entry in entries):
        raise BadInputError(
            f"{shown(locks.whole.path)} does not say what requires what, and there is no lock of the core: lock the "
            "core too (uv pip compile pyproject.toml -o requirements/core.txt)"
        )
    return _reached(entries, _names(project, more))


def _reached(entries: Collection[Entry], start: Collection[str]) -> frozenset[str]:
    """What some distributions bring along, by the comments of a lock."""
    brings: dict[str, list[str]] = {}
    for entry in entries:
        for source in entry.via:
            brings.setdefault(source, []).append(entry.name)
    seen = set(start) & {entry.name for entry in entries}
    todo = list(seen)
    while todo:
        for name in brings.get(todo.pop(), ()):
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return frozenset(seen)


def _names(project: Pyproject, extras: Sequence[str]) -> frozenset[str]:
    return frozenset(str(canonicalize_name(one.name)) for one in project.required(extras))


def _variable(settings: Sequence[Setting], asked: str | None) -> tuple[str, str]:
    """The variable by which the core finds the other part, and what shows it."""
    if asked is not None:
        if not _VARIABLE.match(asked):
            raise UsageError(f"--url-variable {shown(asked)} is no name of a variable")
        return asked, "--url-variable"
    urls = [one for one in settings if _URL.search(one.variable.upper()) and not _DATABASE.search(one.variable.upper())]
    for pattern in (_INFERENCE, _REMOTE):
        fitting = [one for one in urls if pattern.search(one.variable.upper())]
        if len(fitting) == 1:
            return fitting[0].variable, f"{fitting[0].path}:{fitting[0].line}"
        if fitting:
            break
    return "", ""


def url_candidates(folder: Path) -> Mapping[str, str]:
    """Variables that look like the address of another service, with the place."""
    found = settings_of(code_of_project(folder))
    return {one.variable: f"{one.path}:{one.line}" for one in found if _URL.search(one.variable.upper())}
