"""The application's own Python files, and the distributions that it needs: by its imports and by what starts it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from deadweight.errors import BadInputError
from deadweight.ledger.ledger import Ledger, once_for_ledger
from deadweight.ledger.named import named
from deadweight.ledger.requirements import is_application
from deadweight.passes.base import Context
from deadweight.passes.commands import commands, shebang
from deadweight.passes.imports import really_imported, scan, source

_TEST = re.compile(r"(?:^|/)(?:tests?/|test_[^/]*\.py\Z|[^/]*_test\.py\Z|conftest\.py\Z|noxfile\.py\Z)")
_TEXTS = (".cfg", ".conf", ".env", ".ini", ".json", ".properties", ".sh", ".toml", ".yaml", ".yml")
_REQUIREMENTS = frozenset(
    {"pyproject.toml", "package.json", "package-lock.json"}
)  # what is installed opens nothing yet
_ELSEWHERE = re.compile(r"(?:^|/)(?:\.cache|\.git|node_modules|pkgs)/|^(?:tmp|var/tmp|var/cache)/")


def is_test(path: str) -> bool:
    """Whether a path is that of a test, by the names that pytest goes by."""
    return ("test" in path or path.endswith("noxfile.py")) and _TEST.search(path) is not None


def sources(context: Context) -> list[str]:
    """The application's Python files, tests left out: of distributions installed from a path or URL, and of nobody."""
    return [path for path in _sources(context.ledger) if path not in context.gone]


@once_for_ledger
def _sources(ledger: Ledger) -> list[str]:
    own = {path for dist in ledger.distributions if is_application(dist) for path in dist.files if path.endswith(".py")}
    listed = ledger.owners  # what a package or distribution lists is theirs: most files are
    found = [
        path
        for path, test in _python_sources(ledger)
        if not test and (path in own or (path not in listed and _is_nobodys(ledger, path)))
    ]
    elsewhere = {path for path in own if _ELSEWHERE.search(path) and not is_test(path)}
    if elsewhere:
        wanted = elsewhere.union(found)
        found = [path for path in ledger.fs.nodes if path in wanted]
    # What the image runs counts wherever it lies and whatever its name.
    scanned = set(found)
    for path in commands(ledger).programs:
        node = ledger.fs.nodes[path]
        if node.kind == "file" and path not in scanned and path not in listed:
            if path.endswith(".py"):
                found.append(path)
                continue
            try:
                head = ledger.fs.reader(node)(0, 128)
            except BadInputError:
                continue
            if any("python" in word for word in shebang(head)):
                found.append(path)
    return [path for path in found if ledger.fs.nodes[path].kind == "file"]


def _is_nobodys(ledger: Ledger, path: str) -> bool:
    """Whether no package has a file."""
    return ledger.owner(path).kind in ("application", "system")


def mentions(context: Context, pattern: re.Pattern[bytes]) -> Iterator[tuple[str, str]]:
    """(path, what matched) for each of the application's files that mentions something, the first time it does."""
    for path in sources(context):
        found = pattern.search(source(context.ledger, path))
        if found:
            yield path, found.group().decode("utf-8", "replace").strip()


def configured(context: Context, pattern: re.Pattern[bytes], models: Collection[str]) -> Iterator[tuple[str, str]]:
    """As `mentions`, for the application's text configuration; JSON in the folders of models describes these."""
    for path in context.ledger.fs.nodes:
        folder, _, name = path.rpartition("/")
        if not name.endswith(_TEXTS) or name in _REQUIREMENTS or path in context.gone or _ELSEWHERE.search(path):
            continue
        if (name.endswith(".json") and folder in models) or context.ledger.owner(path).kind != "application":
            continue
        found = pattern.search(source(context.ledger, path))
        if found:
            yield path, found.group().decode("utf-8", "replace").strip()


def needed(context: Context) -> dict[str, str]:
    """The distributions (canonical names) that the application needs, each with the reason, as in `x stays: REASON`."""
    ledger = context.ledger
    found = dict.fromkeys(context.options.roots, "--root names it")
    by_file: dict[str, str] = {}
    by_module: dict[str, list[str]] = {}
    programs = commands(ledger).programs
    for dist in ledger.distributions:
        for path in programs.keys() & dist.files:
            by_file.setdefault(path, dist.name)
        for module in dist.top_level:
            by_module.setdefault(module, []).append(dist.name)
    for path, word in programs.items():
        if path in by_file:
            found.setdefault(by_file[path], f"the image runs {word}")
    for module, word in commands(ledger).modules.items():
        for name in by_module.get(module.partition(".")[0], ()):
            found.setdefault(name, f"the image runs {word}")
    for path, imports in scan(ledger, sources(context)):
        for module in sorted(imports.modules):
            for name in by_module.get(module, ()):
                found.setdefault(name, f"/{path} imports it")
    return found


def importers(context: Context, modules: Iterable[str], leaving: frozenset[str] | set[str]) -> dict[str, str]:
    """For each module that a staying Python file imports, the first such file; tests do not count.

    `leaving` are paths that are about to leave. Modules are top-level names.
    """
    wanted = frozenset(modules)
    found: dict[str, str] = {}
    for path, imports in scan(context.ledger, python_files(context)):
        hits = imports.modules & wanted - found.keys()
        if hits and path not in leaving:
            for module in hits & really_imported(context.ledger, path):
                found[module] = path
    return found


def python_files(context: Context) -> Iterator[str]:
    """Every Python file that stays and could be imported; caches and tests are left out."""
    return (path for path, test in _python_sources(context.ledger) if not test and path not in context.gone)


def python_sources(context: Context) -> Iterator[str]:
    """Every Python file that stays and could be imported, tests too; caches are left out."""
    return (path for path, _ in _python_sources(context.ledger) if path not in context.gone)


@once_for_ledger
def _python_sources(ledger: Ledger) -> list[tuple[str, bool]]:
    """Python files, and whether each is a test's."""
    return [(path, is_test(path)) for path in named(ledger.fs, ledger.facts, "python", _is_python)]


def _is_python(path: str) -> bool:
    return path.endswith(".py") and _ELSEWHERE.search(path) is None
