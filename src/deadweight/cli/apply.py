"""`deadweight apply`: builds what a plan says."""

from __future__ import annotations

import click

from deadweight.cli.common import opened, plan_at
from deadweight.cli.options import json_option, top_option, writing_options
from deadweight.cli.output import announce_plan, check_outputs, check_tag, deliver
from deadweight.cli.progress import progress


@click.command("apply")
@click.argument("plan", metavar="PLAN")
@writing_options
@click.option(
    "--from", "source", metavar="IMAGE", help="The image, where it is no longer where it was when it was planned."
)
@json_option
@top_option
@click.option("--platform", metavar="OS/ARCH", help="Which of an image for several platforms.  [default: the plan's]")
def apply_command(
    plan: str,
    destination: str,
    compression: str,
    force: bool,
    source: str | None,
    json_to: str | None,
    top: int,
    platform: str | None,
) -> None:
    """Build what PLAN says, and hold the result to the predicted size.

    PLAN is a file that `deadweight plan -o` wrote, or - for standard input. A plan edited by hand is worked out again
    first; one that does not fit the image is refused.

    \b
    Examples:
      deadweight apply plan.json --to docker-archive:slim.tar
      deadweight apply plan.json --from oci:layout:latest --to oci:slim -c zstd
    """
    from deadweight.apply import apply_plan  # noqa: PLC0415
    from deadweight.image.reference import parse_destination  # noqa: PLC0415
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.report.slim import slim_report  # noqa: PLC0415
    from deadweight.report.terminal import print_slim  # noqa: PLC0415

    to = parse_destination(destination)
    given = plan_at(plan)
    image = source if source is not None else given.image.reference
    check_outputs([json_to], [plan, image], to.local)
    wanted = platform or given.image.platform
    with progress(f"reading {image}") as report, opened(image, wanted, report) as original:
        check_tag(original, to)
        applied = apply_plan(
            given,
            Ledger(original),
            to,
            compression=compression,  # type: ignore[arg-type]
            force=force,
            progress=report,
            announce=announce_plan,
        )
        found = slim_report(given, original, applied, to)
    deliver(found, json_to, lambda console: print_slim(console, found, top))
