"""The report of lint, whatever is in it."""

from __future__ import annotations

import io

from deadweight.report.lint import FindingLine, LintReport, PathLine, PlaceLine, conclusion, print_lint
from deadweight.report.terminal import make_console
from support.service import HOSTILE


def report(**changes: object) -> LintReport:
    finding = FindingLine(
        *("hidden-failure", "error", HOSTILE, HOSTILE, 3, [PlaceLine(HOSTILE, 4)], HOSTILE, 12_345, True, 1),
        *([PathLine(HOSTILE, 12_000)], "why", "instead"),
    )
    settings: dict[str, object] = {
        "target": HOSTILE,
        "image": None,
        "errors": 1,
        "warnings": 0,
        "ignored": 0,
        "bytes": 12_345,
        "findings": [finding],
        "notes": [HOSTILE],
    }
    return LintReport(**(settings | changes))  # type: ignore[arg-type]


def test_nothing_hostile_reaches_the_terminal() -> None:
    out = io.StringIO()
    print_lint(make_console(out, {"COLUMNS": "100"}), report())
    text = out.getvalue()
    assert "12,345 bytes (12.3 kB), such as /e\\x1b[31mvil" in text
    assert not any(odd in text for odd in "\x1b\x9b\x07\u202e")
    assert text.splitlines()[0].startswith("e\\x1b[31mvil\\n")


def test_the_last_line() -> None:
    end = "1 error; they cost 12,345 bytes (12.3 kB), each byte counted once"
    assert conclusion(report(target="x")) == f"x: {end}"
    assert conclusion(report(target="x", ignored=2)) == f"x: {end}; 2 findings ignored"
    assert conclusion(report(target="x", findings=[], ignored=1)) == "x: nothing found; 1 finding ignored"
