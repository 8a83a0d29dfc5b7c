"""Imports go one way: down the rooms."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import deadweight

ROOT = Path(deadweight.__file__).parent
TESTS = Path(__file__).parents[1]
ALLOWED = {
    "errors": set[str](),
    "decoding": set[str](),
    "sizes": {"errors"},
    "entries": {"decoding"},
    "image": {"errors", "decoding", "entries"},
    "cache": {"errors", "sizes", "entries", "image"},
    "binary": {"errors", "decoding", "image"},
    "models": {"errors", "image"},
    "ledger": {"errors", "image", "binary", "cache"},
    "passes": {"errors", "decoding", "image", "binary", "models", "ledger", "cache"},
    "plan": {"errors", "decoding", "image", "passes"},
    "planning": {"errors", "image", "binary", "ledger", "passes", "plan"},
    "apply": {"errors", "cache", "binary", "image", "ledger", "passes", "plan", "planning", "swap"},
    "swap": {"errors", "sizes", "image", "binary", "ledger", "files", "passes", "plan", "planning"},
    "doctor": {"errors", "decoding", "image", "binary"},
    "files": {"errors", "decoding", "image", "binary", "models", "ledger"},
    "prune": {"errors", "image", "binary", "models", "ledger", "files"},
    "wheel": {"errors", "image", "binary", "ledger", "files"},
    "application": {"errors", "image", "ledger", "passes"},
    "verify": {
        *(
            "errors",
            "decoding",
            "sizes",
            "image",
            "binary",
            "models",
            "ledger",
            "files",
            "application",
            "passes",
            "plan",
            "planning",
        ),
        "swap",
    },
    "build": {
        "errors",
        "sizes",
        "cache",
        "image",
        "binary",
        "ledger",
        "files",
        "prune",
        "application",
        "passes",
        "plan",
        "planning",
    },
    "report": {
        "errors",
        "decoding",
        "sizes",
        "cache",
        "image",
        "ledger",
        "models",
        "application",
        "files",
        "passes",
        "plan",
        "planning",
        "apply",
        "prune",
        "wheel",
        "verify",
        "build",
    },
    "sbom": {"errors", "image", "ledger", "models", "passes", "plan", "planning", "apply", "report"},
    "explore": {"sizes", "report"},
    "cli": {
        *("errors", "sizes", "image", "binary", "ledger", "passes", "plan", "apply", "report", "doctor", "prune"),
        *(
            "planning",
            "wheel",
            "files",
            "application",
            "verify",
            "build",
            "swap",
            "sbom",
            "explore",
            "cache",
            "__init__",
        ),
    },
    "__init__": {"errors", "binary", "image", "ledger", "passes", "plan", "planning", "apply"},
    "__main__": {"cli"},
}


def rooms_imported(source: str) -> set[str]:
    """The rooms that a module's imports name, wherever in it they stand."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names = [node.module or ""]
            if node.module == "deadweight":
                names = [f"deadweight.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] == "deadweight":
                room = name.split(".")[1] if "." in name else "__init__"
                found.add(room if room in ALLOWED else "__init__")
    return found


def test_rooms_import_only_what_lies_below() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for other in rooms_imported(path.read_text()) - {room} - ALLOWED[room]:
            wrong.append(f"{path.relative_to(ROOT)} imports deadweight.{other}")
    assert not wrong


def test_one_module_has_documents_decoded_by_types() -> None:
    """msgspec is not safe for threads where it first looks at a type: see decoding.py."""
    by_type = re.compile(r"msgspec\.convert\(|msgspec\.(json|msgpack)\.(Decoder\(|decode\([^\n]*\btype=)")
    assert [path.name for path in ROOT.rglob("*.py") if by_type.search(path.read_text())] == ["decoding.py"]


def test_no_regular_expression_needs_a_newer_python() -> None:
    """Possessive groups are wrong before Python 3.11.5, and Debian 12 has 3.11.2: python/cpython#106052."""
    possessive = re.compile(r"\br[bf]?[\"'].*(\)[*+?]\+|\(\?>)")
    assert not [path for path in ROOT.rglob("*.py") if possessive.search(path.read_text())]


def test_names_of_test_modules_are_their_own() -> None:
    """pytest imports two of one name only where neither lies in bytecode of the other."""
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_the_check_sees_imports_everywhere() -> None:
    source = "def f():\n    from deadweight.cli import main\n"
    assert rooms_imported(source) == {"cli"}
