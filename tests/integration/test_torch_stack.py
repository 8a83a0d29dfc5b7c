"""The whole torch stack from PyPI, pruned: what it computes on the CPU, and how many bytes are left.

Slow: installs about 7 GB and copies it once. DEADWEIGHT_TORCH_VENV names a virtual environment that has the stack
already; it is only read.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STACK = ["torch==2.9.0", "sentence-transformers", "transformers", "scikit-learn", "fastapi"]
INDISPENSABLE = {
    "matmul_fp32",
    "convolution_fp32",
    "svd",
    "fft",
    "transformer",
    "bert",
    "numpy",
    "scipy",
    "scikit_learn",
}

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("torch image")]


@pytest.fixture(scope="module")
def torch_python() -> Iterator[Path]:
    """The interpreter of a virtual environment with the stack, without byte code: its size varies."""
    if ready := os.environ.get("DEADWEIGHT_TORCH_VENV"):
        yield Path(ready) / "bin/python"
        return
    with tempfile.TemporaryDirectory(prefix="deadweight-stack-", dir="/var/tmp") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = Path(folder) / "bin/python"
        install = ["install", "-q", "--disable-pip-version-check", "--no-compile", "--no-cache-dir"]
        subprocess.run([str(python), "-m", "pip", *install, *STACK], check=True, env={**os.environ, "TMPDIR": folder})
        yield python


def site_packages(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def test_the_pruned_stack_computes_the_same_on_the_cpu(torch_python: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="deadweight-check-", dir="/var/tmp") as folder:
        record = Path(folder) / "record.json"
        command = [sys.executable, str(ROOT / "bench/gpu_check.py"), "--python", str(torch_python)]
        options = ["--device", "cpu", "--gpu", "sm_90", "--work", folder, "--out", str(record), "--budget", "1500"]
        options += ["--runs", "1"]
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=1600)
        assert done.returncode == 0, done.stdout + done.stderr[-3000:]
        found = json.loads(record.read_text())
    same = {each["name"] for each in found["probes"] if each["verdict"] == "same"}
    others = {each["name"] for each in found["probes"]} - same
    assert same >= INDISPENSABLE
    assert others <= {"torchvision"}, done.stdout  # not in the stack
    assert (found["same"], found["problems"], found["not_done"]) == (True, [], [])
    pruned = found["trees"]["pruned"]
    assert pruned["bytes"] < found["trees"]["original"]["bytes"] / 2


@pytest.mark.parametrize(
    ("options", "most"),
    [
        (["--gpu", "sm_90"], 3_640_000_000),
        (["--gpu", "sm_80,sm_86,sm_89,sm_90"], 4_500_000_000),
        (["--gpu", "sm_90", "--raw-blobs"], 3_340_000_000),
    ],
    ids=["one", "four", "raw blobs"],
)
def test_the_bytes_that_are_left(torch_python: Path, options: list[str], most: int) -> None:
    place = site_packages(torch_python)
    command = [sys.executable, "-m", "deadweight", "prune", str(place), *options, "--drop-ptx", "--dry-run"]
    done = subprocess.run([*command, "--json", "-"], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert found["before_bytes"] > 7_000_000_000
    assert found["after_bytes"] <= most
