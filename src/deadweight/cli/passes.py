"""`deadweight passes`: the ways of losing weight."""

from __future__ import annotations

import click


@click.command("passes")
def passes_command() -> None:
    """List the passes: what leaves, and at what risk.

    In the order in which they run. Passes above --risk are left out of a plan, and --skip takes one out.
    """
    from deadweight.cli.output import show_report  # noqa: PLC0415
    from deadweight.passes.base import all_passes  # noqa: PLC0415
    from deadweight.report.terminal import print_passes  # noqa: PLC0415

    rows = [(one.name, one.risk, one.summary) for one in all_passes()]
    show_report(lambda console: print_passes(console, rows))
