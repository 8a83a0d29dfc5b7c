"""One image on the bench: its ledger, its sandbox, and the agent that works inside."""

from __future__ import annotations

import posixpath
import secrets
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from deadweight.application.table import AppTable
from deadweight.errors import BadInputError, EnvironmentFailure, shown
from deadweight.image.filesystem import Filesystem
from deadweight.ledger.ledger import Ledger
from deadweight.passes.commands import locate
from deadweight.verify.sandbox import INSIDE, Command, Limits, Ran, Sandbox
from deadweight.verify.spec import HttpProbe, StartProbe

AGENT = Path(__file__).parent / "agent"
_PYTHONS = ("python3", "python")


class NoAnswer(Exception):
    """A probe cannot be answered, and why: no Python in the image, say."""


class Ended(Exception):
    """A run ended before it gave its answer, and why: by a limit, or since the image's Python does not work.

    In one image of two that is a difference.
    """


@dataclass
class Side:
    """One image, ready to be probed."""

    name: str
    """`before`, `after`, or `image` where there is one only."""
    ledger: Ledger
    open_sandbox: Callable[[], Sandbox]
    """Makes the sandbox, unpacking the image where that is needed; called once, and only when something is to run."""
    limits: Limits
    app: AppTable
    requests: tuple[HttpProbe, ...] = ()
    """All http probes of the specification, in order: one run of the server answers them."""
    original: Ledger | None = None
    """The original image's ledger, for both sides; None where there is one image only."""
    starting: StartProbe | None = None
    """The first start probe, default or not: how that run starts the server. None: as the image does."""
    folder: str = ""
    """Where the files are that the specification names."""
    memo: dict[Hashable, Any] = field(default_factory=dict)
    """What probes find out together: the answers of one server, say."""

    opening: float = 0.0
    """Seconds that it took to open the sandbox: no probe's own time."""

    @cached_property
    def _sandbox(self) -> Sandbox | EnvironmentFailure:
        start = time.monotonic()
        try:
            return self.open_sandbox()
        except EnvironmentFailure as error:
            return error
        finally:
            self.opening = time.monotonic() - start

    @property
    def sandbox(self) -> Sandbox:
        """What runs programs of the image. Raises NoAnswer where there is none."""
        if isinstance(self._sandbox, EnvironmentFailure):
            raise NoAnswer(str(self._sandbox))
        return self._sandbox

    @property
    def fs(self) -> Filesystem:
        """The merged view."""
        return self.ledger.fs

    @cached_property
    def python(self) -> str:
        """The interpreter that the application runs under, as a path of the image. Raises Ended without one."""
        wanted = (self.app.python,) if self.app.python else _PYTHONS
        for word in wanted:
            chain = list(locate(self.fs, word))
            if chain:
                return "/" + chain[0].path  # not what a link leads to: a virtual environment's Python is one
        raise Ended(f"there is no {' or '.join(map(shown, wanted))} in the image")

    @property
    def workdir(self) -> str:
        """Where programs start."""
        return str(self.ledger.image.run_config.get("WorkingDir") or "/")

    @property
    def directory(self) -> str:
        """Where the application's own modules are imported from."""
        return posixpath.join(self.workdir, self.app.directory or "")

    def run(self, command: Command, timeout: float | None = None) -> Ran:
        """Runs a program, within the probe's own time where it has one."""
        limits = self.limits if timeout is None else Limits(timeout, self.limits.memory, self.limits.processes)
        sandbox = self.sandbox
        try:
            return sandbox.run(command, limits)
        except (EnvironmentFailure, BadInputError) as error:  # an unknown user, say: this image cannot be run here
            raise NoAnswer(str(error)) from None

    def ask(self, task: str, arguments: Any, timeout: float | None = None, **more: Any) -> Any:
        """What the agent answers to a task of its own (a file of agent/), decoded from JSON.

        Raises Ended where the image's Python does not run it, or a limit ended it; NoAnswer where there is no sandbox.
        """
        binds = {f"{INSIDE}/agent": AGENT, **more.pop("binds", {})}
        mark = f"<{secrets.token_hex(16)}>"
        argv = (self.python, f"{INSIDE}/agent/main.py", task, mark)
        ran = self.run(Command(argv, msgspec.json.encode(arguments), binds=binds, **more), timeout)
        if ran.ended != "exited":
            raise Ended(how_it_ended(ran, self.limits if timeout is None else Limits(timeout)))
        try:
            return msgspec.json.decode(ran.stdout.rpartition(mark.encode())[2])
        except msgspec.DecodeError:
            raise Ended(f"{self.python} did not run: exit status {ran.status}, {last_line(ran.stderr)}") from None


def how_it_ended(ran: Ran, limits: Limits) -> str:
    """Which limit a run hit, in words."""
    return {
        "exited": "",
        "timeout": f"out of time after {limits.seconds:g} s",
        "memory": "out of memory",
        "processes": "too many processes",
        "output": "too much output",
    }[ran.ended]


def gist(text: str) -> str:
    """An error's first line and its last: the first says what failed, the last often why."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ... ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else ""


def last_line(text: bytes) -> str:
    """The last line of an output, for messages."""
    lines = text[-4096:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "without a word"
