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

HOSTNAME = "deadweight"
"""What programs see as their machine's name."""
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "NET_BIND_SERVICE")
"""What root may do inside: what container engines give, less what makes devices, other roots and raw packets."""


@dataclass(frozen=True)
class Options:
    """What a sandbox lets its programs have of the machine."""

    gpus: bool = False
    network: bool = False
    """The host's; without, there is only a loopback interface."""


@dataclass(frozen=True)
class Limits:
    """What one run may take."""

    seconds: float = 600.0
    memory: int = 8_000_000_000
    """Bytes, of all its processes together."""
    processes: int = 4096
    """Processes and their threads."""


@dataclass(frozen=True)
class Command:
    """A program to run in a sandbox. What is left open is as the image's configuration has it."""

    argv: tuple[str, ...]
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict)
    """On top of the image's."""
    workdir: str | None = None
    binds: Mapping[str, Path] = field(default_factory=dict)
    """Files and directories of the host to be seen, read-only: the path inside, and that outside. The image's user is
    often not root, so everybody must be allowed to read them."""
    restored: Path | None = None
    """A directory of this process's own that is laid over the image's root: files of the original that the slim image
    lacks. Directories that both have are as the image has them."""


@dataclass(frozen=True)
class Ran:
    """What a run came to."""

    status: int
    """The exit status; 128 + N where signal N ended it, 127 where there is no such program, 126 where it cannot run."""
    stdout: bytes
    stderr: bytes
    seconds: float
    ended: End = "exited"
    """What ended it: itself, or the limit that it ran into."""
    memory: int | None = None
    """The most bytes that its processes had together, where that is known; looked at ten times a second."""


class Sandbox(Protocol):
    """Runs programs of one image. Raises EnvironmentFailure where it cannot run any."""

    notes: list[str]
    """What is not as the image has it: a read-only root, say."""

    def run(self, command: Command, limits: Limits) -> Ran:
        """Runs a program to its end, or to that of its limits; nothing of it is left then."""
        ...
