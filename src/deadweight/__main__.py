"""`deadweight`, the command, and `python -m deadweight`."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


def main() -> int:
    """Runs the command line, and minds signals before that is loaded. Gives the exit status."""
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    # Modules stay, entries and rows are many and free of cycles: going through them again and again finds nothing.
    gc.set_threshold(1_000_000, 20, 20)
    from deadweight.cli.main import main as run  # noqa: PLC0415

    status = run()
    if threading.active_count() == 1:
        _end(status)
    return status


def _end(status: int) -> NoReturn:
    """Ends the process without freeing, object by object, what it made of an image: that takes a twentieth of a second.

    mypy ends the same way.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # somebody closed it
            stream.flush()
    os._exit(status)


def _leave(number: int, _: FrameType | None) -> None:
    """Ends the process at once: nothing is written while modules load, and an exception would be lost in some of them.

    `deadweight.cli.main` says the same once it has taken over.
    """
    try:
        os.write(2, f"deadweight: stopped by {signal.Signals(number).name}\n".encode())
    finally:  # also where nobody can be told
        os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
