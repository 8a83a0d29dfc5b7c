"""A circuit that opens: a service that fails again and again is left alone for a while, and its callers know at once.

Closed, every question goes through. After some failures in a row it opens: questions are refused with the reason, and
with the time after which asking again makes sense. When that is over, one question goes through as a trial: if it
succeeds the circuit closes, if not it stays open as long again.
"""

import math
import threading
import time
from collections.abc import Callable
from typing import Literal

import structlog

from truthgraph.errors import InferenceUnavailable

log = structlog.get_logger()
CircuitState = Literal["closed", "open", "half-open"]


class Circuit:
    """Thread-safe. Each `enter` that returns needs its `leave`."""

    def __init__(self, failures: int, pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Opens after so many failures in a row, for so many seconds."""
        self._most = failures
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0
        self._reason: str | None = None
        self._until: float | None = None
        self._trial = False
        self._era = 0

    @property
    def state(self) -> CircuitState:
        """`half-open` from when a trial is due until it has ended."""
        with self._lock:
            if self._until is None:
                return "closed"
            return "half-open" if self._trial or self._clock() >= self._until else "open"

    @property
    def reason(self) -> str | None:
        """The failure that opened it; None while it is closed."""
        with self._lock:
            return None if self._until is None else self._reason

    def enter(self) -> int:
        """A number to `leave` with. Raises InferenceUnavailable where the circuit is open."""
        with self._lock:
            if self._until is not None:
                left = self._until - self._clock()
                if left > 0:
                    seconds = math.ceil(left)
                    raise InferenceUnavailable(f"{self._reason}; it is asked again in {seconds} s", seconds)
                if self._trial:
                    raise InferenceUnavailable(f"{self._reason}; one question is trying it again now", 1)
                self._trial = True
                self._era += 1
            return self._era

    def leave(self, number: int, failure: str | None = None) -> None:
        """A question has ended, well or with this failure."""
        with self._lock:
            if number != self._era:
                return  # it was asked before the circuit opened or closed, and says nothing of now
            if failure is None:
                self._failed = 0
                if self._trial:
                    self._until, self._trial = None, False
                    self._era += 1
                    log.info("circuit closed")
                return
            self._failed += 1
            if self._trial or self._failed >= self._most:
                self._reason = f"{failure}; it failed {self._failed} times in a row" if self._failed > 1 else failure
                self._until, self._trial = self._clock() + self._pause, False
                self._era += 1
                log.warning("circuit opened", reason=failure, failures=self._failed, seconds=self._pause)
