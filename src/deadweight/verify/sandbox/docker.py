"""Docker: where a daemon runs, or where DOCKER_HOST and the like lead to one on this machine.

DEADWEIGHT_DOCKER is the command line instead of `docker`, with the options that this machine needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deadweight.image.model import Image
from deadweight.verify.sandbox import Options
from deadweight.verify.sandbox.engines import Client, Engine, command_line, loaded


@contextmanager
def docker(image: Image, options: Options) -> Iterator[Engine]:
    """The image in Docker. Raises EnvironmentFailure."""
    engine = Client("docker", command_line("docker"), ("--gpus", "all"))
    with loaded(engine, image, options) as sandbox:
        yield sandbox
