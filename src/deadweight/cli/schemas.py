"""The JSON Schemas of the documents that commands write, from the types that they are written from.

python -m deadweight.cli.schemas docs/schemas
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import msgspec

from deadweight.doctor import Diagnosis
from deadweight.plan import Plan
from deadweight.prune import Pruned
from deadweight.report.build import BuildReport, SplitBuildReport
from deadweight.report.cache import CacheReport
from deadweight.report.gpus import GpusReport
from deadweight.report.lint import LintReport, RulesReport
from deadweight.report.model import CompareReport, InspectReport, PlatformsReport, SlimReport, VerifyReport
from deadweight.report.passes import PassesReport
from deadweight.report.prune import WheelReport
from deadweight.report.rollback import RollbackReport
from deadweight.report.split import ImageSplitReport, SplitReport
from deadweight.verify.spec.schema import DIALECT, docstrings

DOCUMENTS: tuple[type[msgspec.Struct], ...] = (
    BuildReport,
    CacheReport,
    CompareReport,
    Diagnosis,
    GpusReport,
    ImageSplitReport,
    InspectReport,
    LintReport,
    PassesReport,
    Plan,
    PlatformsReport,
    Pruned,
    RollbackReport,
    RulesReport,
    SlimReport,
    SplitBuildReport,
    SplitReport,
    VerifyReport,
    WheelReport,
)


def schema(document: type[msgspec.Struct]) -> dict[str, Any]:
    """The schema of a document (JSON Schema 2020-12), described by the docstrings of its types' fields."""
    found = msgspec.json.schema(document)
    for struct in _structs(document):
        texts = docstrings([_module(struct)]).get(struct.__name__, {})
        for field in msgspec.structs.fields(struct):
            if field.name in texts:
                found["$defs"][struct.__name__]["properties"][field.encode_name]["description"] = texts[field.name]
    name = name_of(found["$defs"][document.__name__])
    return {"$schema": DIALECT, "$id": file_name(name), "title": name, **found}


def text(document: type[msgspec.Struct]) -> str:
    """The schema as docs/schemas has it."""
    return json.dumps(schema(document), indent=2) + "\n"


def name_of(definition: dict[str, Any]) -> str:
    """What documents of a schema have as `schema`: `deadweight.inspect/1`."""
    (name,) = definition["properties"]["schema"]["enum"]
    return str(name)


def file_name(name: str) -> str:
    """The file for a document's `schema`: `inspect-1.json`."""
    return f"{name.removeprefix('deadweight.').replace('/', '-')}.json"


def write(folder: Path) -> None:
    """Writes all schemas to a folder."""
    for document in DOCUMENTS:
        (folder / schema(document)["$id"]).write_text(text(document))


def _structs(root: Any, seen: set[Any] | None = None) -> Iterator[type[msgspec.Struct]]:
    """The structs that a type is made of, each once."""
    seen = set() if seen is None else seen
    if root in seen:
        return
    if isinstance(root, type) and issubclass(root, msgspec.Struct):
        seen.add(root)
        yield root
        for hint in get_type_hints(root).values():
            yield from _structs(hint, seen)
    for part in get_args(root):
        if not isinstance(part, str):
            yield from _structs(part, seen)


def _module(struct: type) -> ModuleType:
    module = inspect.getmodule(struct)
    assert module is not None
    return module


if __name__ == "__main__":
    write(Path(sys.argv[1]))
