"""Progress on standard error: for what takes over a second, and only where somebody looks at it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is; 0 when nobody knows."""

PATIENCE = 1.0
"""Seconds before anything shows."""


@contextmanager
def progress(what: str) -> Iterator[Report | None]:
    """A function to report progress with; None when standard error is no terminal. `what` shows until it is called."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(what, total=None)
    timer = threading.Timer(PATIENCE, bar.start)
    timer.daemon = True
    timer.start()

    def report(doing: str, done: int, total: int) -> None:
        bar.update(task, description=doing, completed=done, total=total or None)

    try:
        yield report
    finally:
        timer.cancel()
        timer.join()
        bar.stop()
