"""Directories of tests inside distributions and the application, but for those that something outside imports."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from deadweight.ledger.named import named
from deadweight.passes.application import mentions, python_sources
from deadweight.passes.base import Context, Pass, Proposal, noted
from deadweight.passes.commands import commands
from deadweight.passes.distributions import bytecode
from deadweight.passes.imports import parse, scan, source
from deadweight.passes.test_programs import programs

_DOTTED = re.compile(r"[\w.]{1,500}\.tests?(?:\.[\w.]*)?(?::[\w.]*)?\Z")
NAMES = ("tests", "test")
_COMPARE = frozenset({"startswith", "endswith"})
_TEST_FILES = ("test_", "conftest.py")
_PLACE = re.compile(rb"[\"'/]tests?/")
_RUNNERS = frozenset({"pytest", "py.test", "unittest", "nose2", "tox", "nox", "coverage"})


def propose(context: Context) -> Iterator[Proposal]:
    """Whole directories, with what is in them, and programs that only test, ordered by path."""
    found = _directories(context)
    stays = _needed(context, found)
    for directory in sorted(found.keys() - stays.keys()):
        blocked = next((p for p in found[directory] if not context.may_change(p) and p not in context.gone), None)
        if blocked is not None:
            stays[directory] = f"/{blocked} is to stay"
    context.notes += noted("directories of tests", {f"/{d}": r for d, r in stays.items()})
    removals: dict[str, Proposal] = {}
    for directory in sorted(found.keys() - stays.keys()):
        name, whose = _owner(context, found[directory])
        evidence = f"no module outside imports it, by a static check; {whose}"
        for path in found[directory]:
            for place in (path, *bytecode(context, path), *_parents(path, directory)):
                if place not in removals and context.may_change(place):
                    removals[place] = Proposal("remove", place, f"tests of {name}", evidence)
    for path in programs(context):
        if path not in removals and context.may_change(path):
            evidence = "its help says that it holds Google Test's tests, and the image does not run it"
            removals[path] = Proposal("remove", path, f"a test program of {context.ledger.owner(path).name}", evidence)
    for path in sorted(removals):
        yield removals[path]


def _parents(path: str, top: str) -> Iterator[str]:
    """The directories above a path, up to `top`."""
    while path != top:
        path = posixpath.dirname(path)
        yield path


def _owner(context: Context, paths: Sequence[str]) -> tuple[str, str]:
    owner = context.ledger.owner(paths[0])
    return (owner.name, "listed in its RECORD") if owner.kind == "python" else ("the application", "of no distribution")


# --- what is a directory of tests ----------------------------------------------------------------------


def _directories(context: Context) -> dict[str, list[str]]:
    """The topmost directories of tests, each with its files in order.

    In a distribution: below one of its packages. In the application: those with files that pytest would collect.
    """
    ledger = context.ledger
    sites = {dist.site for dist in ledger.distributions}
    found: dict[str, list[str]] = {}
    application: dict[str, list[str]] = {}
    for path in named(ledger.fs, ledger.facts, "tests", _may_be_a_test):
        if path in context.gone or ledger.fs.nodes[path].kind == "dir":
            continue
        directory = _test_directory(path, sites)
        if directory is None:
            continue
        kind = ledger.owner(path).kind
        if kind == "python" and posixpath.dirname(directory) not in sites:
            found.setdefault(directory, []).append(path)
        elif kind == "application":
            application.setdefault(directory, []).append(path)
    for directory, paths in application.items():
        names = [posixpath.basename(path) for path in paths]
        if any(name.startswith(_TEST_FILES) or name.endswith("_test.py") for name in names if name.endswith(".py")):
            found.setdefault(directory, []).extend(paths)
    return {directory: sorted(paths) for directory, paths in sorted(found.items())}


def _may_be_a_test(path: str) -> bool:
    return "/test" in path and "/include/" not in path  # headers are for development-files


def _test_directory(path: str, sites: Collection[str]) -> str | None:
    """The topmost directory of tests that a path lies in, as seen from its site."""
    start = 0
    for site in sites:
        if path.startswith(f"{site}/") and len(site) + 1 > start:
            start = len(site) + 1
    parts = path[start:].split("/")
    for i, part in enumerate(parts[:-1]):
        if part in NAMES:
            return path[:start] + "/".join(parts[: i + 1])
    return None


# --- what needs them -----------------------------------------------------------------------------------


def _needed(context: Context, found: Mapping[str, list[str]]) -> dict[str, str]:
    """The directories that must stay, each with the reason: also those that only directories that stay import."""
    modules = _modules(context, found)
    stays: dict[str, str] = {}
    for path, word in commands(context.ledger).programs.items():
        directory = _inside(path, found)
        if directory is not None:
            stays.setdefault(directory, f"the image runs {word}")
    for module, word in commands(context.ledger).modules.items():
        for directory in _named(module, modules):
            stays.setdefault(directory, f"the image runs {word}")
    fs = context.ledger.fs
    workdir = str(fs.image.run_config.get("WorkingDir") or "/")
    for word in commands(context.ledger).words:  # `pytest tests/smoke`
        node = fs.resolve(posixpath.join(workdir, word)) if word and len(word) < 4096 and "\0" not in word else None
        directory = None if node is None else _inside(f"{node.path}/", found)
        if directory is not None:
            stays.setdefault(directory, f"the image runs {word}")
    stays.update((d, r) for d, r in _read_by_the_application(context, found).items() if d not in stays)
    for dist in context.ledger.distributions:
        if dist.info not in context.gone:
            for group, name, value in dist.entry_points:
                for directory in _named(value.partition(":")[0].strip(), modules):
                    stays.setdefault(directory, f"{dist.display} names it as its entry point {name} of {group}")
    importers: dict[str | None, list[str]] = {}
    for path in _candidates(context):
        importers.setdefault(_inside(path, found), []).append(path)
    # What lies outside counts, and then what lies in directories that stay: their files are not parsed before.
    todo: list[str | None] = [None, *stays]
    while todo:
        for path in importers.pop(todo.pop(0), ()):
            for directory in sorted(_imports(context, path, modules) - stays.keys()):
                stays[directory] = f"/{path} imports it"
                todo.append(directory)
    return stays


def _read_by_the_application(context: Context, found: Mapping[str, list[str]]) -> dict[str, str]:
    """The application's own directories of tests, where the image runs tests, or its code mentions the place."""
    own = [directory for directory in found if context.ledger.owner(found[directory][0]).kind == "application"]
    if not own:
        return {}
    started = commands(context.ledger)
    words = [*(module.partition(".")[0] for module in started.modules), *map(posixpath.basename, started.programs)]
    runner = next((word for word in words if word in _RUNNERS), None)
    if runner is not None:
        return dict.fromkeys(own, f"the image runs {runner}")
    for path, word in mentions(context, _PLACE):
        place = word.strip("\"'/")
        return dict.fromkeys(own, f"/{path} mentions {place}/")
    return {}


def _inside(path: str, found: Mapping[str, list[str]]) -> str | None:
    """The directory of `found` that a path lies in."""
    path = path.lstrip("/")  # the directory above the root is the root, for ever
    while path:
        path = posixpath.dirname(path)
        if path in found:
            return path
    return None


def _modules(context: Context, found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The dotted names by which directories can be imported: from their site, and from every directory above."""
    modules: dict[str, list[str]] = {}
    sites = sorted({dist.site for dist in context.ledger.distributions}, key=len, reverse=True)
    for directory in found:
        site = next((site for site in sites if directory.startswith(f"{site}/")), None)
        if site is not None:
            modules.setdefault(directory[len(site) + 1 :].replace("/", "."), []).append(directory)
            continue
        parts = directory.split("/")  # the application's: what is on its import path is not known
        for i in range(len(parts)):
            modules.setdefault(".".join(parts[i:]), []).append(directory)
    return modules


def _named(module: str, modules: Mapping[str, list[str]]) -> list[str]:
    """The directories that a dotted name lies in."""
    parts = module.split(".")
    for i in range(1, len(parts) + 1):
        directories = modules.get(".".join(parts[:i]))
        if directories:
            return directories
    return []


def _candidates(context: Context) -> Iterator[str]:
    """Python files that may import a directory of tests."""
    for path, imports in scan(context.ledger, python_sources(context)):
        if imports.tests:
            yield path


def _imports(context: Context, path: str, modules: Mapping[str, list[str]]) -> set[str]:
    """The directories of tests that a file imports, or names in a string."""
    ledger = context.ledger
    key = ledger.fs.nodes[path].inode
    assert key is not None  # it has content
    said = ledger.facts.of("statements", key, _Statements, lambda: _statements(source(ledger, path)))
    if not said.parsed:
        # Too large to parse, or no Python: what it could mean counts.
        data, beside = source(ledger, path), posixpath.dirname(path)
        return {
            directory
            for name, directories in modules.items()
            for directory in directories
            if name.encode() in data or posixpath.dirname(directory) == beside
        }
    found: set[str] = set()
    package = _package(context, path)
    for name in said.names:
        found.update(_named(name, modules))
    for module, level, names in said.froms:
        base = _absolute(module, level, package)
        if base is not None:
            for name in names:
                found.update(_named(f"{base}.{name}".strip("."), modules))
    return found


class _Statements(NamedTuple):
    """What a Python file names: modules that it imports or has in a string, and what it imports from modules."""

    parsed: bool
    names: list[str]
    froms: list[tuple[str | None, int, list[str]]]
    """The module, how many packages up from the file's it is (PEP 328), and what is imported from it."""


def _statements(data: bytes) -> _Statements:
    tree = parse(data)
    if tree is None:
        return _Statements(False, [], [])
    compared = _compared(tree)
    names: dict[str, None] = {}
    froms: list[tuple[str | None, int, list[str]]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            froms.append((node.module, node.level, [alias.name for alias in node.names]))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and _DOTTED.match(node.value)
            and node not in compared
        ):
            names[node.value.partition(":")[0]] = None
    return _Statements(True, list(names), froms)


def _compared(tree: ast.AST) -> set[ast.expr]:
    """The texts that others are only compared with: arguments of `startswith` and `endswith`."""
    found: set[ast.expr] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _COMPARE:
            for argument in node.args:
                found.update(argument.elts if isinstance(argument, ast.Tuple) else (argument,))
    return found


def _package(context: Context, path: str) -> list[str]:
    """The package that a file's relative imports start from, as parts of its dotted name."""
    sites = [dist.site for dist in context.ledger.distributions if path.startswith(f"{dist.site}/")]
    site = max(sites, key=len, default="")
    return posixpath.dirname(path[len(site) + 1 if site else 0 :]).split("/")


def _absolute(module: str | None, level: int, package: Sequence[str]) -> str | None:
    """The module that a `from` statement names; None where it climbs too high."""
    if not level:
        return module
    if level > len(package):
        return None
    parts = package[: len(package) - level + 1]
    return ".".join([*parts, *([module] if module else [])])


PASS = Pass(
    name="tests",
    risk="policy",
    order=50,
    summary="directories of tests, unless a module outside imports them, and programs that only test",
    propose=propose,
)
