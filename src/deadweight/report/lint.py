"""What `deadweight lint` says: one block for each finding, in the style of compilers, and one line at the end."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from deadweight.build.lint.model import Finding, Rule, total
from deadweight.build.lint.subject import Subject
from deadweight.build.lint.table import Result
from deadweight.report.model import ImageLine
from deadweight.report.tables import BOLD, DIM, new_table, paragraphs
from deadweight.report.text import plain, valid
from deadweight.sizes import show_size

HISTORY = "#history"
"""What stands behind an image's name where a line is an entry of its history."""
_STYLES = {"error": Style(color="red", bold=True), "warning": Style(color="yellow", bold=True)}
_COMMAND_LIMIT = 100
_TOP_PATHS = 3


class PlaceLine(msgspec.Struct, frozen=True):
    """A line of a file, or with `history` an entry of an image's history; counted from 1."""

    file: str
    line: int


class PathLine(msgspec.Struct, frozen=True):
    """A path with its share of what a finding costs."""

    path: str
    bytes: int


class FindingLine(msgspec.Struct, frozen=True):
    """One mistake."""

    rule: str
    severity: str
    what: str
    file: str
    line: int
    more_places: list[PlaceLine]
    instruction: str
    bytes: int | None
    """What it costs; null where that is not known, or it costs none."""
    weighs: bool
    """Whether it costs bytes at all."""
    layer: int | None
    """The position of the layer, from 0, where an image was given."""
    paths: list[PathLine]
    """The largest first, directories of small files put together."""
    why: str
    instead: str


class LintReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.lint/1"):
    """What was found in a Dockerfile, or in an image's history."""

    target: str
    image: ImageLine | None
    errors: int
    warnings: int
    ignored: int
    bytes: int
    """What all findings cost together as far as it is known, each byte once."""
    findings: list[FindingLine]
    notes: list[str]


class RuleLine(msgspec.Struct, frozen=True):
    """One rule."""

    name: str
    severity: str
    summary: str
    why: str
    instead: str


class RulesReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.rules/1"):
    """What `lint` looks for."""

    rules: list[RuleLine]


def rules_report(rules: Iterable[Rule]) -> RulesReport:
    """The document of `lint --list`."""
    return RulesReport([RuleLine(one.name, one.severity, one.summary, one.why, one.instead) for one in rules])


def lint_report(subject: Subject, result: Result, image: ImageLine | None = None) -> LintReport:
    """The document of `lint`."""
    findings = [_line(subject, one.rule, one.finding) for one in result.found]
    notes = [*subject.notes]
    notes += [f"a comment ignores {name}, which is no rule (--list lists them)" for name in result.unknown]
    errors = sum(finding.severity == "error" for finding in findings)
    return LintReport(
        target=valid(subject.file.removesuffix(HISTORY)),
        image=image,
        errors=errors,
        warnings=len(findings) - errors,
        ignored=result.ignored,
        bytes=total(one.finding for one in result.found),
        findings=findings,
        notes=[valid(note) for note in notes],
    )


def _line(subject: Subject, rule: Rule, finding: Finding) -> FindingLine:
    first, *more = finding.places
    step = next((s for s in subject.steps if s.place.line <= first.line <= s.instruction.end_line), None)
    text = f"{step.name} {step.instruction.text}" if step is not None and step.place.file == first.file else ""
    return FindingLine(
        rule=rule.name,
        severity=finding.severity or rule.severity,
        what=valid(finding.what),
        file=valid(first.file),
        line=first.line,
        more_places=[PlaceLine(valid(place.file), place.line) for place in more],
        instruction=valid(" ".join(text.split())),
        bytes=finding.bytes,
        weighs=finding.weighs,
        layer=finding.layer,
        paths=_paths(finding),
        why=rule.why,
        instead=rule.instead,
    )


def _paths(finding: Finding) -> list[PathLine]:
    sums: dict[str, int] = {}
    for charge in finding.charges or ():
        sums[charge.path] = sums.get(charge.path, 0) + charge.bytes
    top = sorted(sums.items(), key=lambda pair: (-pair[1], pair[0]))[: 4 * _TOP_PATHS]
    return [PathLine(valid(path), size) for path, size in top if size > 0]


def print_lint(console: Console, report: LintReport) -> None:
    """The findings, and what they come to."""
    explained: set[str] = set()
    for finding in report.findings:
        _print_finding(console, finding, report, finding.rule not in explained)
        explained.add(finding.rule)
    paragraphs(console, "Notes", report.notes)
    if report.findings or report.notes:
        console.print()
    console.print(Text(conclusion(report), BOLD))


def _print_finding(console: Console, finding: FindingLine, report: LintReport, explain: bool) -> None:
    head = Text(f"{plain(finding.file)}:{finding.line}: ", BOLD)
    head.append(f"{finding.severity}: ", _STYLES[finding.severity])
    head.append(f"{finding.rule}: {plain(finding.what, 300)}")
    console.print(head, soft_wrap=True)  # a name that a terminal or an editor can follow must not be broken
    rows = []
    if finding.instruction:
        layer = "says" if finding.layer is None else f"layer {finding.layer + 1}"
        rows.append((layer, plain(finding.instruction, _COMMAND_LIMIT)))
    rows += [("see also", f"{plain(place.file)}:{place.line}") for place in finding.more_places]
    if finding.bytes is not None:
        rows.append(("costs", _cost(finding)))
    elif finding.weighs:
        unknown = "unknown: no layer of the image was found for it" if report.image else "unknown: give --image"
        rows.append(("costs", unknown))
    if explain:
        rows += [("why", finding.why), ("instead", finding.instead)]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style=DIM)
    table.add_column(overflow="fold")
    for title, text in rows:
        table.add_row("  ", title, Text(text))
    console.print(table)


def _cost(finding: FindingLine) -> str:
    assert finding.bytes is not None
    text = (
        f"{finding.bytes:,} bytes" if finding.bytes < 1000 else f"{finding.bytes:,} bytes ({show_size(finding.bytes)})"
    )
    shown = [f"/{plain(path.path, 100)} {show_size(path.bytes)}" for path in finding.paths[:_TOP_PATHS]]
    return f"{text}, such as {', '.join(shown)}" if shown else text


def conclusion(report: LintReport) -> str:
    """The result in a line."""
    if not report.findings:
        text = f"{plain(report.target)}: nothing found"
    else:
        counts = [_count(report.errors, "error"), _count(report.warnings, "warning")]
        text = f"{plain(report.target)}: {' and '.join(filter(None, counts))}"
        unknown = sum(one.bytes is None and one.weighs for one in report.findings)
        if report.bytes:
            text += f"; they cost {report.bytes:,} bytes ({show_size(report.bytes)}), each byte counted once"
        if unknown:
            text += f"; {_count(unknown, 'finding')} of unknown bytes"
    return f"{text}; {_count(report.ignored, 'finding')} ignored" if report.ignored else text


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}" if number else ""


def print_rules(console: Console, report: RulesReport) -> None:
    """What is looked for."""
    table = new_table()
    table.add_column("rule", no_wrap=True)
    table.add_column("severity", no_wrap=True)
    table.add_column("what", overflow="fold", ratio=1)
    for rule in report.rules:
        table.add_row(rule.name, Text(rule.severity, _STYLES[rule.severity]), rule.summary)
    console.print(table)
