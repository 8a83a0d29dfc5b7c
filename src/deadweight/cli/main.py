"""The group of all commands, and what every command has in common: errors, signals, exit statuses.

0 done, 1 the answer is no, 2 usage, 3 the input is bad, 4 the environment, 70 a defect of deadweight,
128 + N stopped by signal N
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

from deadweight.cli.apply import apply_command
from deadweight.cli.build import build_command
from deadweight.cli.cache import cache_command
from deadweight.cli.check import check_command
from deadweight.cli.compare import compare_command
from deadweight.cli.completion import completion_command
from deadweight.cli.dockerfile import dockerfile_command
from deadweight.cli.doctor import doctor_command
from deadweight.cli.explore import explore_command
from deadweight.cli.gpus import gpus_command
from deadweight.cli.init import init_command
from deadweight.cli.inspect import inspect_command
from deadweight.cli.lint import lint_command
from deadweight.cli.output import ReaderGone
from deadweight.cli.passes import passes_command
from deadweight.cli.plan import plan_command
from deadweight.cli.prune import prune_command
from deadweight.cli.rollback import rollback_command
from deadweight.cli.slim import slim_command
from deadweight.cli.split import split_command
from deadweight.cli.verify import verify_command
from deadweight.cli.wheel import wheel_command
from deadweight.errors import DeadweightError
from deadweight.passes.base import unregistered

DEFECT = 70
"""EX_SOFTWARE of sysexits.h."""
CLEAN_UP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class Stopped(BaseException):
    """A signal asked deadweight to stop. A BaseException, like KeyboardInterrupt, so that only clean-up sees it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="IMAGE is docker-daemon:NAME, podman:NAME, containers-storage:NAME, docker://HOST/NAME, oci:DIR[:TAG], "
    "oci-archive:FILE, "
    "docker-archive:FILE, rootfs:DIR, the bare path of such a file or directory, or an engine's bare "
    "NAME:TAG. Exit status: 0 done, 1 the answer is no, 2 wrong usage, 3 bad input, 4 the environment.",
)
@click.version_option(package_name="deadweight", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show where errors come from (or set DEADWEIGHT_DEBUG=1).")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Slims the container images of Python machine-learning services.

    Says where every byte of an image is and why, plans what can leave, predicts the size to the byte, and builds the
    smaller image without a container engine.

    \b
      deadweight inspect service:latest
      deadweight slim service:latest --tag service:slim --gpu h100
      deadweight slim image.tar --to docker-archive:slim.tar
    """
    if isinstance(context.obj, dict):
        context.obj["debug"] = debug
    missing = unregistered()
    if missing:
        names = ", ".join(missing)
        _say(f"this installation is older than its code and runs without passes ({names}): install it again")


for _command in (
    inspect_command,
    explore_command,
    plan_command,
    apply_command,
    slim_command,
    rollback_command,
    verify_command,
    check_command,
    lint_command,
    init_command,
    dockerfile_command,
    build_command,
    split_command,
    prune_command,
    wheel_command,
    compare_command,
    passes_command,
    cache_command,
    gpus_command,
    doctor_command,
    completion_command,
):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Runs the command line; `arguments` default to this process's. Gives the exit status."""
    environment = os.environ if environment is None else environment
    state: dict[str, bool] = {}
    try:
        with _stopped_by_signals():
            status = cli.main(
                None if arguments is None else list(arguments), "deadweight", standalone_mode=False, obj=state
            )
            if sys.stdout is not None:  # somebody closed it
                sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except BaseException as error:
        if state.get("debug") or environment.get("DEADWEIGHT_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        return _status(error)


def _status(error: BaseException) -> int:
    """Says what went wrong, in one line, and gives the exit status."""
    if isinstance(error, click.ClickException):
        error.show()
        return 2
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        _say("stopped")
        return 128 + signal.SIGINT
    if isinstance(error, Stopped):
        _say(f"stopped by {error}")
        return 128 + error.number
    if isinstance(error, (ReaderGone, BrokenPipeError)):
        # Whoever read the output has seen enough. Python would complain once more when it closes the stream.
        _close_stdout()
        return 128 + signal.SIGPIPE
    if isinstance(error, SystemExit):  # click's shell completion ends so
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, DeadweightError):
        _say(f"error: {error}")
        return error.exit_status
    if isinstance(error, OSError):
        where = f": {error.filename}" if isinstance(error.filename, str) else ""
        _say(f"error: {error.strerror or error}{where}")
        return 4
    if isinstance(error, MemoryError):
        _say("error: there is not enough memory")
        return 4
    _say(
        f"error: {type(error).__name__}: {error}. This is a bug in deadweight, please report it with what "
        f"DEADWEIGHT_DEBUG=1 shows"
    )
    return DEFECT


def _say(message: str) -> None:
    from deadweight.report.text import plain  # noqa: PLC0415

    # The handler of whoever closed standard error cannot be told either.
    try:
        click.echo(f"deadweight: {plain(message)}", err=True)
    except OSError:
        return


def _close_stdout() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return
    finally:
        os.close(null)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Turns signals into exceptions, so that `finally` blocks run and no half output stays.

    The first one counts: it is cleaned up after and the process ends, and further ones are ignored until then. A
    signal that is ignored on entry (nohup) stays so.
    """
    numbers = [getattr(signal, name) for name in CLEAN_UP_SIGNALS if hasattr(signal, name)]
    before: dict[int, Any] = {}
    stopped = False

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    try:
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    except ValueError:  # not the main thread: whoever runs us there handles signals
        before.clear()
    try:
        yield
    finally:
        if not stopped:
            for number, handler in before.items():
                signal.signal(number, handler)
