"""`deadweight apply`: builds what a plan says."""

from __future__ import annotations

import click

from deadweight.cli.common import opened, plan_at, remember, swapped_as_planned, the_cache
from deadweight.cli.options import (
    Documents,
    cache_option,
    registry_options,
    report_options,
    source_options,
    top_option,
    writing_options,
)
from deadweight.cli.output import announce_plan, check_outputs, check_tag, deliver
from deadweight.cli.places import destination_of
from deadweight.cli.progress import progress
from deadweight.cli.sbom import original_inventory, sbom_option, slim_sboms


@click.command("apply")
@click.argument("plan", metavar="PLAN")
@writing_options
@click.option(
    "--from", "source", metavar="IMAGE", help="The image, where it is no longer where it was when it was planned."
)
@source_options
@report_options
@sbom_option
@cache_option
@top_option
@click.option("--platform", metavar="OS/ARCH", help="Which of an image for several platforms.  [default: the plan's]")
@registry_options
def apply_command(
    plan: str,
    destination: str | None,
    tag: str | None,
    compression: str,
    force: bool,
    source: str | None,
    find_links: tuple[str, ...],
    index_url: str | None,
    documents: Documents,
    no_cache: bool,
    top: int,
    platform: str | None,
) -> None:
    """Build what PLAN says, and hold the result to the predicted size.

    PLAN is a file that `deadweight plan -o` wrote, or - for standard input. A plan edited by hand is worked out again
    first; one that does not fit the image is refused. A plan with a swap needs the same wheel again: it is looked for
    where it was, and among --find-links and pip's sources.

    \b
    Examples:
      deadweight apply plan.json --tag service:slim
      deadweight apply plan.json --to docker-archive:slim.tar
      deadweight apply plan.json --from oci:layout:latest --to oci:slim -c zstd
    """
    from deadweight.apply import apply_plan  # noqa: PLC0415
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.report.slim import slim_report  # noqa: PLC0415
    from deadweight.report.terminal import print_slim  # noqa: PLC0415

    given = plan_at(plan)
    image = source if source is not None else given.image.reference
    to = destination_of(destination, tag, image, force, platform)
    check_outputs(documents.values(), [plan, image], to.local)
    wanted = platform or given.image.platform
    cache = the_cache(wanted=not no_cache)
    with progress(f"reading {image}") as report, opened(image, wanted, report, cache) as original:
        check_tag(original, to, force, platform)
        ledger = Ledger(original, cache)
        components = original_inventory(documents, ledger)
        with swapped_as_planned(given, ledger, find_links, index_url, report) as swapped:
            applied = apply_plan(
                given,
                ledger,
                to,
                compression=compression,  # type: ignore[arg-type]
                force=force,
                progress=report,
                announce=announce_plan,
                swapped=swapped,
                cache=cache,
            )
            remember(ledger, cache)
            over = ledger if swapped is None else swapped.ledger
            found = slim_report(given, ledger, applied, to, over=over)
            makers = slim_sboms(documents, components, ledger, over, applied, to)
    deliver(found, documents, lambda console: print_slim(console, found, top), quiet=False, **makers)
