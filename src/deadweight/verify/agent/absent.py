"""Whether modules are there: found, and then imported, each in a process of its own."""

from __future__ import annotations

import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WALKED = 10000


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """For each of `modules`: `state` (`absent`, `leftover`, `imports` or `fails`) and `detail`."""
    for path in reversed(arguments["paths"]):
        sys.path.insert(0, path)
    return {name: apart(name) for name in arguments["modules"]}


def apart(name: str) -> dict[str, str]:
    """Looks for a module in a child process: importing it may do anything."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        try:
            found = look(name)
        except BaseException as error:  # SystemExit as well
            found = {"state": "fails", "detail": "%s: %s" % (type(error).__name__, error)}
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(dict(found, detail=found["detail"][:500])).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if text:
        answer: dict[str, str] = json.loads(text.decode())
        return answer
    how = "signal %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else "exit status %d" % os.WEXITSTATUS(status)
    return {"state": "fails", "detail": "ended by " + how}


def look(name: str) -> dict[str, str]:
    """Finds a module, which runs nothing of it, and imports it if there is any code."""
    import importlib
    import importlib.util

    spec = importlib.util.find_spec(name.partition(".")[0])
    if spec is None:
        return {"state": "absent", "detail": ""}
    if spec.origin in (None, "namespace") and not any(map(has_code, spec.submodule_search_locations or ())):
        return {"state": "leftover", "detail": ", ".join(spec.submodule_search_locations or ())}
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name + ".").startswith(error.name + "."):
            return {"state": "absent", "detail": ""}
        raise
    return {"state": "imports", "detail": str(getattr(module, "__file__", None) or spec.origin or "")}


def has_code(directory: str) -> bool:
    """Whether anything below a directory could be imported; caches without their source cannot."""
    from importlib.machinery import all_suffixes

    suffixes = tuple(all_suffixes())
    for count, (_, folders, files) in enumerate(os.walk(directory)):
        if "__pycache__" in folders:
            folders.remove("__pycache__")
        if count > WALKED or any(name.endswith(suffixes) for name in files):
            return True
    return False
