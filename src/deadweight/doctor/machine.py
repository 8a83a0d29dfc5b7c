"""The GPUs of this machine, asked of the CUDA driver, or of nvidia-smi where that fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from deadweight.decoding import from_json
from deadweight.doctor import driver

PATIENCE: Final = 60
"""Seconds: starting up many GPUs takes a driver that was not in use some of them."""


class Gpu(msgspec.Struct, frozen=True):
    """One GPU, or several alike."""

    name: str
    """As the driver calls it; empty where only the architecture is known."""
    sm: int
    """The compute capability times ten."""


class Machine(msgspec.Struct, frozen=True):
    """What can be seen of a machine's GPUs."""

    gpus: tuple[Gpu, ...]
    """Each kind once, in the driver's order."""
    trouble: str = ""
    """Why the CUDA driver does not tell of any."""


class _Answer(msgspec.Struct):
    """What driver.py prints."""

    gpus: list[tuple[str, int]] = []
    error: str = ""


def look() -> Machine:
    """This machine's GPUs. Asks other processes only, so that a driver that crashes or hangs takes nobody along."""
    asked = _ask_driver()
    found = asked.gpus if not asked.error else _ask_nvidia_smi()
    trouble = asked.error or ("" if found else "the CUDA driver sees none")
    return Machine(tuple(dict.fromkeys(Gpu(name, sm) for name, sm in found)), trouble)


def _ask_driver() -> _Answer:
    out = _output(sys.executable, "-I", str(Path(driver.__file__)))
    for line in (out or "").splitlines():  # among what the driver itself may print
        try:
            return from_json(line, _Answer)
        except msgspec.MsgspecError:
            continue
    return _Answer(error="the CUDA driver crashed or gave no answer")


def _ask_nvidia_smi() -> list[tuple[str, int]]:
    """Nothing where there is no nvidia-smi, or one too old to tell compute capabilities."""
    out = _output("nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader")
    found = []
    for line in (out or "").splitlines():
        name, _, capability = line.rpartition(",")
        major, _, minor = capability.strip().partition(".")
        if major.isdecimal() and minor.isdecimal():
            found.append((name.strip(), 10 * int(major) + int(minor)))
    return found


def _output(*command: str) -> str | None:
    """What a program prints; None where it does not end well."""
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")
