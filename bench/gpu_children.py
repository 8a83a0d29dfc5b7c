"""Runs gpu_work.py in fresh processes, each under a time limit, and collects what it says line by line.

A process that crashes or hangs in a probe is that probe's outcome; the probes after it run in another one.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpu_trees import CannotCheck, Tree
from gpu_verdicts import Outcome

WORK = Path(__file__).with_name("gpu_work.py")


@dataclass(frozen=True)
class Runner:
    """How to run work: which interpreter, in which environment, on which device, and until when."""

    python: str
    environment: Mapping[str, str]
    device: str
    deadline: float
    """By time.monotonic()."""
    patience: float = 90.0
    """Seconds that one line may take: importing torch from a cold disk, or the slowest probe."""

    def left(self) -> float:
        """Seconds of the budget that are left, 0 at least."""
        return max(0.0, self.deadline - time.monotonic())


class Ended(Exception):
    """A process ended too early or was stopped."""

    def __init__(self, outcome: Outcome, errors: str) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome
        self.errors = errors


def command(runner: Runner, tree: Tree, mode: str, *options: str) -> list[str]:
    """The command line of one process."""
    paths = [option for path in tree.paths for option in ("--path", path)]
    return [runner.python, "-s", "-S", "-B", str(WORK), mode, "--device", runner.device, *paths, *options]


def lines(runner: Runner, tree: Tree, mode: str, *options: str, **more: str) -> Iterator[dict[str, Any]]:
    """The documents that one process prints; `more` is added to its environment.

    Raises Ended when it crashes, says nothing for too long, or the budget is spent.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command(runner, tree, mode, *options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**runner.environment, **more},
            start_new_session=True,
        )
        try:
            yield from (json.loads(line) for line in _until_silence(process, runner))
        except TimeoutError:
            spent = runner.left() <= 0
            outcome = Outcome("not run", "the budget is spent") if spent else Outcome("hang", "no answer")
            raise Ended(outcome, _tail(errors)) from None
        finally:
            # The whole session: some libraries start helpers of their own.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdout:
                process.stdout.close()
        if process.returncode:
            ended = f"signal {-process.returncode}" if process.returncode < 0 else f"status {process.returncode}"
            raise Ended(Outcome("crash", ended), _tail(errors))


def _until_silence(process: subprocess.Popen[bytes], runner: Runner) -> Iterator[bytes]:
    """The lines of a process's output, until it closes it. Raises TimeoutError when none comes in time."""
    assert process.stdout is not None
    waiting = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(min(runner.patience, runner.left())):
                raise TimeoutError
            data = os.read(process.stdout.fileno(), 1 << 20)
            if not data:
                break
            *whole, waiting = (waiting + data).split(b"\n")
            yield from whole
    try:
        process.wait(min(runner.patience, runner.left()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None


def _tail(errors: Any) -> str:
    errors.seek(0)
    return str(errors.read().decode(errors="replace")[-1500:])


def one(runner: Runner, tree: Tree, mode: str, **more: str) -> dict[str, Any]:
    """The document of a process that prints one. Raises CannotCheck with its error output when it fails."""
    try:
        return next(iter(list(lines(runner, tree, mode, **more))))
    except Ended as ended:
        reason = f"{mode} in the {tree.name} tree: {ended.outcome.kind} {ended.outcome.text}"
        raise CannotCheck(f"{reason}\n{ended.errors}") from None


@dataclass(frozen=True)
class Ran:
    """What a run of many probes gave."""

    outcomes: Mapping[str, Outcome]
    libraries: Sequence[str]
    """Shared libraries that the processes loaded."""
    errors: Sequence[str]
    """The ends of the error output of processes that did not come to theirs."""


def run_probes(runner: Runner, tree: Tree, names: Sequence[str], say: Callable[[str], None], **more: str) -> Ran:
    """Every probe's outcome, in as few processes as it takes."""
    outcomes: dict[str, Outcome] = {}
    libraries: set[str] = set()
    errors: list[str] = []
    while remaining := [name for name in names if name not in outcomes]:
        if runner.left() <= 0:
            break
        current = ""
        try:
            for line in lines(runner, tree, "probes", "--probes", ",".join(remaining), **more):
                current = line.get("begun", current)
                if "probe" in line:
                    outcomes[line["probe"]] = _outcome(line)
                libraries |= set(line.get("libraries", ()))
        except Ended as ended:
            # Without a first probe torch itself does not work, and will not in another process either.
            for name in [current] if current else remaining:
                outcomes[name] = replace(
                    outcomes.get(name, ended.outcome), kind=ended.outcome.kind, text=ended.outcome.text
                )
            where = current or "before the first probe"
            errors.append(f"{where}: {ended.outcome.text}\n{ended.errors}")
            say(f"  {where}: {ended.outcome.kind} {ended.outcome.text}")
    outcomes |= {name: Outcome("not run") for name in names if name not in outcomes}
    return Ran(outcomes, sorted(libraries), errors)


def _outcome(line: Mapping[str, Any]) -> Outcome:
    seconds = float(line["seconds"])
    if "error" in line:
        return Outcome("error", line["error"], seconds=seconds)
    if "skipped" in line:
        return Outcome("skipped", line["skipped"], seconds=seconds)
    return Outcome("ok", outputs=tuple(line["outputs"].items()), seconds=seconds)
