"""Environment variables that an application reads, as far as its sources show: pydantic's settings, os.environ.

Reference: https://docs.pydantic.dev/latest/concepts/pydantic_settings/ (environment variable names).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from deadweight.application.import_graph import Code
from deadweight.application.import_sites import dotted
from deadweight.passes.imports import parse

_READS = frozenset({"getenv", "get"})


@dataclass(frozen=True)
class Setting:
    """A variable."""

    variable: str
    type: str
    """As it is written; empty where it is none of pydantic's."""
    default: str
    """Of a string; empty where there is none, or another."""
    path: str
    line: int


def settings_of(code: Code) -> list[Setting]:
    """The variables that an application reads, in the order of its files."""
    found: dict[str, Setting] = {}
    for path in dict.fromkeys(code.paths.values()):
        data = code.read(path) or b""
        if b"Settings" not in data and b"environ" not in data and b"getenv" not in data:
            continue
        tree = parse(data)
        for one in _of_tree(tree, path) if tree is not None else ():
            found.setdefault(one.variable, one)
    return list(found.values())


def _of_tree(tree: ast.Module, path: str) -> Iterator[Setting]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any("Settings" in dotted(base) for base in node.bases):
            yield from _of_class(node, path)
        elif isinstance(node, ast.Call):
            name = dotted(node.func)
            if name.rpartition(".")[2] in _READS and ("environ" in name or name.endswith("getenv")) and node.args:
                variable = _text(node.args[0])
                if variable:
                    default = _text(node.args[1]) if len(node.args) > 1 else ""
                    yield Setting(variable, "", default, path, node.lineno)
        elif isinstance(node, ast.Subscript) and dotted(node.value).endswith("environ") and _text(node.slice):
            yield Setting(_text(node.slice), "", "", path, node.lineno)


def _of_class(node: ast.ClassDef, path: str) -> Iterator[Setting]:
    """The fields of a settings class; pydantic takes variables in any case, and they are written in capitals."""
    prefix = ""
    for statement in node.body:
        value = statement.value if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(value, ast.Call) and any(dotted(target) == "model_config" for target in targets):
            prefix = _keyword(value, "env_prefix")
        if isinstance(statement, ast.ClassDef) and statement.name == "Config":
            inside = [one for one in statement.body if isinstance(one, ast.Assign)]
            prefix = next((_text(one.value) for one in inside if dotted(one.targets[0]) == "env_prefix"), prefix)
    for statement in node.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        value = statement.value
        default = _text(value) if value is not None else ""
        variable = f"{prefix}{statement.target.id}".upper()
        if isinstance(value, ast.Call) and dotted(value.func).rpartition(".")[2] == "Field":
            default = _keyword(value, "default") or (_text(value.args[0]) if value.args else "")
            variable = _keyword(value, "validation_alias") or _keyword(value, "alias") or variable
        yield Setting(variable, ast.unparse(statement.annotation), default, path, statement.lineno)


def _keyword(call: ast.Call, name: str) -> str:
    return next((_text(one.value) for one in call.keywords if one.arg == name), "")


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
