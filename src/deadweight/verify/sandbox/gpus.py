"""The machine's GPUs inside bwrap: NVIDIA's devices, and the driver's libraries, which no image may bring itself.

Untested on a machine with a GPU: what is passed through is what nvidia-container-toolkit passes through, without its
hooks for ldconfig, so the libraries are found by LD_LIBRARY_PATH.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from deadweight.errors import EnvironmentFailure
from deadweight.verify.sandbox import INSIDE

DRIVER = f"{INSIDE}/driver/lib"
"""Where the libraries lie."""
_LIBRARY = re.compile(
    r"^\s*(lib(?:cuda|cudadebugger|nvcuvid|nvidia-[\w.-]*)\.so[\w.]*) \([^)]*(?:x86-64|AArch64)[^)]*\) => (/\S+)$", re.M
)


def gpu_words(
    environment: Mapping[str, str], dev: str, folder: str, devices: Path = Path("/dev")
) -> tuple[list[str], dict[str, str]]:
    """bwrap's options, and the environment that finds the libraries. Raises EnvironmentFailure without a GPU.

    `dev` and `folder` are where /dev and DRIVER are in the image, links resolved.
    """
    found = sorted(path for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia(\d+|ctl|-.*)", path.name))
    if not found:
        raise EnvironmentFailure("there is no NVIDIA GPU here (no /dev/nvidia*): leave --gpus out")
    words = []
    for path in found:
        words += ["--dev-bind", str(path), f"{dev}/{path.name}"]
    for name, library in driver_libraries(_cache()).items():
        words += ["--ro-bind", os.path.realpath(library), f"{folder}/{name}"]
    paths = [path for path in (environment.get("LD_LIBRARY_PATH"), DRIVER) if path]
    return words, {**environment, "LD_LIBRARY_PATH": ":".join(paths)}


def driver_libraries(cache: str) -> dict[str, str]:
    """The driver's libraries by name, from what `ldconfig -p` prints."""
    return dict(reversed(_LIBRARY.findall(cache)))


def _cache() -> str:
    env = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        return subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False, env=env).stdout
    except OSError:
        return ""
