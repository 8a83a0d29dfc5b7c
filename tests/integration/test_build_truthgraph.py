"""examples/truthgraph with torch, from the lock to an image for one GPU, and again after a change of code."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from support.projects import DEADWEIGHT, build, diff_ids

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("torch"),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("mmdebstrap") is None,
        reason="needs root and mmdebstrap: scripts/setup.sh demo",
    ),
]


def test_the_service_with_torch_and_a_change_of_code() -> None:
    with tempfile.TemporaryDirectory(prefix="deadweight-truthgraph-", dir="/var/tmp") as name:
        work = Path(name)
        folder = work / "truthgraph"
        shutil.copytree(ROOT / "examples/truthgraph", folder)
        to = f"oci:{work / 'out'}:latest"
        words = ("--gpu", "sm_90", "--drop-ptx", "--cache", str(work / "cache"))
        first = build(folder, "debian:bookworm", to, *words)
        assert first["extras"] == ["ml"]
        assert 3_000_000_000 < first["bytes"] < 4_500_000_000
        assert first["pruned_bytes"] > 3_000_000_000
        main = next(folder.glob("src/*/main.py"))
        main.write_text(main.read_text() + "\n# changed\n")
        start = time.monotonic()
        second = build(folder, "debian:bookworm", to, *words)
        seconds = time.monotonic() - start
        assert seconds < 10, "about one on a machine that does nothing else"
        assert [layer["cached"] for layer in second["layers"]] == [True, True, True, False]
        assert diff_ids(second)[:3] == diff_ids(first)[:3]
        assert second["layers"][3]["bytes"] < 500_000
        done = subprocess.run(
            [DEADWEIGHT, "check", to, "--spec", "builtin:ml-api"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
