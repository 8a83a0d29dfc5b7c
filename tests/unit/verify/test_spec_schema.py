"""The published schema is the code's own, and takes what the code takes."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from deadweight.verify.spec import schema

REPOSITORY = Path(__file__).parents[3]
PUBLISHED = REPOSITORY / "docs/deadweight.schema.json"
EXAMPLES = [*REPOSITORY.glob("src/deadweight/verify/builtin/*.toml"), *REPOSITORY.glob("examples/*/deadweight.toml")]


def test_the_published_schema_is_that_of_the_code() -> None:
    again = f"{Path(sys.executable).name} -m deadweight.verify.spec.schema > docs/deadweight.schema.json"
    assert PUBLISHED.read_text() == schema.text(), f"out of date; write it again: {again}"


def test_fields_have_their_descriptions() -> None:
    tables = schema.schema()["$defs"]
    run = tables["RunProbe"]["properties"]
    assert run["code"]["description"] == "Python, run by the image's Python instead of a command."
    assert run["must"]["description"].startswith("Whether it has to succeed")
    assert tables["SizeProbe"]["properties"]["max"]["type"] == "string"
    assert "folder" not in tables["Spec"]["properties"]
    assert tables["StartProbe"]["properties"]["kind"]["enum"] == ["start"]
    assert "null" not in json.dumps(tables)


def complaints(*documents: dict[str, Any]) -> list[str]:
    """What jsonschema, which is not ours, says of each document."""
    published = json.loads(PUBLISHED.read_text())
    Draft202012Validator.check_schema(published)
    judge = Draft202012Validator(published)
    return ["; ".join(error.json_path for error in judge.iter_errors(document)) for document in documents]


def test_specifications_that_come_with_deadweight_have_the_schema() -> None:
    assert len(EXAMPLES) >= 1
    documents = [tomllib.loads(path.read_text()) for path in EXAMPLES]
    assert complaints(*documents) == [""] * len(EXAMPLES)


def test_the_schema_refuses_what_the_code_refuses() -> None:
    texts = ["folder = '/'", "defaults = 1", "image.max_size = 3", "probes = []", "[[probe]]\nname = 'x'"]
    texts += ["[[probe]]\nkind = 'import'\nmodule = []", "[[probe]]\nkind = 'start'\nport = 0"]
    found = complaints(*map(tomllib.loads, texts))
    assert all(found), list(zip(texts, found, strict=True))
