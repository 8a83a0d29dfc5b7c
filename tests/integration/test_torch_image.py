"""The torch demo image, slimmed and run in a sandbox. Slow: about 7 GB unpacked, 30 GB of disk with the image."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.records import records

ROOT = Path(__file__).parents[2]
DEADWEIGHT = Path(sys.executable).parent / "deadweight"
MEMORY_LIMIT = 400_000  # kB resident
# Between the two: a process has its parent's peak from before exec, and this one may have read a whole torch.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("torch image"),
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("mmdebstrap", "bwrap"))),
        reason="needs root, mmdebstrap and bubblewrap: scripts/setup.sh demo test",
    ),
]

WORK = """
import warnings; warnings.simplefilter("ignore")
import numpy.testing, scipy.linalg, scipy.special, sklearn.linear_model, torch, torch.testing
import transformers, sentence_transformers, fastapi, uvicorn, sqlalchemy, psycopg, factcheck_demo.main
torch.manual_seed(0)
x = torch.randn(64, 64)
print(torch.__version__, torch.linalg.svdvals(x).sum().item(), torch.fft.fft(x).abs().sum().item())
print(torch.nn.functional.conv2d(x.view(1, 1, 64, 64), x[:9, :9].reshape(1, 1, 9, 9)).sum().item())
layer = torch.nn.TransformerEncoderLayer(64, 4).eval()
print(layer(x.view(64, 1, 64)).sum().item())
print(scipy.linalg.expm(x.numpy() / 64).sum(), sklearn.linear_model.Ridge().fit(x, x[:, 0]).coef_.sum())
"""


@pytest.fixture(scope="module")
def roots() -> Iterator[tuple[Path, Path, Path]]:
    """The original and the slim image's root filesystems, and the plan."""
    image = ROOT / "build/demo/factcheck-torch.tar"
    image.parent.mkdir(parents=True, exist_ok=True)
    with (image.parent / "lock-torch").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build = [sys.executable, str(ROOT / "examples/demo/build_image.py"), "--variant", "torch"]
        subprocess.run([*build, "--work", str(image.parent / "work-torch"), "--out", str(image)], check=True)
    with tempfile.TemporaryDirectory(prefix="deadweight-torch-", dir="/var/tmp") as folder:
        work = Path(folder)
        command = [str(DEADWEIGHT), "slim", f"docker-archive:{image}", "--to", f"rootfs:{work / 'after'}"]
        command += ["--gpu", "h100", "--drop-ptx"]
        command += ["--plan-out", str(work / "plan.json"), "--json", str(work / "report.json")]
        measured = subprocess.run([sys.executable, "-c", MEASURE, *command], check=True, stderr=subprocess.PIPE)
        assert int(measured.stderr.split()[-1]) < MEMORY_LIMIT
        empty = work / "empty.json"
        plan = json.loads((work / "plan.json").read_text())
        empty.write_text(json.dumps({**plan, "cuts": []}))
        to = ["--to", f"rootfs:{work / 'before'}"]
        subprocess.run([str(DEADWEIGHT), "apply", str(empty), "--from", f"docker-archive:{image}", *to], check=True)
        yield work / "before", work / "after", work / "report.json"


def inside(root: Path, *command: str) -> str:
    """What a command prints in a sandbox over `root`: no network, nothing but its own files."""
    sandbox = [
        "bwrap",
        "--unshare-all",
        "--die-with-parent",
        "--bind",
        str(root),
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    sandbox += ["--tmpfs", "/tmp", "--chdir", "/app", "--clearenv", "--setenv", "PATH", "/usr/local/bin:/usr/bin:/bin"]
    done = subprocess.run([*sandbox, *command], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def test_the_slim_image_computes_the_same(roots: tuple[Path, Path, Path]) -> None:
    before, after, _ = roots
    assert inside(after, "python3", "-c", WORK) == inside(before, "python3", "-c", WORK)
    assert "No broken requirements" in inside(after, "pip", "check")


def test_records_are_no_less_true(roots: tuple[Path, Path, Path]) -> None:
    before, after, _ = roots
    wrong, lines = records(after)
    assert wrong <= records(before)[0]
    assert lines > 10_000


def test_the_size_is_the_predicted_one(roots: tuple[Path, Path, Path]) -> None:
    report = json.loads(roots[2].read_text())
    assert report["predicted_bytes"] == report["after_bytes"] < 6_900_000_000
