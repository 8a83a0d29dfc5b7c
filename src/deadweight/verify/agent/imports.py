"""Imports modules, each in a process of its own."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """For each of `modules`: how it went, seconds, and bytes resident afterwards."""
    modules = arguments["modules"]
    jobs = arguments.get("jobs", 2)
    for path in reversed(arguments.get("paths", [])):
        sys.path.insert(0, path)
    results = {}
    running: dict[int, tuple[str, int]] = {}
    todo = list(modules)
    while todo or running:
        while todo and len(running) < jobs:
            name = todo.pop(0)
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(read)
                child(name, write)
            os.close(write)
            running[pid] = (name, read)
        pid, status = os.wait()
        if pid not in running:
            continue
        name, read = running.pop(pid)
        with os.fdopen(read, "rb") as pipe:
            text = pipe.read().decode("utf-8", "replace")
        results[name] = outcome(text, status)
    return results


def outcome(text: str, status: int) -> dict[str, Any]:
    """What a child said, or how it died."""
    parts = text.split("\n", 2)
    if len(parts) == 3:
        return {"seconds": float(parts[0]), "memory": int(parts[1]), "error": parts[2]}
    how = "signal %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else "exit status %d" % os.WEXITSTATUS(status)
    return {"seconds": 0.0, "memory": 0, "error": "ended by " + how}


def child(name: str, write: int) -> None:
    """Imports one module and says how it went."""
    import importlib
    import resource

    start = time.monotonic()
    error = ""
    try:
        importlib.import_module(name)
    except BaseException as caught:
        error = "%s: %s" % (type(caught).__name__, caught)
    taken = time.monotonic() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    with os.fdopen(write, "wb") as pipe:
        pipe.write(("%f\n%d\n%s" % (taken, memory, error[:2000])).encode("utf-8", "backslashreplace"))
    os._exit(0)
