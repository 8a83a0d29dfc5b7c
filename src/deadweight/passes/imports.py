"""What Python files import, found by regular expressions over their bytes: 15,000 files in about a second.

Too much is found now and then (an import in a docstring), which only keeps things; dynamic imports are not found,
but for those of literal names.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from deadweight.ledger.ledger import Ledger

SOURCE_LIMIT = 4 << 20
"""Bytes: larger files are data that somebody wrote as Python, and not looked into."""

PARSE_LIMIT = 1 << 20  # a tree takes some hundred times the bytes of its source

# A line with the word `import` in it.
_STATEMENT = re.compile(
    rb"(?:.*;)?[ \t]*(?:from[ \t]+([A-Za-z_]\w*)?[\w.]*[ \t]+import\b|import[ \t]+([A-Za-z_][^#;]*))"
)
_BY_NAME = re.compile(rb"(?:import_module|__import__|importorskip|lazy_import|find_spec)\(\s*[rf]?[\"']([A-Za-z_]\w*)")
_LOADS = re.compile(rb"(?:find_library|CDLL|LoadLibrary|dlopen)\(\s*[rf]?[\"']([\w./+-]+)[\"']")
# Names that can mean a directory of tests: `from .tests import x`, `from a import (b, tests)`, "a.tests.b".
_TESTS = re.compile(rb"\btests?\b")
_TESTS_NAME = re.compile(rb"[\"'][\w.]{0,500}\.tests?(?:\.[\w.]{0,500})?(?::[\w.]{0,500})?[\"']")


class Imports(NamedTuple):
    """What one file mentions."""

    modules: frozenset[str]
    """Top-level modules that it imports, absolute."""
    libraries: tuple[str, ...]
    """Shared libraries that it opens by a literal name."""
    tests: bool
    """Whether it may import a module called `test` or `tests`: to be looked at with a parser."""


_NOTHING = Imports(frozenset(), (), False)


def scan(ledger: Ledger, paths: Iterable[str]) -> Iterator[tuple[str, Imports]]:
    """What each of the Python files at `paths` mentions; each file is read once for one ledger."""
    known = [ledger.facts.table("imports", layer.position, Imports) for layer in ledger.image.layers]
    nodes = ledger.fs.nodes
    for path in paths:
        node = nodes[path]
        if node.source is None:
            continue
        table, index = known[node.source_layer], node.source.index
        found = table.get(index)
        if found is None:
            found = table[index] = mentions(source(ledger, path))
        yield path, found


def source(ledger: Ledger, path: str) -> bytes:
    """A file's content; empty when it is too large, or no plain file."""
    node = ledger.fs.nodes[path]
    entry = node.source
    if entry is None or entry.kind != "file" or entry.sparse or not 0 < entry.stored <= SOURCE_LIMIT:
        return b""
    return ledger.image.layers[node.source_layer].tar.read_at(entry.data, entry.stored)


def mentions(data: bytes) -> Imports:
    """What a Python file's bytes mention."""
    if not data:
        return _NOTHING
    names: set[bytes] = set()
    tests = False
    at = data.find(b"import")
    while at >= 0:  # faster by far than one expression over all the bytes
        start = data.rfind(b"\n", 0, at) + 1
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        line = data[start:end].rstrip()
        if line.endswith((b"(", b"\\")) or (b"(" in line and b")" not in line):
            end = _end_of_statement(data, end, line)
        found = _STATEMENT.match(line)
        if found:
            if found[1]:
                names.add(found[1])
            elif found[2]:
                names.update(_of_list(found[2]))
            tests = tests or _TESTS.search(data, start, end) is not None
        elif b"(" in line:
            names.update(_BY_NAME.findall(line))
        at = data.find(b"import", max(end, at + 6))
    if b"importlib" in data and b"find_spec(" in data:
        names.update(_BY_NAME.findall(data))
    libraries = _LOADS.findall(data) if b"ctypes" in data or b"dlopen" in data else []
    return Imports(
        frozenset(_shared(name) for name in names),
        tuple(dict.fromkeys(name.decode("utf-8", "surrogateescape") for name in libraries)),
        tests or _names_tests(data),
    )


def _end_of_statement(data: bytes, end: int, line: bytes) -> int:
    """Where a statement ends that goes on behind the line that ends at `end`."""
    if b"(" in line:
        close = data.find(b")", end)
        return end if close < 0 else close
    while data[end - 1 : end] == b"\\" or data[end - 2 : end] == b"\\\r":
        following = data.find(b"\n", end + 1)
        if following < 0:
            return len(data)
        end = following
    return end


def _of_list(text: bytes) -> Iterator[bytes]:
    """The top-level modules of `a.b as c, d`."""
    for part in text.split(b","):
        words = part.split(None, 1)
        if words:
            yield words[0].partition(b".")[0]


def _names_tests(data: bytes) -> bool:
    """Whether a string literal is the dotted name of something in a directory of tests."""
    at = data.find(b".test")
    while at >= 0:
        start = data.rfind(b"\n", 0, at) + 1
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        if _TESTS_NAME.search(data, start, end):
            return True
        at = data.find(b".test", end)
    return False


def parse(data: bytes) -> ast.Module | None:
    """Python source as a tree; None where it is no Python, or so much that the tree would take too much memory."""
    if len(data) > PARSE_LIMIT:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def really_imported(ledger: Ledger, path: str) -> frozenset[str]:
    """The top-level modules that the file at `path` really imports, by Python's own parser."""
    key = ledger.fs.nodes[path].inode
    assert key is not None  # it has content
    return ledger.facts.of("imported", key, frozenset[str], lambda: imported(source(ledger, path)))


def imported(data: bytes) -> frozenset[str]:
    """The top-level modules that Python source really imports; by `mentions` where it cannot be parsed.

    An import that stands in a docstring does not count; one by a literal name does.
    """
    tree = parse(data)
    if tree is None:
        return mentions(data).modules
    names = {name.decode("utf-8", "surrogateescape") for name in _BY_NAME.findall(data)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return frozenset(names)


_SHARED: dict[bytes, str] = {}


def _shared(name: bytes) -> str:
    """One string for each name: there are 15,000 files, and most names are in many."""
    text = _SHARED.get(name)
    if text is None:
        if len(_SHARED) > 100_000:
            _SHARED.clear()
        text = _SHARED[name] = name.decode("utf-8", "surrogateescape")
    return text
