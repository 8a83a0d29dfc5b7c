"""The locks in requirements/ agree."""

from __future__ import annotations

import re
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[2] / "requirements"


def versions(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (REQUIREMENTS / name).read_text(), re.MULTILINE))


def test_what_the_own_image_gets_is_what_is_tested() -> None:
    runtime = versions("runtime.txt")
    tested = versions("dev.txt")
    assert runtime.items() <= tested.items()
    asked = re.findall(r"^[A-Za-z0-9._-]+", (REQUIREMENTS / "runtime.in").read_text(), re.MULTILINE)
    assert {name.replace(".", "-") for name in asked} <= runtime.keys()
