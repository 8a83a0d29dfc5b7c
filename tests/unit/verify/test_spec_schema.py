"""The published schema is the code's own, and takes what the code takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from deadweight.verify.spec import schema
from support.cuda import oracle

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


def complaints(folder: Path, *documents: dict[str, Any]) -> list[str]:
    """What jsonschema, which is not ours, says of each document."""
    schema_file = folder / "schema.json"
    schema_file.write_text(schema.text())
    code = (
        "import json, sys\n"
        "from jsonschema import Draft202012Validator as V\n"
        "schema = json.load(open(sys.argv[1])); V.check_schema(schema)\n"
        "print(json.dumps(['; '.join(e.json_path for e in V(schema).iter_errors(d)) for d in json.load(sys.stdin)]))\n"
    )
    done = subprocess.run(
        [oracle("bin/python"), "-c", code, schema_file],
        input=json.dumps(documents),
        capture_output=True,
        text=True,
        check=False,
    )
    if "No module named 'jsonschema'" in done.stderr:
        pytest.fail("no jsonschema in .venv-oracles: run scripts/setup.sh test")
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_specifications_that_come_with_deadweight_have_the_schema(tmp_path: Path) -> None:
    assert len(EXAMPLES) >= 1
    documents = [tomllib.loads(path.read_text()) for path in EXAMPLES]
    assert complaints(tmp_path, *documents) == [""] * len(EXAMPLES)


def test_the_schema_refuses_what_the_code_refuses(tmp_path: Path) -> None:
    texts = ["folder = '/'", "defaults = 1", "image.max_size = 3", "probes = []", "[[probe]]\nname = 'x'"]
    texts += ["[[probe]]\nkind = 'import'\nmodule = []", "[[probe]]\nkind = 'start'\nport = 0"]
    found = complaints(tmp_path, *map(tomllib.loads, texts))
    assert all(found), list(zip(texts, found, strict=True))
