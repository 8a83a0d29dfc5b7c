"""Both parts of a project, built without an engine: they share their base, and each runs with what it has."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.projects import DEADWEIGHT, build, lock, project, write_base

pytestmark = pytest.mark.xdist_group("build")
INFERENCE = """\
def ask():
    import greenlet

    return greenlet.__version__
"""
CHECK = """
[[probe]]
kind = "http"
path = "/health"
status = 200
must = true

[[probe]]
kind = "run"
name = "inference"
code = "from svc.inference import ask; print(ask())"
output = ["{said}"]
must = true
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The project, the report, and the base."""
    work = tmp_path_factory.mktemp("split")
    folder = project(work / "project")
    main = folder / "src/svc/main.py"
    main.write_text(main.read_text() + "\nfrom svc import inference\n")
    (folder / "src/svc/inference.py").write_text(INFERENCE)
    lock(folder, "--extra", "more")
    (folder / "requirements").mkdir()
    (folder / "requirements.txt").rename(folder / "requirements/ml.txt")
    lock(folder)
    (folder / "requirements.txt").rename(folder / "requirements/core.txt")
    base = write_base(work / "base")
    words = ("--cache", str(work / "cache"), "--split", "more")
    return folder, build(folder, base, f"oci:{work / 'out'}", *words), base


def test_two_images_share_a_base(parts: tuple[Path, dict[str, Any], str]) -> None:
    _, report, _ = parts
    core, ml = (part["build"] for part in report["parts"])
    assert [part["part"] for part in report["parts"]] == ["api-core", "ml-inference"]
    assert (core["image"]["tag"], ml["image"]["tag"]) == ("api-core", "ml-inference")
    assert (core["extras"], ml["extras"]) == ([], ["more"])
    layers = [{layer["diff_id"]: layer["bytes"] for layer in one["layers"]} for one in (core, ml)]
    shared = layers[0].keys() & layers[1].keys()
    names = [layer["name"] for layer in core["layers"] if layer["diff_id"] in shared]
    assert names == ["base", "base", "user", "project"]
    assert report["shared_bytes"] == sum(layers[0][diff_id] for diff_id in shared)
    assert report["bytes"] == sum({**layers[0], **layers[1]}.values())
    assert core["distributions"] == ml["distributions"] - 1


@pytest.mark.parametrize(("part", "said"), [("api-core", "^$"), ("ml-inference", r"^\\d+\\.")])
def test_each_part_runs(parts: tuple[Path, dict[str, Any], str], part: str, said: str, tmp_path: Path) -> None:
    folder, report, _ = parts
    reference = next(one["build"]["image"]["reference"] for one in report["parts"] if one["part"] == part)
    spec = tmp_path / "spec.toml"
    text = CHECK.format(said=said)
    if part == "api-core":
        text = text.replace("print(ask())", "import importlib.util as u; print(u.find_spec('greenlet') or '')")
    spec.write_text(text)
    words = [DEADWEIGHT, "check", reference, "--spec", spec]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert folder.is_dir()


def test_places_for_two(parts: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    folder, _, base = parts
    cache = ("--cache", str(folder.parent / "cache"), "--split", "more")
    build(folder, base, f"docker-archive:{tmp_path}/{{part}}.tar:svc:{{part}}", *cache)
    assert {path.name for path in tmp_path.iterdir()} == {"api-core.tar", "ml-inference.tar"}
    assert "{part}" in build(folder, base, f"oci-archive:{tmp_path}/x.tar", *cache, status=2)["error"]
    before = sorted(tmp_path.iterdir())
    build(folder, base, f"docker-archive:{tmp_path}/{{part}}.tar", *cache, status=2)
    assert sorted(tmp_path.iterdir()) == before


def test_a_core_that_would_not_start_is_not_built(parts: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    folder, _, base = parts
    inference = folder / "src/svc/inference.py"
    text = inference.read_text()
    try:
        inference.write_text(f"import greenlet\n{text}")
        cache = ("--cache", str(folder.parent / "cache"), "--split", "more")
        error = build(folder, base, f"oci:{tmp_path / 'out'}", *cache, status=1)["error"]
    finally:
        inference.write_text(text)
    assert "src/svc/inference.py:1 imports greenlet as it is imported" in error
    assert not (tmp_path / "out").exists()
    assert json.loads((folder.parent / "out/index.json").read_text())["manifests"]
