"""The configuration is that of the Dockerfile which `deadweight dockerfile` prints for the same project."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from deadweight.application.dockerfile import parse_dockerfile
from deadweight.build.base import Base, Python
from deadweight.build.configuration import make_config
from deadweight.build.dockerfile import Choices, render
from deadweight.build.recipe import Recipe, read_recipe
from deadweight.image.transports import open_image
from support.images import make_image, make_tar, write_oci
from support.projects import project

BASE = Base(Python("3.11", "3.11.2", "/usr/bin/python3.11", "x86_64", False, (2, 36)), "/usr/bin:/bin", {}, (1,), ())


def configured(tmp_path: Path, recipe: Recipe, *, curl: bool, **run: Any) -> dict[str, Any]:
    place = write_oci(tmp_path / "base", make_image(make_tar(), run=run))
    with open_image(f"oci:{place}") as image:
        return dict(json.loads(make_config(image, BASE, recipe, ["one"], ["sha256:1", "sha256:2"], {}, 0, curl=curl)))


def printed(recipe: Recipe, base: str, *add: str) -> dict[str, Any]:
    """What the Dockerfile's last stage says."""
    found: dict[str, Any] = {"Env": {}, "Labels": {}}
    dockerfile = parse_dockerfile(render(recipe, Choices(base=base, add=add)))
    for stage in dockerfile.chain(dockerfile.stages[-1]):
        for one in stage.instructions:
            if one.name in ("ENV", "LABEL"):
                pairs = [(word.partition("=")[0], word.partition("=")[2]) for word in shlex.split(one.text)]
                found["Env" if one.name == "ENV" else "Labels"] |= dict(pairs)
            elif one.name == "HEALTHCHECK" and one.text == "NONE":
                found[one.name] = None
            elif one.name == "HEALTHCHECK":
                found[one.name] = json.loads(one.text.partition("CMD")[2])
                found["flags"] = dict(one.flags)
            elif one.name == "CMD":
                found[one.name] = list(one.words or ())
            elif one.name in ("USER", "WORKDIR", "EXPOSE"):
                found[one.name] = one.text
    return found


@pytest.mark.parametrize("curl", [True, False])
@pytest.mark.parametrize("installable", [True, False])
def test_both_ways_of_building_agree(tmp_path: Path, curl: bool, installable: bool) -> None:
    folder = project(tmp_path / "project")
    if not installable:
        text = (folder / "pyproject.toml").read_text()
        (folder / "pyproject.toml").write_text(text[text.index("[project]") :])
    recipe = read_recipe(folder)
    run = configured(tmp_path, recipe, curl=curl, Env=["PATH=/usr/bin:/bin"], Entrypoint=["/bin/sh"])["config"]
    said = printed(recipe, "debian:bookworm", *(["curl"] if curl else []))
    environment = dict(pair.split("=", 1) for pair in run["Env"])
    assert environment == {**said["Env"], "PATH": said["Env"]["PATH"].replace("$PATH", "/usr/bin:/bin")}
    assert run["Labels"].items() >= said["Labels"].items()
    assert (run["User"], run["WorkingDir"], run["Cmd"]) == (said["USER"], said["WORKDIR"], said["CMD"])
    assert list(run["ExposedPorts"]) == [f"{said['EXPOSE']}/tcp"]
    assert "Entrypoint" not in run
    assert run["Healthcheck"]["Test"] == ["CMD", *said["HEALTHCHECK"]]
    assert run["Healthcheck"]["Test"][1] == ("curl" if curl else "python")
    flags = said["flags"]
    seconds = {name: run["Healthcheck"][name] // 10**9 for name in ("Interval", "Timeout", "StartPeriod")}
    assert {name: f"{value}s" for name, value in seconds.items()} == {
        "Interval": flags["interval"],
        "Timeout": flags["timeout"],
        "StartPeriod": flags["start-period"],
    }
    assert str(run["Healthcheck"]["Retries"]) == flags["retries"]


def test_the_base_s_configuration_stays_where_nothing_else_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[project]\nname = "job"\nversion = "1"\n')
    (folder / "job.py").write_text("print(1)\n")
    base = {"Env": ["A=b", "PATH=/x"], "Entrypoint": ["/run"], "Labels": {"a": "b"}, "StopSignal": "SIGINT"}
    config = configured(tmp_path, read_recipe(folder), curl=False, **base)
    run = config["config"]
    assert (run["Entrypoint"], run["StopSignal"], run["Labels"]["a"]) == (["/run"], "SIGINT", "b")
    assert "A=b" in run["Env"]
    assert not {"Cmd", "Healthcheck", "ExposedPorts"} & set(run)
    assert config["architecture"] == "amd64"
    assert config["history"][-1] == {"created": "1970-01-01T00:00:00Z", "created_by": "one"}


def test_a_base_with_a_command_of_its_own(tmp_path: Path) -> None:
    """Spark's, say: what its own command needs leaves, what its libraries need stays."""
    recipe = read_recipe(project(tmp_path / "project"))
    base = {"Env": ["PATH=/usr/bin:/bin", "PYTHONPATH=/opt/spark/python"], "Healthcheck": {"Test": ["CMD", "spark"]}}
    run = configured(tmp_path / "a", recipe, curl=False, **base)["config"]
    assert run["Healthcheck"]["Test"][1] == "python"
    said = printed(recipe, "spark:3")
    assert said["Env"]["PYTHONPATH"] == "/app/lib${PYTHONPATH:+:$PYTHONPATH}"
    assert "PYTHONPATH=/app/lib:/opt/spark/python" in run["Env"]
    assert said["HEALTHCHECK"]
    (tmp_path / "project/src/svc/main.py").write_text("def say(): ...\n")
    recipe = read_recipe(tmp_path / "project")
    assert (recipe.command, recipe.port) == (("svc",), None)
    run = configured(tmp_path / "b", recipe, curl=False, **base, Entrypoint=["/start"])["config"]
    assert not {"Healthcheck", "Entrypoint"} & set(run)
    assert printed(recipe, "spark:3")["HEALTHCHECK"] is None
    assert "HEALTHCHECK" not in printed(recipe, "python:3.12-slim")
