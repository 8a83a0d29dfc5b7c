"""Asks the image's own loader what it finds for each file, as `ldd -r` does."""

from __future__ import annotations

import os
import re
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIMIT = 5000  # of what is undefined, for one file
OUTPUT = 8 << 20
_FOUND = re.compile(r"\t(\S.*?)(?: => (.*?))?(?: \(0x[0-9a-f]+\))?\Z")
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_UNDEFINED = re.compile(r"undefined symbol: ([^\t]*)\t\((.*)\)\Z")
_MUSL_MISSING = re.compile(r"Error loading shared library ([^:]*): .*\Z")
_MUSL_UNDEFINED = re.compile(r"Error relocating (.*): ([^: ]*): symbol not found\Z")
_NOWHERE = "not found"


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """For each of `files` (path and loader): libraries and where they are, what is undefined, what else is said.

    `jobs` are asked at once; each may take `seconds`, all of them `total`; `unfinished` counts those that are left.
    """
    todo = list(reversed(arguments["files"]))
    deadline = time.monotonic() + arguments["total"]
    found: dict[str, Any] = {}

    def work() -> None:
        while time.monotonic() < deadline:
            try:
                path, loader = todo.pop()
            except IndexError:
                return
            try:
                found[path] = asked(path, loader, arguments["seconds"])
            except Exception as error:
                found[path] = {"libraries": {}, "undefined": [], "errors": ["%s: %s" % (loader, error)]}

    threads = [threading.Thread(target=work) for _ in range(arguments["jobs"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"files": found, "unfinished": len(arguments["files"]) - len(found)}


def asked(path: str, loader: str, seconds: float) -> dict[str, Any]:
    """What a loader says of one file. Nothing of the file is run but what picks functions by processor (IFUNC)."""
    import subprocess

    if os.path.basename(loader).startswith("ld-musl"):
        words, env = [loader, "--list", path], dict(os.environ)
    else:
        # ld.so(8): the libraries, then all relocations, functions included, with a word on what is not there.
        words = [loader, path]
        env = dict(os.environ, LD_TRACE_LOADED_OBJECTS="1", LD_WARN="yes", LD_BIND_NOW="yes", LD_VERBOSE="")
    try:
        done = subprocess.run(
            words, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return {"libraries": {}, "undefined": [], "errors": ["no answer after %g s" % seconds], "hung": True}
    text = (done.stdout[:OUTPUT] + b"\n" + done.stderr[:OUTPUT]).decode("utf-8", "backslashreplace")
    answer = parsed(text, path)
    if done.returncode < 0:
        answer["errors"].append("the loader is ended by signal %d" % -done.returncode)
    elif done.returncode and not answer["errors"] and not answer["undefined"]:
        answer["errors"].append("the loader ends with exit status %d" % done.returncode)
    return answer


def parsed(text: str, path: str) -> dict[str, Any]:
    """The lines of a loader, sorted, without addresses."""
    libraries: dict[str, str] = {}
    undefined = set()
    errors = set()
    for raw in text.split("\n"):
        match = _FOUND.match(raw)
        if match:
            name, place = match.groups()
            if place is None:
                place = name if name.startswith("/") else ""
            if place and "linux-vdso" not in name and "linux-gate" not in name:
                libraries[name] = place if place == _NOWHERE else os.path.normpath(place)
            continue
        line = raw.strip()
        match = _UNDEFINED.match(line)
        if match:
            symbol, place = match.groups()
        else:
            match = _MUSL_UNDEFINED.match(line)
            if match:
                place, symbol = match.groups()
        if match:
            undefined.add(symbol if place == path else "%s (%s)" % (symbol, os.path.normpath(place)))
            continue
        match = _MUSL_MISSING.match(line)
        if match:
            libraries[match.group(1)] = _NOWHERE
        elif line:
            errors.add(_ADDRESS.sub("0x...", line[len(path) + 2 :] if line.startswith(path + ": ") else line)[:500])
    return {"libraries": libraries, "undefined": bounded(undefined), "errors": bounded(errors)}


def bounded(texts: set[str]) -> list[str]:
    """The texts in order; of too many, a digest of the rest."""
    import hashlib

    ordered = sorted(texts)
    if len(ordered) <= LIMIT:
        return ordered
    digest = hashlib.sha256("\n".join(ordered[LIMIT:]).encode()).hexdigest()
    return [*ordered[:LIMIT], "%d more (sha256 %s)" % (len(ordered) - LIMIT, digest)]
