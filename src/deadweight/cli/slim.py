"""`deadweight slim`: plan, apply and report in one."""

from __future__ import annotations

from typing import Any

import click

from deadweight.cli.common import check_passes, declared_target, opened, plan_for
from deadweight.cli.options import image_argument, json_option, planning_options, top_option, writing_options
from deadweight.cli.output import check_outputs, check_tag, deliver, write_document
from deadweight.cli.progress import progress


@click.command("slim")
@image_argument
@writing_options
@planning_options
@click.option("--plan-out", metavar="FILE", help="Write the plan as well.")
@json_option
@top_option
def slim_command(
    image: str,
    destination: str,
    compression: str,
    force: bool,
    plan_out: str | None,
    json_to: str | None,
    top: int,
    platform: str | None,
    gpu: tuple[str, ...],
    keep_ptx: bool | None,
    raw_blobs: bool,
    recompress: bool,
    **planning: Any,
) -> None:
    """Make a smaller image of IMAGE, and report what left and why.

    The same as `deadweight plan` and `deadweight apply`. IMAGE itself is never changed.

    \b
    Examples:
      deadweight slim image.tar --to docker-archive:slim.tar --gpu h100
      deadweight slim oci:layout:latest --to oci:layout:slim -c zstd --json r.json
      deadweight slim image.tar --to oci:slim --root psycopg2 --keep /app/tests
    """
    from deadweight.apply import Applied, build  # noqa: PLC0415
    from deadweight.image.reference import parse_destination  # noqa: PLC0415
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.plan import write_plan  # noqa: PLC0415
    from deadweight.report.inspect import saving_lines  # noqa: PLC0415
    from deadweight.report.slim import slim_report  # noqa: PLC0415
    from deadweight.report.terminal import print_slim  # noqa: PLC0415

    to = parse_destination(destination)
    check_outputs([json_to, plan_out], [image, planning["base"]], to.path)
    check_passes(planning["skip"])
    target = declared_target(gpu, keep_ptx, raw_blobs, recompress)
    with progress(f"reading {image}") as report, opened(image, platform, report) as source:
        check_tag(source, to)
        ledger = Ledger(source)
        worked = plan_for(ledger, report, target, platform=platform, **planning)
        if plan_out is not None:
            write_document(plan_out, write_plan(worked.plan))
        savings = saving_lines(ledger) if target is None else []
        written = build(worked, source, to, compression, force, report)  # type: ignore[arg-type]
        found = slim_report(worked.plan, source, Applied(worked.plan, False, written), to, savings)
    deliver(found, json_to, lambda console: print_slim(console, found, top), quiet=plan_out == "-")
