"""The locks in requirements/ agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"


def versions(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (REQUIREMENTS / name).read_text(), re.MULTILINE))


def asked(name: str) -> set[str]:
    return set(re.findall(r"^[A-Za-z0-9._-]+", (REQUIREMENTS / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["runtime", "build"])
def test_what_others_get_is_what_is_tested(name: str) -> None:
    locked = versions(f"{name}.txt")
    assert locked.items() <= versions("dev.txt").items()
    assert {each.replace(".", "-") for each in asked(f"{name}.in")} <= locked.keys()


def test_what_builds_it_is_locked() -> None:
    project = tomllib.loads((REQUIREMENTS.parent / "pyproject.toml").read_text())
    assert set(project["build-system"]["requires"]) == asked("build.in")
