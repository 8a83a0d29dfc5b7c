"""Runs pytest in the image and says what came of each test."""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MESSAGE_LIMIT = 300


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """What came of the tests that pytest's `arguments` select, by their id: an outcome and a message.

    `tools` is where pytest lies, searched after all that the image has. A crash ends the tests, but not the answer;
    `status` is pytest's own, None where it was ended after `total` seconds in the test `running`; `output` is the end
    of what it printed.
    """
    import tempfile

    folder = tempfile.mkdtemp()
    notes, output = os.path.join(folder, "notes"), os.path.join(folder, "output")
    deadline = time.monotonic() + arguments["total"]
    pid = os.fork()
    if pid == 0:
        try:
            stream = os.open(output, os.O_WRONLY | os.O_CREAT)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            os.chdir(tempfile.mkdtemp())
            status = tests(arguments, notes)
            sys.stdout.flush()
        except BaseException as error:
            os.write(2, ("%s: %s\n" % (type(error).__name__, error)).encode("utf-8", "backslashreplace"))
            status = 3
        os._exit(status)
    done, status = 0, 0
    while not done and time.monotonic() < deadline:
        time.sleep(0.02)
        done, status = os.waitpid(pid, os.WNOHANG)
    if not done:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    answer = read(notes, status if done else None)
    with open(output, "rb") as file:
        file.seek(max(os.path.getsize(output) - 4096, 0))
        answer["output"] = file.read().decode("utf-8", "replace")
    return answer


def read(notes: str, status: Any) -> dict[str, Any]:
    """The answer, from what the child wrote down before it ended with a status."""
    import json

    results: dict[str, Any] = {}
    running = ""
    if os.path.exists(notes):
        with open(notes, encoding="utf-8") as file:
            for line in file:
                try:
                    test, outcome, message = json.loads(line)
                except ValueError:
                    break  # it was ended while it wrote
                running = "" if outcome else test
                # What a test's end says comes after the test itself: the worse of both stays.
                if outcome and (outcome in ("failed", "error") or test not in results):
                    results[test] = [outcome, message]
    code = None
    if status is not None and os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if running:
            results[running] = ["crashed", "signal %d" % number]
        code = 128 + number
    elif status is not None:
        code = os.WEXITSTATUS(status)
    return {"results": results, "status": code, "running": running}


def tests(arguments: dict[str, Any], notes: str) -> int:
    """Runs pytest; each line of `notes` is then a test that starts (without an outcome), or one with its outcome."""
    import json

    sys.dont_write_bytecode = True
    sys.path.append(arguments["tools"])
    sys.argv[:] = ["pytest"]
    file = open(notes, "w", encoding="utf-8", buffering=1)

    def note(test: str, outcome: str, message: str = "") -> None:
        words = [text.encode("utf-8", "backslashreplace").decode() for text in (test, outcome, message)]
        file.write(json.dumps(words) + "\n")

    class Plugin:
        """Hears of every test."""

        def pytest_runtest_logstart(self, nodeid: str) -> None:
            note(nodeid, "")

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call":
                expected = hasattr(report, "wasxfail")
                outcome = {"skipped": "xfailed", "passed": "xpassed"}.get(report.outcome) if expected else None
                note(report.nodeid, outcome or report.outcome, said(report))
            elif report.failed:
                note(report.nodeid, "error", said(report))
            elif report.skipped:
                note(report.nodeid, "xfailed" if hasattr(report, "wasxfail") else "skipped")

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                note(report.nodeid or "collection", "error", said(report))
            elif report.skipped and report.nodeid:
                note(report.nodeid, "skipped")

    import pytest

    return int(pytest.main(arguments["arguments"], plugins=[Plugin()]))


def said(report: Any) -> str:
    """Why a test fails, in a line."""
    if not report.failed:
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    lines = [line for line in str(text).splitlines() if line.strip()] or [""]
    return (lines[0] if crash is not None else lines[-1])[:MESSAGE_LIMIT]
