"""The report of `deadweight rollback`."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.text import Text

from deadweight.image.transports.names import RolledBack
from deadweight.report.text import plain, valid


class RollbackReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.rollback/1"):
    """The document of `deadweight rollback`."""

    engine: str
    """As `Docker's engine` or `Podman`, or a registry's host."""
    name: str
    slim_id: str
    """What the name led to."""
    original_id: str
    """What it leads to afterwards."""
    original_name: str | None
    """Another name of the original, where it has one."""
    slim_name: str
    """The name by which the slim image can be had again."""
    dry_run: bool
    """Nothing was changed."""


def rollback_report(rolled: RolledBack, dry_run: bool) -> RollbackReport:
    """The report of what was, or would be, rolled back."""
    return RollbackReport(
        rolled.engine,
        valid(rolled.name),
        rolled.slim_id,
        rolled.original_id,
        None if rolled.original_name is None else valid(rolled.original_name),
        valid(rolled.slim_name),
        dry_run,
    )


def print_rollback(console: Console, report: RollbackReport) -> None:
    """A few lines for people."""
    verb = "would be" if report.dry_run else "is"
    also = f", also {plain(report.original_name)}" if report.original_name is not None else ""
    console.print(Text(f"{plain(report.name)} {verb} the original again: {report.original_id[:19]}{also}"))
    console.print(Text(f"The slim image, {report.slim_id[:19]}, {verb} {plain(report.slim_name)}"))
