"""The published schemas are those of the code, and what every command writes is as they say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from deadweight.cli import main
from deadweight.cli.main import cli
from deadweight.cli.schemas import DOCUMENTS, schema, text
from support import elf, hosts
from support.linting import REPORT
from support.recipes import FASTAPI, project, pyproject, requirements
from support.schemas import PUBLISHED, checked
from support.service import save
from support.wheels import make_wheel

ELSEWHERE = {"build": "support/projects.py", "rollback": "unit/image/test_engine_names.py"}
"""Commands that need more than files: where their documents are held to the schemas."""
TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands work on."""
    folder = tmp_path_factory.mktemp("things")
    save(folder)
    plan = str(folder / "plan.json")
    assert main(["slim", f"{folder}/image.tar", "--to", f"docker-archive:{folder}/slim.tar", "--plan-out", plan]) == 0
    project(
        folder / "service",
        {
            "src/service/__init__.py": "",
            "src/service/main.py": FASTAPI,
            "pyproject.toml": pyproject(extras={"ml": "torch"}),
            "requirements/core.txt": requirements("fastapi uvicorn"),
            "requirements/ml.txt": requirements("fastapi uvicorn torch"),
        },
    )
    for name in ("one", "two"):
        (folder / "tree" / name).mkdir(parents=True)
        hosts.build(hosts.LAYOUTS["library"], folder).rename(folder / "tree" / name / "gpu.so")
    (folder / "wheels").mkdir()
    (folder / "tree/plain.so").write_bytes(elf.library(folder))
    make_wheel(folder, {"gpulib/gpu.so": (folder / "tree/one/gpu.so").read_bytes()})
    return folder


COMMANDS = {
    "inspect": ["image.tar"],
    "plan": ["image.tar"],
    "slim": ["image.tar", "--to", "docker-archive:again.tar"],
    "apply": ["plan.json", "--to", "docker-archive:applied.tar"],
    "compare": ["image.tar", "slim.tar", "image.tar", "--target-size", "1MB"],
    "verify": ["image.tar", "slim.tar", "--plan", "plan.json", "--static-only"],
    "check": ["slim.tar", "--max-size", "1GB"],
    "lint": ["DOCKERFILE"],
    "lint --list": [],
    "split": ["service", "--by-extra", "ml"],
    "split an image": ["image.tar", "--by", "numlib"],
    "prune": ["tree", "--gpu", "h100"],
    "wheel": ["gpu_thing-2.9.0-py3-none-any.whl", "--gpu", "h100", "--to", "wheels"],
    "gpus": [],
    "doctor": ["--root", "tree"],
    "passes": [],
    "cache info": [],
}
STATUSES = {"lint": (1,), "doctor": (0, 4)}
"""Of commands whose answer is not yes; doctor's depends on whether `prune` was there before."""


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_s_document_has_its_schema(
    words: str, things: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(things)
    command = [word for word in words.split() if word not in ("an", "image")]
    arguments = [str(REPORT / "phase-2.Dockerfile") if one == "DOCKERFILE" else one for one in COMMANDS[words]]
    status = main([*command, *arguments, "--json", "-"])
    said = capfd.readouterr()
    assert said.out, said.err
    assert status in STATUSES.get(words, (0,)), said.err
    document = checked(json.loads(said.out))
    assert any(document["schema"] == schema(one)["title"] for one in DOCUMENTS)


def test_every_command_with_json_is_held_to_a_schema() -> None:
    def with_json(group: click.Group, before: str = "") -> set[str]:
        found = set()
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                found |= with_json(command, f"{before}{name} ")
            elif any(parameter.name == "json_to" for parameter in command.params):
                found.add(before + name)
        return found

    for place in ELSEWHERE.values():
        assert "checked(" in (TESTS / place).read_text()
    assert with_json(cli) == {words.split(" an ")[0].split(" --")[0] for words in COMMANDS} | set(ELSEWHERE)


def test_plans_have_their_schema(things: Path) -> None:
    assert checked(json.loads((things / "plan.json").read_bytes()))["schema"] == "deadweight.plan/1"


def test_the_published_schemas_are_those_of_the_code() -> None:
    again = f"{Path(sys.executable).name} -m deadweight.cli.schemas docs/schemas"
    current = {schema(one)["$id"]: text(one) for one in DOCUMENTS}
    assert {path.name for path in PUBLISHED.iterdir()} == set(current)
    for name, wanted in current.items():
        assert (PUBLISHED / name).read_text() == wanted, f"{name} is out of date; write all again: {again}"


def test_fields_have_their_descriptions() -> None:
    (report,) = (schema(one) for one in DOCUMENTS if one.__name__ == "SlimReport")
    fields = report["$defs"]["SlimReport"]["properties"]
    assert fields["schema"]["enum"] == ["deadweight.report/1"]
    assert fields["edited"]["description"].startswith("Whether the plan had been edited by hand")
    assert "pass" in report["$defs"]["CutLine"]["properties"]
    assert report["$defs"]["Verdict"]["description"].startswith("Whether one image behaves like the other")


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "deadweight.gpus/2"},
        {"gpus": [{"name": 1}]},
        {"gpus": None},
        {"more": 1},
    ],
)
def test_documents_that_are_none_are_refused(change: dict[str, Any]) -> None:
    document = {"schema": "deadweight.gpus/1", "gpus": []}
    assert checked(document)
    with pytest.raises((AssertionError, FileNotFoundError)):
        checked({**document, **change})
