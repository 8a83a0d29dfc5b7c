"""Several transfers at once, given up together: by threads that nobody waits long for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
_GRACE = 4.0
"""Seconds that transfers get to end in, all together, once they are told to."""


def in_parallel(jobs: Sequence[Callable[[], T]], limit: int, cancel: Callable[[], None]) -> list[T]:
    """The results of `jobs`, in order, of which `limit` run at a time.

    When one fails, or the caller is interrupted, `cancel` is called, no other begins, and the first error is raised.
    Threads are not those of a pool, since Python waits for those at its end, and a server may say nothing for a minute.
    """
    work = _Work(jobs)
    threads = [threading.Thread(target=work.run, daemon=True) for _ in range(min(limit, len(jobs)))]
    for thread in threads:
        thread.start()
    try:
        work.wait()
    except BaseException:
        work.stop()
        cancel()
        end = time.monotonic() + _GRACE
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        raise
    return [work.results[number] for number in range(len(jobs))]


class _Work(Generic[T]):
    def __init__(self, jobs: Sequence[Callable[[], T]]) -> None:
        self.results: dict[int, T] = {}
        self._jobs = list(enumerate(jobs))[::-1]
        self._count = len(jobs)
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def run(self) -> None:
        while True:
            with self._changed:
                if not self._jobs or self._error is not None:
                    return
                number, job = self._jobs.pop()
            try:
                result = job()
            except BaseException as error:
                with self._changed:
                    self._error = self._error or error
                    self._changed.notify_all()
                return
            with self._changed:
                self.results[number] = result
                self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            while self._error is None and len(self.results) < self._count:
                self._changed.wait()
            if self._error is not None:
                raise self._error

    def stop(self) -> None:
        with self._changed:
            self._jobs.clear()


class Sum:
    """Adds up what several transfers report, and reports the sum."""

    def __init__(self, report: Callable[[int], None]) -> None:
        self._report = report
        self._done: dict[int, int] = {}
        self._lock = threading.Lock()

    def part(self, number: int) -> Callable[[int], None]:
        """Takes the reports of one of them."""

        def update(done: int) -> None:
            with self._lock:
                self._done[number] = done
                self._report(sum(self._done.values()))

        return update
