"""`deadweight plan`: what can leave, as data."""

from __future__ import annotations

from typing import Any

import click

from deadweight.cli.common import (
    check_passes,
    declared_target,
    opened,
    plan_for,
    possible_savings,
    remember,
    swapped_for,
    the_cache,
)
from deadweight.cli.options import Documents, cache_option, image_argument, page_options, planning_options, top_option
from deadweight.cli.output import check_outputs, deliver, is_standard, write_document
from deadweight.cli.pages import plan_pages
from deadweight.cli.progress import progress


@click.command("plan")
@image_argument
@click.option("-o", "--output", metavar="FILE|-", help="Write the plan, to a file or, with -, to standard output.")
@click.option(
    "--each-path",
    is_flag=True,
    help="A cut for each path, also of directories that leave whole: to keep single files by hand.",
)
@planning_options
@page_options
@cache_option
@top_option
def plan_command(
    image: str,
    output: str | None,
    documents: Documents,
    no_cache: bool,
    top: int,
    platform: str | None,
    gpu: tuple[str, ...],
    keep_ptx: bool | None,
    raw_blobs: bool,
    recompress: bool,
    **planning: Any,
) -> None:
    """Plan what can leave IMAGE, and predict its size to the byte.

    Prints what the plan comes to. With -o the plan itself is written: JSON, one cut a line, to be read, edited (take
    out cuts that you do not want) and applied with `deadweight apply`; --json has the report, as slim's. A directory
    that leaves whole is one cut, which says how many paths are `below`; with --each-path each of them has its own.

    \b
    Examples:
      deadweight plan image.tar --gpu h100 --html plan.html
      deadweight plan image.tar -o plan.json --keep '/opt/models' --skip tests
      deadweight plan image.tar --each-path -o plan.json
      deadweight plan image.tar --swap torch=cpu --find-links wheels
      deadweight plan image.tar --risk lossless -o - | jq .predicted_bytes
    """
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.plan import write_plan  # noqa: PLC0415
    from deadweight.report.slim import slim_report  # noqa: PLC0415
    from deadweight.report.terminal import print_slim  # noqa: PLC0415

    check_outputs([*documents.values(), output], [image, planning["base"]])
    check_passes(planning["skip"])
    target = declared_target(gpu, keep_ptx, raw_blobs, recompress)
    cache = the_cache(wanted=not no_cache)
    with progress(f"reading {image}") as report, opened(image, platform, report, cache) as source:
        ledger = Ledger(source, cache)
        with swapped_for(ledger, report, platform=platform, **planning) as swapped:
            worked = plan_for(ledger, report, target, swapped, platform=platform, **planning)
            remember(ledger, cache)
            over = ledger if swapped is None else swapped.ledger
            savings = possible_savings(over, target)
            found = slim_report(worked.plan, ledger, savings=savings, over=over)
            pages = plan_pages(documents, found, ledger, over, worked)
    if output is not None:
        write_document(output, write_plan(worked.plan))
    deliver(found, documents, lambda console: print_slim(console, found, top), quiet=is_standard(output), **pages)
