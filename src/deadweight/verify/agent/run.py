"""Runs a command between others in one container, and collects the arrays that it leaves."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENDINGS = (".npy", ".npz")
COUNT = 10_000  # arrays' files


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """What `command` did, between `setup` and `teardown`, with `stdin`.

    With a `limit`: the files of arrays that it left where DEADWEIGHT_OUT says, as long as they are no more bytes.
    """
    import base64
    import tempfile

    environment = dict(os.environ)
    out = None
    if arguments["limit"]:
        out = environment["DEADWEIGHT_OUT"] = tempfile.mkdtemp()
    for number, words in enumerate(arguments["setup"], 1):
        status, _, errors = started(words, b"", environment)
        if status:
            return {"failed": "setup %d" % number, "status": status, "stderr": encoded(errors[-4096:])}
    stdin = base64.b64decode(arguments["stdin"])
    status, output, errors = started(arguments["command"], stdin, environment)
    answer = {"failed": "", "status": status, "stdout": encoded(output), "stderr": encoded(errors)}
    if out is not None:
        answer.update(collected(out, arguments["limit"]))
    for number, words in enumerate(arguments["teardown"], 1):
        ended, _, errors = started(words, b"", environment)
        if ended and not answer["failed"]:
            answer.update(failed="teardown %d" % number, status=ended, stderr=encoded(errors[-4096:]))
    return answer


def started(words: list[str], stdin: bytes, environment: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Exit status, standard output and standard error of a program; 127 where there is none."""
    import subprocess

    try:
        done = subprocess.run(words, input=stdin, capture_output=True, env=environment, check=False)
    except (OSError, ValueError) as error:
        return 127, b"", ("%s: %s" % (words[0], error)).encode("utf-8", "backslashreplace")
    return done.returncode if done.returncode >= 0 else 128 - done.returncode, done.stdout, done.stderr


def collected(folder: str, limit: int) -> dict[str, Any]:
    """The files of arrays in a folder, by their path in it, and how many bytes there are, all of them counted."""
    files: dict[str, str] = {}
    total = 0
    for here, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(here, name)
            if not name.endswith(ENDINGS) or os.path.islink(path) or not os.path.isfile(path):
                continue
            total += os.path.getsize(path)
            if total <= limit and len(files) < COUNT:
                with open(path, "rb") as file:
                    key = os.path.relpath(path, folder).encode("utf-8", "backslashreplace").decode()
                    files[key] = encoded(file.read(limit))
    return {"files": files, "total": total, "complete": total <= limit and len(files) < COUNT}


def encoded(data: bytes) -> str:
    """Base64, for JSON."""
    import base64

    return base64.b64encode(data).decode()
