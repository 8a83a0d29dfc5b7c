"""Which sandbox an image's programs run in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deadweight.errors import UsageError, shown
from deadweight.image.model import Image
from deadweight.verify.sandbox import Options, Sandbox
from deadweight.verify.sandbox.bubblewrap import Bubblewrap
from deadweight.verify.sandbox.docker import docker
from deadweight.verify.sandbox.podman import podman

__all__ = ["SANDBOXES", "Options", "open_sandbox"]

SANDBOXES = ("bubblewrap", "docker", "podman")


@contextmanager
def open_sandbox(
    name: str,
    image: Image,
    unpacked: Callable[[], tuple[Path, list[str]]],
    options: Options = Options(),  # noqa: B008
) -> Iterator[Sandbox]:
    """The sandbox of that name for an image. What it has put anywhere is gone at the end.

    `unpacked` gives the image's root directory and notes about it; only bubblewrap needs one. Raises EnvironmentFailure
    where the sandbox is missing or does not work here, UsageError where none has that name.
    """
    if name == "bubblewrap":
        root, notes = unpacked()
        sandbox = Bubblewrap(image, root, options)
        sandbox.notes[:0] = notes
        yield sandbox
    elif name in ("docker", "podman"):
        with (docker if name == "docker" else podman)(image, options) as engine:
            yield engine
    else:
        raise UsageError(f"no sandbox is called {shown(name)}: {', '.join(SANDBOXES)} are")
