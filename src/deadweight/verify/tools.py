"""Test tools from outside: what pip installs for an image's Python, without any of it being run here."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import InvalidRequirement, Requirement

from deadweight.errors import BadInputError, shown
from deadweight.image.compression import temporary_folder
from deadweight.verify.side import NoAnswer, last_line

READY = "DEADWEIGHT_TEST_TOOLS"
"""A variable that names a directory with the tools in it (`pip install --target`): where there is no network, say. The
image's user has to be able to read it."""
SECONDS = 300.0


@dataclass(frozen=True)
class Python:
    """What wheels have to fit."""

    version: str
    """As `3.11`."""
    machine: str
    """As `uname -m` says it: x86_64."""
    musl: bool


@contextmanager
def tools_for(python: Python, tools: Sequence[str]) -> Iterator[Path]:
    """A directory of tools (requirements) for a Python.

    Wheels only: to build a source distribution is to run its code. Raises NoAnswer where they cannot be had, and
    BadInputError for what is no requirement.
    """
    ready = os.environ.get(READY)
    if ready:
        if not Path(ready).is_dir():
            raise NoAnswer(f"{READY} names {shown(ready)}, which is no directory")
        yield Path(ready).absolute()
        return
    for tool in tools:
        try:
            Requirement(tool)
        except InvalidRequirement as error:
            raise BadInputError(f"tools: {shown(tool)} is no requirement: {error}") from None
    with TemporaryDirectory(prefix="deadweight-verify-", dir=temporary_folder()) as name:
        folder = Path(name)
        folder.chmod(0o755)  # the image's user reads it
        _install([*_installer(python), "--target", str(folder / "tools"), "--", *tools])
        yield folder / "tools"


def _installer(python: Python) -> list[str]:
    """The words of an installer that is here, for that Python."""
    wheels = ["install", "--quiet", "--only-binary", ":all:", "--python-version", python.version]
    if importlib.util.find_spec("pip") is not None:
        pip = [sys.executable, "-m", "pip"]
    elif found := shutil.which("pip"):
        pip = [found]
    elif found := shutil.which("uv"):
        platform = "unknown-linux-musl" if python.musl else "manylinux_2_28"
        return [found, "pip", *wheels, "--python-platform", f"{python.machine}-{platform}"]
    else:
        raise NoAnswer(
            f"the test tools cannot be had: there is neither pip nor uv; {READY} can name a directory of them"
        )
    tags = ("musllinux_1_1", "musllinux_1_2") if python.musl else ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
    platforms = [word for tag in tags for word in ("--platform", f"{tag}_{python.machine}")]
    quiet = ["--disable-pip-version-check", "--no-input", "--no-compile"]
    return [*pip, *wheels, "--implementation", "cp", *platforms, *quiet]


def _install(words: Sequence[str]) -> None:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=SECONDS, umask=0o022
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(f"the test tools cannot be had: {error}") from None
    if done.returncode:
        why = shown(last_line(done.stderr))
        raise NoAnswer(f"the test tools cannot be had: {why}; {READY} can name a directory of them")
