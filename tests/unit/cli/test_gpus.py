"""`deadweight gpus`: the table of names."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import pytest

from deadweight.binary.gpu import parse_gpus, products
from deadweight.cli import main


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "COLUMNS", "DEADWEIGHT_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def test_people_get_a_table_for_each_generation(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["gpus"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    tables = [part.splitlines() for part in out.strip().split("\n\n")]
    assert [table[0] for table in tables] == [
        "Maxwell",
        "Pascal",
        "Volta",
        "Turing",
        "Ampere",
        "Ada Lovelace",
        "Hopper",
        "Blackwell",
    ]
    rows = [tuple(row.split(None, 2)) for table in tables for row in table[2:]]
    assert rows == [(one.name, f"sm_{one.sm}", one.title) for one in products()]
    assert max(map(len, out.splitlines())) <= 80


def test_programs_get_one_document(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["gpus", "--json", "-"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    document = json.loads(out)
    assert list(document) == ["schema", "gpus"]
    assert document["schema"] == "deadweight.gpus/1"
    assert {"name": "h100", "title": "NVIDIA H100", "generation": "Hopper", "sm": "sm_90"} in document["gpus"]
    assert all(parse_gpus([one["name"]]) == parse_gpus([one["sm"]]) for one in document["gpus"])
    assert len(list(groupby(one["generation"] for one in document["gpus"]))) == 8
    assert main(["gpus", "--json", str(tmp_path / "gpus.json")]) == 0
    assert json.loads((tmp_path / "gpus.json").read_bytes()) == document
    assert "Hopper" in capfd.readouterr().out


def test_a_document_that_cannot_be_written_is_refused_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["gpus", "--json", str(tmp_path)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert "is a directory" in err


def test_help_has_examples_in_80_columns(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["gpus", "--help"]) == 0
    text = capfd.readouterr().out
    assert "Examples:\n" in text
    assert max(map(len, text.splitlines())) <= 80
