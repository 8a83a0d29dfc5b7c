"""Signals wait while something is set up or cleaned up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Signals that Python handles wait until the end of the block, or until the function that it gives is called.

    Their handlers mostly raise (Ctrl-C does, and the command line lets SIGTERM do so). At any other moment that could
    be just between the start of a process and the note that it was started.
    """
    pending: list[int] = []
    before: dict[int, Callable[[int, Any], Any]] = {}

    def note(number: int, _: object) -> None:
        pending.append(number)

    def let_through() -> None:
        while pending:
            number = pending.pop(0)
            before[number](number, None)

    if threading.current_thread() is threading.main_thread():  # no other one is interrupted by signals
        for each in signal.valid_signals():
            current = signal.getsignal(each)
            if callable(current):
                before[each] = current
                signal.signal(each, note)
    try:
        yield let_through
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is note:  # a handler may have had it ignored from now on
                signal.signal(number, handler)
        let_through()
