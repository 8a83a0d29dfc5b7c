"""One bwrap process: held back until its limits are in place, and ended with all that it started.

bwrap(1) has a process of its own outside the sandbox, and one inside, which is the first of its process namespace:
when that one is killed the kernel kills all others before anybody can see it gone (pid_namespaces(7)).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from deadweight.errors import BadInputError, shown
from deadweight.verify.sandbox.limits import DYING_SECONDS
from deadweight.verify.sandbox.seccomp import no_user_namespaces

_STATUS_LIMIT = 1 << 16


@dataclass
class Box:
    """A started bwrap, whose program waits for `release`."""

    process: subprocess.Popen[bytes]
    status: int
    """A pipe's end, from which what bwrap says of itself comes (--json-status-fd)."""
    gate: int
    """A pipe's end: the program starts when a byte is written."""
    pid: int | None = None
    """The first process inside, by its number out here; None when bwrap failed before it had one."""
    handle: int | None = None
    """The same as a file (pidfd_open(2)), which never means another process."""
    _said: bytes = b""

    def wait_until_ready(self) -> None:
        """Waits until the process inside is there, or bwrap at its end."""
        while not self._said.endswith(b"}\n") and (more := os.read(self.status, _STATUS_LIMIT)):
            self._said += more
        if self._said.endswith(b"}\n") and self.handle is None:
            self.pid = int(json.loads(self._said)["child-pid"])
            with suppress(OSError):  # gone already
                self.handle = os.pidfd_open(self.pid)

    def release(self) -> None:
        """Lets the program start."""
        with suppress(BrokenPipeError):
            os.write(self.gate, b"\n")

    def kill(self) -> None:
        """Ends all that runs inside; it is gone when this returns, but for what the kernel itself holds."""
        # bwrap killed between the start of the process inside and its word that it may go on leaves that one waiting.
        self.wait_until_ready()
        if self.handle is not None:
            with suppress(OSError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
            waiting = select.poll()
            waiting.register(self.handle, select.POLLIN)
            waiting.poll(DYING_SECONDS * 1000)
        else:
            self.process.kill()

    def exit_status(self) -> int | None:
        """The program's exit status once bwrap is gone; None where the program was never started, or was killed."""
        said = b""
        while more := os.read(self.status, _STATUS_LIMIT):
            said += more
        return int(json.loads(said)["exit-code"]) if said else None


@contextmanager
def started(
    program: str, options: Sequence[str], argv: Sequence[str], data: Mapping[str, bytes] | None = None
) -> Iterator[Box]:
    """A bwrap with these options for a program. Options and environment do not show in the list of processes.

    `data` are small files for the sandbox, by their places. At the end the sandbox is killed.
    Signals are to be deferred meanwhile.
    """
    encoded(argv)
    with ExitStack() as ours:
        with ExitStack() as theirs:
            words = list(options)
            passed = []
            for place, content in (data or {}).items():
                passed.append(_memory_file(content, theirs))
                words += ["--perms", "0644", "--ro-bind-data", str(passed[-1]), place]
            program_filter = no_user_namespaces()
            if program_filter:
                passed.append(_memory_file(program_filter, theirs))
                words += ["--seccomp", str(passed[-1])]
            arguments = _memory_file(encoded(words), theirs)
            status, status_end = _pipe(ours, theirs)
            gate_end, gate = _pipe(theirs, ours)
            held = ("--args", arguments, "--json-status-fd", status_end, "--block-fd", gate_end)
            process = subprocess.Popen(
                [program, *map(str, held), "--", *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[*passed, arguments, status_end, gate_end],
                cwd="/",
                start_new_session=True,  # signals of the terminal are for deadweight alone
                env={},  # bwrap itself heeds nothing that the image says
            )
        box = Box(process, status, gate)
        try:
            yield box
        finally:
            _end(box)


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """A pipe's two ends, each closed with its owner."""
    read, write = os.pipe()
    reader.callback(os.close, read)
    writer.callback(os.close, write)
    return read, write


def _memory_file(content: bytes, owner: ExitStack) -> int:
    fd = os.memfd_create("deadweight")
    owner.callback(os.close, fd)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _end(box: Box) -> None:
    box.kill()
    box.process.kill()
    box.process.wait()
    for pipe in (box.process.stdin, box.process.stdout, box.process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    if box.handle is not None:
        handle, box.handle = box.handle, None
        os.close(handle)


def encoded(words: Sequence[str]) -> bytes:
    """Options as bwrap reads them from a file: each ended by a zero byte, so none may have one."""
    for word in words:
        if "\0" in word:
            raise BadInputError(
                f"the image's configuration has a zero byte in {shown(word)}; nothing can be run with it"
            )
    try:
        return b"".join(os.fsencode(word) + b"\0" for word in words)
    except UnicodeEncodeError as error:
        raise BadInputError(f"the image's configuration has text that is no Unicode: {shown(error.object)}") from None
