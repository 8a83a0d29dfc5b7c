"""`build --slim`: what only tests and compilers read leaves the new layers, and what the application imports stays."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from support.projects import DEADWEIGHT, build, diff_ids, lock, project, write_base

pytestmark = pytest.mark.xdist_group("build")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str, dict[str, Any], dict[str, Any]]:
    """The project, the base, the destination, and the reports without and with --slim; greenlet brings headers."""
    work = tmp_path_factory.mktemp("slim")
    folder = project(work / "project")
    lock(folder, "--extra", "more")
    base, to = write_base(work / "base"), f"oci:{work / 'out'}:svc"
    words = ("--cache", str(work / "cache"))
    return folder, base, to, build(folder, base, f"{to}-whole", *words), build(folder, base, to, *words, "--slim")


def paths(service: tuple[Path, str, str, dict[str, Any], dict[str, Any]], report: dict[str, Any]) -> set[str]:
    digest = next(layer["diff_id"] for layer in report["layers"] if layer["name"] == "dependencies")
    with tarfile.open(service[0].parent / "cache/blobs" / digest[7:]) as tar:
        return {member.name for member in tar}


def test_tests_and_headers_leave_and_the_rest_stays(service: Any) -> None:
    _, _, _, whole, slim = service
    before, after = paths(service, whole), paths(service, slim)
    assert after < before
    gone = before - after
    site = "opt/venv/lib/python3.11/site-packages/greenlet"
    assert {f"{site}/tests/__init__.py", f"{site}/greenlet.h"} <= gone
    read_by_compilers = (".h", ".hpp", ".pyi", ".c", ".cpp")
    odd = [path for path in gone if "/tests" not in path and not path.endswith(read_by_compilers)]
    assert [path for path in odd if "/include" not in path] == []
    names = ("base", "base", "user", "project")
    kept = [[layer["diff_id"] for layer in one["layers"] if layer["name"] in names] for one in (whole, slim)]
    assert kept[0] == kept[1]
    assert slim["bytes"] < whole["bytes"]
    assert any("are left out" in note for note in slim["notes"])


def test_it_still_does_the_same(service: Any, tmp_path: Path) -> None:
    _, _, to, _, _ = service
    spec = tmp_path / "spec.toml"
    spec.write_text('[[probe]]\nkind = "http"\npath = "/health"\nstatus = 200\nmust = true\n')
    words = [DEADWEIGHT, "check", to, "--spec", spec, "--import", "greenlet"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    verified = subprocess.run(
        [DEADWEIGHT, "verify", f"{to}-whole", to, "--spec", spec], capture_output=True, text=True, check=False
    )
    assert "behave the same" in verified.stdout, verified.stdout + verified.stderr


def test_a_second_time_it_comes_from_the_cache(service: Any) -> None:
    folder, base, to, _, slim = service
    again = build(folder, base, to, "--cache", str(folder.parent / "cache"), "--slim")
    assert diff_ids(again) == diff_ids(slim)
    assert all(layer["cached"] for layer in again["layers"])
    assert again["notes"] == slim["notes"]


def test_tests_that_the_application_imports_stay(service: Any) -> None:
    folder, base, to, whole, _ = service
    main = folder / "src/svc/main.py"
    text = main.read_text()
    try:
        main.write_text(text + "\n\ndef later():\n    import greenlet.tests.leakcheck\n")
        report = build(folder, base, f"{to}-using", "--cache", str(folder.parent / "cache"), "--slim")
    finally:
        main.write_text(text)
    after = paths(service, report)
    assert any(path.endswith("greenlet/tests/leakcheck.py") for path in after)
    assert not any(path.endswith("greenlet/greenlet.h") for path in after)
    assert after < paths(service, whole)
