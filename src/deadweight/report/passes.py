"""The passes, as data and as a table."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from rich.console import Console
from rich.text import Text

from deadweight.passes.base import Pass
from deadweight.report.tables import Fitted, new_table
from deadweight.report.text import plain, valid


class PassName(msgspec.Struct, frozen=True):
    """One pass."""

    name: str
    risk: str
    """The risk of most of its cuts: `lossless`, `target`, `policy`, `observed`."""
    summary: str


class PassesReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.passes/1"):
    """All of them, in the order in which they run."""

    passes: list[PassName]


def passes_report(passes: Iterable[Pass]) -> PassesReport:
    """The document of `deadweight passes`."""
    return PassesReport([PassName(valid(one.name), one.risk, valid(one.summary)) for one in passes])


def print_passes(console: Console, report: PassesReport) -> None:
    """A table of what leaves."""
    table = new_table()
    for header in ("pass", "risk"):
        table.add_column(header, no_wrap=True)
    table.add_column("what leaves")
    for one in report.passes:
        table.add_row(Text(plain(one.name)), one.risk, Fitted(one.summary, lines=0))
    console.print(table)
