"""The JSON Schema of deadweight.toml, for editors: `#:schema deadweight.schema.json` on its first line.

python -m deadweight.verify.spec.schema > docs/deadweight.schema.json
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import msgspec

from deadweight.application import table as application
from deadweight.verify import spec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_UNWRITTEN = ("folder", "notes")


def schema() -> dict[str, Any]:
    """The schema of a specification (JSON Schema 2020-12), described by the docstrings of its structs."""
    found = _without_null(msgspec.json.schema(spec.Spec))
    tables: dict[str, Any] = found["$defs"]
    for name in _UNWRITTEN:
        del tables["Spec"]["properties"][name]
    for table, texts in docstrings((spec, application)).items():
        for base in [name for name in tables if table in _family(name)]:
            for field, text in texts.items():
                if field in tables[base]["properties"]:
                    _describe(tables[base]["properties"][field], text)
    title = {"title": "deadweight.toml", "description": "What deadweight verifies: verify, check and slim --verify."}
    return {"$schema": DIALECT, "$id": "deadweight.schema.json", **title, **found}


def text() -> str:
    """The schema as docs/deadweight.schema.json has it."""
    return json.dumps(schema(), indent=2) + "\n"


def _family(name: str) -> list[str]:
    """The struct of a name and those that it inherits fields from."""
    return [base.__name__ for base in getattr(spec, name).__mro__]


def docstrings(modules: Iterable[ModuleType]) -> dict[str, dict[str, str]]:
    """What stands below each field, by struct: docstrings of attributes, which Python does not keep."""
    found: dict[str, dict[str, str]] = {}
    for table in [each for module in modules for each in ast.parse(inspect.getsource(module)).body]:
        if isinstance(table, ast.ClassDef):
            for field, below in zip(table.body, table.body[1:], strict=False):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(below, ast.Expr)
                    and isinstance(below.value, ast.Constant)
                ):
                    said = " ".join(str(below.value.value).split())
                    found.setdefault(table.name, {})[field.target.id] = said
    return found


def _describe(field: dict[str, Any], said: str) -> None:
    more = field.get("description", "")
    field["description"] = f"{said} {more}".strip()


def _without_null(value: Any) -> Any:
    """The schema without null: TOML has none, a key is left out instead."""
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _without_null(item) for key, item in value.items() if not (key == "default" and _nothing(item))}
    options = [item for item in found.get("anyOf", []) if item != {"type": "null"}]
    if len(options) == 1:
        del found["anyOf"]
        return {**options[0], **found}
    if options:
        found["anyOf"] = options
    if None in found.get("enum", []):
        found["enum"] = [item for item in found["enum"] if item is not None]
    return found


def _nothing(value: Any) -> bool:
    """Whether a default says no more than that a key may be left out."""
    return value is None or value == "" or isinstance(value, dict)


if __name__ == "__main__":
    sys.stdout.write(text())
