"""Reports as Markdown, for a pull request or a page of CI: what a reviewer asks first, in under 60 lines."""

from __future__ import annotations

from functools import singledispatch

import msgspec

from deadweight.report.lint import LintReport, RulesReport
from deadweight.report.markdown.compare import compare_lines
from deadweight.report.markdown.inspect import inspect_lines
from deadweight.report.markdown.lint import lint_lines, rules_lines
from deadweight.report.markdown.slim import platforms_lines, slim_lines
from deadweight.report.markdown.verdict import verify_lines
from deadweight.report.model import CompareReport, InspectReport, PlatformsReport, SlimReport, VerifyReport


def markdown(report: msgspec.Struct) -> bytes:
    """A report as GitHub's Markdown, in UTF-8."""
    return ("\n".join(lines_of(report)) + "\n").encode()


@singledispatch
def lines_of(report: msgspec.Struct) -> list[str]:
    """The lines of a report's Markdown. Raises TypeError for one that has none."""
    raise TypeError(f"{type(report).__name__} has no Markdown")


lines_of.register(InspectReport, inspect_lines)
lines_of.register(LintReport, lint_lines)
lines_of.register(RulesReport, rules_lines)
lines_of.register(SlimReport, slim_lines)
lines_of.register(PlatformsReport, platforms_lines)
lines_of.register(VerifyReport, verify_lines)
lines_of.register(CompareReport, compare_lines)
