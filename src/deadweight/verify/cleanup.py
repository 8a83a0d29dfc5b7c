"""Cleaning up that a signal does not stop half-way."""

from __future__ import annotations

from collections.abc import Callable


def surely(action: Callable[[], object]) -> None:
    """Does something that may be done twice. What interrupts it (the exception of a signal) is raised when it is done:
    the command line lets only the first signal do so.
    """
    try:
        action()
    except BaseException:
        action()
        raise
