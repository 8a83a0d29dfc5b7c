"""Attending to a run: its input is fed, its output kept, and its limits are held.

Memory and processes are the kernel's to limit where a run has a control group. Where it has none, its processes are
looked at ten times a second: what one allocates between two looks is seen late, and the machine's memory is the limit
until then. Address-space limits (RLIMIT_AS) are no way out: CUDA and Go reserve far more than they use.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO

from deadweight.verify.sandbox import OUTPUT_LIMIT, End, Limits
from deadweight.verify.sandbox.cgroups import Group

STEP = 0.02
"""Seconds after which an end is seen at the latest."""
LOOK = 0.1
"""Seconds between two looks at memory and processes."""
DYING_SECONDS = 30.0
"""How long what was killed has to be gone, output and all."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_READ = 1 << 18


@dataclass
class Gauge:
    """What a run takes, as far as it can be known."""

    limits: Limits
    group: Group
    pid: int | None = None
    """The first process of the run; None where an engine has it and holds the limits."""
    peak: int | None = None
    """The most bytes seen so far; a short peak between two looks is missed."""
    _looked: float = field(default=0.0, repr=False)

    def exceeded(self) -> End | None:
        """The limit that the run is over, if it is; looks at most ten times a second."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return None
        self._looked = now
        return self.look()

    def look(self) -> End | None:
        """The same, now."""
        if self.group.ran_out_of_memory:
            self.peak = self.limits.memory
            return "memory"
        if self.group.ran_out_of_processes:
            return "processes"
        memory = self.group.memory
        if self.pid is not None and (memory is None or "pids" not in self.group.folders):
            pids = list(islice(descendants(self.pid), self.limits.processes + 1))  # a fork bomb has no end
            if "pids" not in self.group.folders and sum(map(_tasks, pids)) > self.limits.processes:
                return "processes"
            if memory is None:
                memory = _memory(pids, self.limits.memory)
                if memory > self.limits.memory:
                    self.peak = max(self.peak or 0, memory)
                    return "memory"
        if memory is not None:
            self.peak = max(self.peak or 0, memory)
        return None


def descendants(pid: int) -> Iterator[int]:
    """A process and all below it."""
    todo = [pid]
    while todo:
        here = todo.pop()
        yield here
        with suppress(OSError):
            for task in Path(f"/proc/{here}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())


def _tasks(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
    except OSError:
        return 0


def _memory(pids: list[int], limit: int) -> int:
    """Bytes that processes have. What they share is divided among them only where it matters, since that is slow."""
    resident = sum(_resident(pid) for pid in pids)
    return resident if resident <= limit else sum(_proportional(pid) for pid in pids)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    except OSError:
        return _resident(pid)


@dataclass(frozen=True)
class Attended:
    """What a process said until its end, and which limit that was."""

    stdout: bytes
    stderr: bytes
    ended: End


def attend(
    process: subprocess.Popen[bytes],
    stdin: bytes,
    seconds: float,
    exceeded: Callable[[], End | None],
    kill: Callable[[], object],
    let_signals_through: Callable[[], None],
) -> Attended:
    """Feeds a process with three pipes, and reads what it writes, until it and all that it started are gone.

    `kill` ends what is left: it is called when a limit is hit, and when the process itself is at its end. Signals that
    are deferred have their effect here.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    until = time.monotonic() + seconds
    outputs = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    ended: End = "exited"
    dead_by: float | None = None
    with selectors.DefaultSelector() as waiting:
        for fd in outputs:
            os.set_blocking(fd, False)
            waiting.register(fd, selectors.EVENT_READ)
        os.set_blocking(process.stdin.fileno(), False)
        waiting.register(process.stdin.fileno(), selectors.EVENT_WRITE)
        left = memoryview(stdin)
        while True:
            let_signals_through()
            gone = process.poll() is not None
            now = time.monotonic()
            if dead_by is None:
                over = None if gone else _over(outputs, now > until, exceeded)
                if gone or over is not None:
                    ended = over or "exited"
                    dead_by = now + DYING_SECONDS
                    kill()
            elif (gone and not any(fd in outputs for fd in waiting.get_map())) or now > dead_by:
                break
            for key, _ in waiting.select(STEP):
                if key.fd in outputs:
                    _read(waiting, key.fd, outputs[key.fd])
                else:
                    left = _write(waiting, process.stdin, left)
    stdout, stderr = (bytes(kept[:OUTPUT_LIMIT]) for kept in outputs.values())
    return Attended(stdout, stderr, ended)


def _over(outputs: dict[int, bytearray], late: bool, exceeded: Callable[[], End | None]) -> End | None:
    if any(len(kept) > OUTPUT_LIMIT for kept in outputs.values()):
        return "output"
    return "timeout" if late else exceeded()


def _read(waiting: selectors.BaseSelector, fd: int, kept: bytearray) -> None:
    try:
        data = os.read(fd, _READ)
    except BlockingIOError:
        return
    kept += data
    if not data or len(kept) > OUTPUT_LIMIT:
        waiting.unregister(fd)


def _write(waiting: selectors.BaseSelector, stdin: IO[bytes], left: memoryview) -> memoryview:
    try:
        left = left[os.write(stdin.fileno(), left) :] if left else left
    except BlockingIOError:
        return left
    except BrokenPipeError:  # it reads no more
        left = left[:0]
    if not left:
        waiting.unregister(stdin.fileno())
        stdin.close()
    return left
