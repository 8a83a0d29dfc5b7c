"""Mistakes in a Dockerfile, or in an image's history, as Markdown."""

from __future__ import annotations

from deadweight.report.lint import FindingLine, LintReport, RulesReport, conclusion
from deadweight.report.markdown.text import code, listed, prose, table
from deadweight.report.text import plain
from deadweight.sizes import show_size

_FINDINGS = 30
_WHY = 8
_NOTES = 4


def lint_lines(report: LintReport) -> list[str]:
    """What is wrong where, with what it costs, and what to do instead."""
    mark = "❌" if report.errors else "⚠️" if report.warnings else "✅"
    said = conclusion(report).removeprefix(f"{plain(report.target)}: ")
    lines = [f"### {mark} {code(report.target)}: {prose(said)}"]
    rows = [_row(one) for one in report.findings[:_FINDINGS]]
    if rest := len(report.findings) - len(rows):
        rows.append(("", "", f"and {rest:,} more", ""))
    if rows:
        lines += table(("costs", "where", "rule", "what"), rows, 1)
    instead = {f"{one.rule}: {one.instead}": None for one in report.findings}
    return lines + listed(list(instead), _WHY) + listed(report.notes, _NOTES)


def rules_lines(report: RulesReport) -> list[str]:
    """What is looked for."""
    rows = [(prose(one.name), one.severity, prose(one.summary)) for one in report.rules]
    return [f"### {len(rows):,} rules", *table(("rule", "severity", "what"), rows, 0)]


def _row(one: FindingLine) -> tuple[str, ...]:
    costs = show_size(one.bytes) if one.bytes is not None else "?" if one.weighs else ""
    return costs, code(f"{one.file}:{one.line}"), f"{one.severity}: {prose(one.rule)}", prose(one.what)
