"""Sandboxes: what runs programs of an image, and what came of it.

A sandbox belongs to one image. Every run begins with the image's files as they are, writes to a layer on top that is
thrown away, sees neither network nor host, and has limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

End = Literal["exited", "timeout", "memory", "processes", "output"]
OUTPUT_LIMIT = 64 << 20
"""Bytes of standard output, and of standard error, that are kept; more of them end a run."""
INSIDE = "/tmp/.deadweight"  # noqa: S108  (a path of the sandbox)
"""Where the files that a run needs from outside lie."""


@dataclass(frozen=True)
class Limits:
    """What one run may take."""

    seconds: float = 600.0
    memory: int = 8_000_000_000
    """Bytes, of all its processes together."""
    processes: int = 4096


@dataclass(frozen=True)
class Command:
    """A program to run in a sandbox. What is left open is as the image's configuration has it."""

    argv: tuple[str, ...]
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    """On top of the image's."""
    workdir: str | None = None
    binds: Mapping[str, Path] = field(default_factory=dict)
    """Files and directories of the host to be seen, read-only: the path inside, and that outside."""
    restored: Path | None = None
    """A directory that is laid over the image's root: files of the original that the slim image lacks."""


@dataclass(frozen=True)
class Ran:
    """What a run came to."""

    status: int
    """The exit status; 128 + N where signal N ended it."""
    stdout: bytes
    stderr: bytes
    seconds: float
    ended: End = "exited"
    """What ended it: itself, or the limit that it ran into."""
    memory: int | None = None
    """The most bytes that its processes had together, where that is known."""


class Sandbox(Protocol):
    """Runs programs of one image. Raises EnvironmentFailure where it cannot run any."""

    notes: list[str]
    """What is not as the image has it: a read-only root, say."""

    def run(self, command: Command, limits: Limits) -> Ran:
        """Runs a program to its end, or to that of its limits; nothing of it is left then."""
        ...
