"""What `deadweight dockerfile` writes has none of the mistakes that `deadweight lint` finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from deadweight.build.dockerfile import Choices, render
from deadweight.build.recipe import read_recipe
from support.linting import found
from support.recipes import FASTAPI, FLASK, project, pyproject, requirements

DEVELOPERS = '[dependency-groups]\ndev = ["pytest"]\n'
MAIN = {"src/service/__init__.py": "", "src/service/main.py": FASTAPI, "tests/test_it.py": "", "scripts/x.py": ""}
LOCK = 'version = 1\n[[package]]\nname = "service"\n'
PROJECTS = {
    "uv.lock": MAIN | {"pyproject.toml": pyproject(extras={"ml": "torch"}, more=DEVELOPERS), "uv.lock": LOCK},
    "no lock": MAIN | {"pyproject.toml": pyproject(extras={"ml": "torch", "dev": "pytest"}, more=DEVELOPERS)},
    "a lock": MAIN
    | {
        "pyproject.toml": pyproject(extras={"ml": "torch", "dev": "pytest"}),
        "requirements.txt": requirements("fastapi uvicorn torch"),
    },
    "no package": {"app.py": FLASK, "tests/x.py": "", "requirements.txt": "flask==3.0\ngunicorn==22.0\n"},
    "much of Debian": MAIN | {"pyproject.toml": pyproject(dependencies="fastapi uvicorn mysqlclient psycopg2")},
}


@pytest.mark.parametrize("gpu", ["", "sm_90"])
@pytest.mark.parametrize("name", PROJECTS)
def test_what_is_generated_has_none_of_these_mistakes(name: str, gpu: str, tmp_path: Path) -> None:
    folder = project(tmp_path, PROJECTS[name])
    text = render(read_recipe(folder), Choices(gpu=gpu))
    assert found(text) == []
    assert found(text, folder) == []
