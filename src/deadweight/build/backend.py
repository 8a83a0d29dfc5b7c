"""A project's wheel, by its own build backend (PEP 517), in an environment that is kept for the next build."""

from __future__ import annotations

import re
import sys
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from deadweight.build.uv import Uv, UvFailed, run_uv
from deadweight.cache.layers import Cache, key_of
from deadweight.errors import BadInputError, shown
from deadweight.image.transports.destination import remove_tree

_KEPT: Final = 4
"""Environments that are kept: those that were used last."""
_PINNED: Final = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)\s*==", re.MULTILINE)


def build_wheel(
    project: Path, to: Path, uv: Uv, interpreter: str, cache: Cache, pins: Sequence[Path], epoch: int
) -> tuple[Path, list[str]]:
    """Builds the wheel of the project in the directory `project` into `to`; gives it, and what to say of it.

    The versions of the backend and what it needs are those that the requirements files `pins` name, where they do.
    Runs the project's backend, and with it the project's own code. Raises BadInputError where it fails.
    """
    requires = _requires(project)
    text = "".join(path.read_text("utf-8", "replace") for path in pins)
    pinned = {canonicalize_name(name) for name in _PINNED.findall(text)}
    loose = [line for line in requires if _name(line) not in pinned]
    notes = []
    if loose:
        notes.append(
            f"what builds the project is not pinned ({', '.join(shown(one, 60)[1:-1] for one in loose)}): its version "
            "is in the wheel's metadata, and another day may give another layer; a lock that names it pins it"
        )
    words = ["build", "--wheel", "-o", str(to)]
    constraints = [word for path in pins for word in ("--build-constraints", str(path))]
    try:
        environment = _environment(requires, text, constraints, uv, interpreter, cache, epoch)
        fast = ["--offline", "--no-build-isolation", "--python", str(environment / "bin" / "python")]
        run_uv(uv, [*words, *fast], project, epoch)
    except UvFailed:
        # The backend may ask for more than pyproject.toml says, which only an isolated build gives it.
        try:
            run_uv(uv, [*words, *constraints, "--python", interpreter], project, epoch)
        except UvFailed as error:
            raise BadInputError(f"the project cannot be built: {error}") from None
    wheels = list(to.glob("*.whl"))
    if len(wheels) != 1:
        raise BadInputError(f"building the project gave {len(wheels)} wheels, where one is expected")
    return wheels[0], notes


def _requires(project: Path) -> list[str]:
    """What the project says building it needs; setuptools where it says nothing (PEP 517)."""
    try:
        document = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    except (OSError, ValueError):
        document = {}
    system = document.get("build-system")
    found = system.get("requires") if isinstance(system, dict) else None
    if not isinstance(found, list):
        return ["setuptools"]
    return [line for line in found if isinstance(line, str)]


def _name(line: str) -> str:
    with suppress(InvalidRequirement):
        return canonicalize_name(Requirement(line).name)
    return ""


def _environment(
    requires: Sequence[str], pins: str, constraints: Sequence[str], uv: Uv, interpreter: str, cache: Cache, epoch: int
) -> Path:
    """An environment with what building needs: one that was made before, or a new one."""
    key = key_of(requires=list(requires), pins=pins, uv=uv.version, interpreter=interpreter, running=sys.version)
    place = cache.root / "environments" / key
    if (place / "pyvenv.cfg").is_file():
        with suppress(OSError):
            place.touch()
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".partial-{key[:16]}-{time.time_ns()}")
    try:
        run_uv(
            uv, ["venv", "-q", "--no-project", "--relocatable", "--python", interpreter, str(new)], place.parent, epoch
        )
        if requires:
            pinned = [word if word != "--build-constraints" else "-c" for word in constraints]
            words = [
                "pip",
                "install",
                "-q",
                "--compile-bytecode",
                "--python",
                str(new / "bin" / "python"),
                *pinned,
                *requires,
            ]
            run_uv(uv, words, place.parent, epoch)
        with suppress(OSError):  # another build was quicker: its environment is as good
            new.rename(place)
    finally:
        remove_tree(new)
    others = [one for one in place.parent.iterdir() if one != place and not one.name.startswith(".")]
    for old in sorted(others, key=lambda one: -one.stat().st_mtime)[_KEPT - 1 :]:
        remove_tree(old)
    return place
