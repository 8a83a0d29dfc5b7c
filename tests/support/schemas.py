"""Documents as whoever reads them by the published schemas would: with jsonschema, which is not ours."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

PUBLISHED = Path(__file__).parents[2] / "docs/schemas"


@cache
def judge(name: str) -> Any:
    """What holds documents with this `schema` to what is published of it, and refuses what that does not name."""
    schema = json.loads((PUBLISHED / f"{name.removeprefix('deadweight.').replace('/', '-')}.json").read_text())
    Draft202012Validator.check_schema(schema)
    for definition in schema["$defs"].values():
        definition["additionalProperties"] = definition.get("additionalProperties", False)
    return Draft202012Validator(schema)


def checked(document: dict[str, Any]) -> dict[str, Any]:
    """The document, which is as its schema has it."""
    complaints = [f"{error.json_path}: {error.message}" for error in judge(document["schema"]).iter_errors(document)]
    assert not complaints, complaints[:5]
    return document
