"""uv, which resolves and installs: an external program, found and run here.

Nothing is asked of it that depends on this machine: Python, platform and places are always stated, and what a user's
variables say of an active environment or of bytecode is not passed on. Indexes, proxies and certificates are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from deadweight.build.history import NO_LOCKS
from deadweight.errors import EnvironmentFailure, UsageError, shown

INSTALL: Final = "install it: pip install 'deadweight[build]', or pip install uv"
_SAID: Final = 12
"""Lines of its output that a message shows."""
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_NOT_PASSED_ON: Final = frozenset(
    {
        *("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONPATH", "PYTHONHOME"),
        *("UV_COMPILE_BYTECODE", "UV_SYSTEM_PYTHON", "UV_BREAK_SYSTEM_PACKAGES", "UV_TARGET"),
        *("UV_PREFIX", "UV_PYTHON", "UV_PYTHON_PLATFORM", "UV_PROJECT_ENVIRONMENT", "UV_NO_BINARY", "UV_VENV_SEED"),
    }
)
_SET: Final = {
    "UV_PYTHON_DOWNLOADS": "never",  # whatever Python it needs is here: nothing that it runs is fetched unasked
    "UV_LINK_MODE": "clone",  # what uv does by itself; its settings may say symlink, which leads out of the image
    "UV_NO_PROGRESS": "1",
    "NO_COLOR": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    **NO_LOCKS,  # a build backend may ask git for a version
}


@dataclass(frozen=True)
class Uv:
    """The program."""

    path: str
    version: str


class UvFailed(EnvironmentFailure):
    """uv said no. `output` is what it said, control characters removed. Whoever knows whose fault it is says so."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


def find_uv(environment: Mapping[str, str] | None = None) -> Uv:
    """uv of the `uv` package beside this Python, which `deadweight[build]` brings, else that in PATH.

    Raises EnvironmentFailure where there is none.
    """
    environment = os.environ if environment is None else environment
    candidates: list[str | None] = [str(Path(sys.executable).parent / "uv")]
    package = find_spec("uv")
    if package is not None and package.origin is not None:
        # Scripts lie where this installation has them: some folders above the package.
        candidates += [str(folder / "bin" / "uv") for folder in Path(package.origin).parents[1:5]]
    candidates.append(shutil.which("uv", path=environment.get("PATH")))
    for path in filter(None, candidates):
        if os.access(path, os.X_OK) and (version := _version(path)):
            return Uv(path, version)
    raise EnvironmentFailure(f"uv, which resolves and installs, is not on this machine; {INSTALL}")


def _version(path: str) -> str:
    try:
        words = [path, "--version"]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # A shim (pyenv's) is there and executable whether what it stands for is or not.
    match = re.match(rb"uv (\S+)", done.stdout)
    return match[1].decode("ascii", "replace") if match and not done.returncode else ""


def run_uv(uv: Uv, words: Sequence[str], where: Path, epoch: int, *, said: bool = True) -> str:
    """Runs uv in the directory `where`; gives what it said, or with `said` off, what it printed. Raises UvFailed."""
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
    environment |= {**_SET, "SOURCE_DATE_EPOCH": str(epoch)}
    try:
        # Its own process group would outlive a ^C: it stays in ours, and is waited for.
        done = subprocess.run(
            [uv.path, *words],
            cwd=where,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            umask=0o022,
        )
    except OSError as error:
        raise EnvironmentFailure(f"cannot run {shown(uv.path)}: {error.strerror or error}") from None
    output = clean(done.stdout + done.stderr if done.returncode else done.stderr if said else done.stdout)
    if done.returncode < 0:
        raise EnvironmentFailure(f"uv was ended by signal {-done.returncode}: {last_lines(output)}")
    if done.returncode:
        if re.search(r"No space left on device|Disk quota exceeded", output):
            raise EnvironmentFailure(f"uv has no space left: {last_lines(output)}")
        if re.search(r"Failed to fetch|error sending request|dns error|Connection refused|timed out", output):
            raise EnvironmentFailure(f"uv cannot reach what it needs: {last_lines(output)}")
        raise UvFailed(last_lines(output), output)
    return output


def clean(output: bytes) -> str:
    """What a program said, as printable text with its lines."""
    text = _ESCAPES.sub("", output.decode("utf-8", "replace"))
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def last_lines(said: str, count: int = _SAID) -> str:
    """The end of what a program said, on one line, for a message."""
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    return shown(" | ".join(lines[-count:]) or "it said nothing", 2000)[1:-1]


def parse_epoch(environment: Mapping[str, str], default: int) -> int:
    """SOURCE_DATE_EPOCH, seconds since 1970, where it is set. Raises UsageError for what is no such number."""
    text = environment.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,11}", text):
        raise UsageError(f"SOURCE_DATE_EPOCH is {shown(text)}: it has to be seconds since 1970")
    return int(text)
