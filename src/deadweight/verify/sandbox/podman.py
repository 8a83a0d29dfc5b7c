"""Podman: without a daemon, as root or as an ordinary user.

DEADWEIGHT_PODMAN is the command line instead of `podman`, with the options that this machine needs: `podman --runtime
runc --cgroup-manager cgroupfs`, say. GPUs go by the container device interface (nvidia-ctk cdi generate).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deadweight.image.model import Image
from deadweight.verify.sandbox import Options
from deadweight.verify.sandbox.engines import Client, Engine, command_line, loaded


@contextmanager
def podman(image: Image, options: Options) -> Iterator[Engine]:
    """The image in Podman. Raises EnvironmentFailure."""
    engine = Client("podman", command_line("podman"), ("--device", "nvidia.com/gpu=all"))
    with loaded(engine, image, options) as sandbox:
        yield sandbox
