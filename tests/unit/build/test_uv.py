"""uv: found, run, and what it says made printable."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from deadweight.build import uv as module
from deadweight.build.uv import Uv, UvFailed, clean, find_uv, parse_epoch, run_uv
from deadweight.errors import EnvironmentFailure, UsageError


def program(path: Path, script: str) -> Uv:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Uv(str(path), "1")


def test_beside_this_python_comes_first_then_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "path").mkdir()
    program(tmp_path / "path/uv", "echo uv 7.0")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "here/python"))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    environment = {"PATH": str(tmp_path / "path")}
    assert find_uv(environment).version == "7.0"
    program(tmp_path / "here/uv", "echo uv 8.0")
    assert find_uv(environment) == Uv(str(tmp_path / "here/uv"), "8.0")
    program(tmp_path / "here/uv", "echo pyenv: uv: command not found >&2; exit 127")  # a shim of nothing
    assert find_uv(environment).version == "7.0"


def test_without_uv_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFailure, match=r"deadweight\[build\]"):
        find_uv({"PATH": str(tmp_path)})


def test_what_depends_on_this_machine_is_not_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VIRTUAL_ENV", "UV_LINK_MODE", "PYTHONPATH", "UV_INDEX_URL"):
        monkeypatch.setenv(name, "mine")
    said = run_uv(program(tmp_path / "uv", "env; umask; pwd"), [], tmp_path, 55, said=False).splitlines()
    names = {line.partition("=")[0] for line in said}
    assert not names & {"VIRTUAL_ENV", "PYTHONPATH"}
    assert {
        "UV_INDEX_URL=mine",
        "UV_LINK_MODE=clone",
        "SOURCE_DATE_EPOCH=55",
        "UV_PYTHON_DOWNLOADS=never",
        "0022",
    } <= set(said)
    assert said[-1] == os.path.realpath(tmp_path)


def test_failures_say_the_last_lines_without_control_characters(tmp_path: Path) -> None:
    script = "echo first; for i in $(seq 40); do echo line $i; done >&2; printf '\\033[31mno\\007 wheel\\n' >&2; exit 2"
    with pytest.raises(UvFailed) as raised:
        run_uv(program(tmp_path / "uv", script), [], tmp_path, 0)
    assert str(raised.value).isprintable()
    assert "no wheel" in str(raised.value)
    assert "line 40" in str(raised.value)
    assert "line 5 " not in str(raised.value)
    assert "line 5\n" in raised.value.output


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("kill -9 $$", "signal 9"),
        ("echo 'error: No space left on device (os error 28)' >&2; exit 2", "no space"),
        ("echo 'error: Failed to fetch: https://index.example/simple/x/' >&2; exit 2", "cannot reach"),
    ],
)
def test_what_the_machine_cannot_do(tmp_path: Path, script: str, why: str) -> None:
    with pytest.raises(EnvironmentFailure, match=why):
        run_uv(program(tmp_path / "uv", script), [], tmp_path, 0)
    with pytest.raises(EnvironmentFailure, match="cannot run"):
        run_uv(Uv(str(tmp_path / "none"), "1"), [], tmp_path, 0)


def test_clean() -> None:
    assert clean(b"\x1b[1;32ma\x1b[0m\tb\xff\n") == "a b\ufffd\n"


def test_epoch() -> None:
    assert parse_epoch({}, 7) == parse_epoch({"SOURCE_DATE_EPOCH": ""}, 7) == 7
    assert parse_epoch({"SOURCE_DATE_EPOCH": "1580601600"}, 7) == 1580601600
    for text in ("-1", "1.5", "now", "9" * 12, "\u0661"):
        with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
            parse_epoch({"SOURCE_DATE_EPOCH": text}, 7)
