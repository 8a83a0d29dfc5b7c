"""The small demo image, a real one, of `make demo-small`."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

from support.engines import needs

ROOT = Path(__file__).parents[2]
NEEDED = needs("mmdebstrap", "skopeo", "umoci", "podman")


def demo_image() -> Path:
    """The image; where it is not there it is built first (40 s, PyPI and Debian)."""
    image = ROOT / "build/demo/factcheck-small.tar"
    image.parent.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [sys.executable, ROOT / "examples/demo/build_image.py", "--variant", "small"]
    with (image.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [*command, "--work", image.parent / "work-small", "--out", image],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return image
