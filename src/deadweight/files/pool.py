"""Files prepared in several processes at once, which end with whoever asked for them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from typing import Final

from deadweight.errors import EnvironmentFailure
from deadweight.files.prepare import Job, Prepared, prepare
from deadweight.files.replace import remove

WORTH_PROCESSES: Final = 64 << 20
"""Bytes of programs and libraries from which on processes of their own are worth starting."""


def prepare_all(jobs: Sequence[Job], workers: int) -> Generator[tuple[Job, Prepared]]:
    """Prepares files, the largest first, and gives each as soon as it is done.

    Whoever stops listening closes the iterator: then nothing more is prepared, and of what was prepared but not yet
    given no temporary file stays. EnvironmentFailure where a file cannot be written.
    """
    jobs = sorted(jobs, key=lambda job: (-job.size, job.path))
    if workers == 1 or sum(job.size for job in jobs) < WORTH_PROCESSES:
        for job in jobs:
            yield job, prepare(job)
        return
    given: set[Job] = set()
    try:
        with _processes(min(workers, len(jobs))) as pool:
            with _interrupts_held():
                futures = {pool.submit(prepare, job): job for job in jobs}
            for future in as_completed(futures):
                job, prepared = futures.pop(future), future.result()
                given.add(job)
                yield job, prepared
    except BrokenProcessPool:
        raise EnvironmentFailure(
            "a process that worked on a file has ended, for want of memory perhaps: free some and run it again"
        ) from None
    finally:
        remove(job.temporary for job in jobs if job not in given)


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes are fresh ones, without this one's threads and locks, and end at once on an exception."""
    before = set(active_children())
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(active_children()) - before:
                child.terminate()
            raise


def _end_with_parent() -> None:
    """Has this process end when the one that started it does, even if that is killed and can tell nobody."""
    parent = parent_process()
    assert parent is not None  # it was started by one

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Holds interrupts from the keyboard back; processes that are started meanwhile never get any.

    The terminal sends them to all processes, and one is enough to see to them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
