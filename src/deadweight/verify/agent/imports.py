"""Imports modules, each in a process of its own, forked from one that has imported nothing yet."""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ERROR_LIMIT = 2000
NAMESPACE = "imports as a namespace package"
_WAIT = 0.005  # seconds between looks at the children


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """How the import of each of `modules` went, and with `repeats` what the import of each takes.

    `jobs` run at once; a module has `seconds`, all of them together `total`. What is measured is measured alone, and
    warm: after all modules were imported once. `unfinished` are those that were not imported by then, `hung` those that
    had their time and were ended.
    """
    for path in reversed(arguments["paths"]):
        sys.path.insert(0, path)
    deadline = time.monotonic() + arguments["total"]
    errors: dict[str, str] = {}
    measured: dict[str, Any] = {}
    unfinished = []
    hung = []
    for name, result in batch(arguments["modules"], arguments["jobs"], arguments["seconds"], deadline):
        if result is None:
            unfinished.append(name)
        else:
            errors[name] = result["error"]
            if result.get("hung"):
                hung.append(name)
    for name in [name for name in errors if not errors[name]] if arguments["repeats"] else ():
        results = batch([name] * arguments["repeats"], 1, arguments["seconds"], deadline)
        good = [result for _, result in results if result is not None and not result["error"]]
        if len(good) < arguments["repeats"]:
            unfinished.append(name)
            continue
        # The least is what noise disturbs least.
        measured[name] = {key: min(result[key] for result in good) for key in ("seconds", "memory")}
    return {"errors": errors, "measured": measured, "unfinished": unfinished, "hung": hung}


def batch(names: list[str], jobs: int, seconds: float, deadline: float) -> list[Any]:
    """(name, how it went) for each name; None for what the deadline left undone."""
    found: list[Any] = []
    running: dict[int, Any] = {}
    todo = list(names)
    while todo or running:
        now = time.monotonic()
        if now > deadline:
            for pid in running:
                end(pid)
            return found + [(name, None) for name, _, _ in running.values()] + [(name, None) for name in todo]
        while todo and len(running) < jobs:
            name = todo.pop(0)
            pid, read = start(name)
            running[pid] = (name, read, now + seconds)
        for pid in list(running):
            name, read, until = running[pid]
            done, status, usage = os.wait4(pid, os.WNOHANG)
            if not done and now < until:
                continue
            if not done:
                end(pid)
            text = said(read)
            del running[pid]
            found.append((name, outcome(text, status, usage) if done else hang(seconds)))
        time.sleep(_WAIT)
    return found


def start(name: str) -> Any:
    """A child that imports a module, and where it says how that went."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            child(name, write)
        finally:
            os._exit(1)
    os.close(write)
    os.set_blocking(read, False)
    return pid, read


def end(pid: int) -> None:
    """Ends a child, and what it started."""
    import contextlib

    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def said(read: int) -> str:
    """What a child has written; not to its end, since what it started can have the pipe, too."""
    try:
        text = os.read(read, 1 << 16)
    except BlockingIOError:
        text = b""
    os.close(read)
    return text.decode("utf-8", "replace")


def hang(seconds: float) -> dict[str, Any]:
    """The result of a module that was ended."""
    return {"seconds": seconds, "memory": 0, "error": "is not imported after %g s" % seconds, "hung": True}


def outcome(text: str, status: int, usage: Any) -> dict[str, Any]:
    """What a child said, or how it died."""
    seconds, newline, error = text.partition("\n")
    if newline:
        return {"seconds": float(seconds), "memory": usage.ru_maxrss * 1024, "error": error}
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            how = "crashes: %s" % signal.Signals(number).name
        except ValueError:
            how = "crashes: signal %d" % number
    else:
        how = "ends its process with exit status %d" % os.WEXITSTATUS(status)
    return {"seconds": 0.0, "memory": 0, "error": how}


def child(name: str, write: int) -> None:
    """Imports one module and says how it went: by `_exit`, so that no thread and no exit handler keeps it."""
    import importlib

    os.setpgid(0, 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    sys.stdin = open(0, closefd=False)
    sys.argv[:] = [""]
    error = ""
    begin = time.perf_counter()
    try:
        if is_namespace(importlib.import_module(name)):
            error = NAMESPACE
    except BaseException as caught:
        error = described(caught)
    taken = time.perf_counter() - begin
    os.write(write, ("%f\n%s" % (taken, error)).encode("utf-8", "backslashreplace"))
    os._exit(0)


def is_namespace(module: Any) -> bool:
    """Whether nothing but a directory was imported: what is left of a package without its __init__.py is one, too."""
    spec = getattr(module, "__spec__", None)
    place = getattr(spec, "submodule_search_locations", None)
    return place is not None and getattr(spec, "origin", None) is None and getattr(module, "__file__", None) is None


def described(caught: BaseException) -> str:
    """An error as its traceback's last line has it."""
    name = type(caught).__name__
    try:
        text = str(caught)
    except BaseException as other:
        text = "(its text raises %s)" % type(other).__name__
    return ("%s: %s" % (name, text) if text else name)[:ERROR_LIMIT]
