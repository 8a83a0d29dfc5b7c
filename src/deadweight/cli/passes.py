"""`deadweight passes`: the ways of losing weight."""

from __future__ import annotations

import click

from deadweight.cli.options import Documents, json_option
from deadweight.cli.output import check_outputs, deliver


@click.command("passes")
@json_option
def passes_command(documents: Documents) -> None:
    """List the passes: what leaves, and at what risk.

    In the order in which they run. Passes above --risk are left out of a plan, and --skip takes one out.
    """
    from deadweight.passes.base import all_passes  # noqa: PLC0415
    from deadweight.report.passes import passes_report, print_passes  # noqa: PLC0415

    check_outputs(documents.values(), [])
    found = passes_report(all_passes())
    deliver(found, documents, lambda console: print_passes(console, found))
