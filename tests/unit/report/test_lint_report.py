"""The report of lint, whatever is in it."""

from __future__ import annotations

import io

import msgspec

from deadweight.build.lint.table import RULES
from deadweight.report.lint import FindingLine, LintReport, PathLine, PlaceLine, conclusion, print_lint, rules_report
from deadweight.report.markdown import markdown
from deadweight.report.terminal import make_console
from support.markdown import HOSTILE as MARKDOWN
from support.markdown import OURS, Page
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


def test_markdown_has_every_finding_and_nothing_of_its_names() -> None:
    for hostile in (HOSTILE, MARKDOWN):
        one = msgspec.structs.replace(report().findings[0], what=hostile, file=hostile, instruction=hostile)
        found = report(target=hostile, findings=[one] * 50, notes=[hostile] * 9, errors=50)
        text = markdown(found).decode()
        page = Page(text)
        assert page.tags <= OURS
        assert not set(page.outside) & set("@#$<>[]`~*_&\\|\x1b\u202e")
        assert len(text.splitlines()) < 60
        ((_, *rows),) = page.tables.values()
        assert [row[0] for row in rows] == ["12.3 kB"] * 30 + [""]
        assert rows[-1][2] == "and 20 more"
    nothing = report(target="x", findings=[], notes=[], errors=0)
    assert markdown(nothing) == "### ✅ `x`: nothing found\n".encode()


def test_the_rules_as_markdown() -> None:
    page = Page(markdown(rules_report(RULES)).decode())
    ((_, *rows),) = page.tables.values()
    assert [row[0] for row in rows] == [rule.name for rule in RULES]
