"""`deadweight compare`: the phase table."""

from __future__ import annotations

import click

from deadweight.cli.common import opened
from deadweight.cli.options import Documents, platform_option, report_options, size
from deadweight.cli.output import check_outputs, deliver
from deadweight.cli.progress import progress


@click.command("compare")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--target-size", type=size, metavar="SIZE", help="The size to reach, as 3GB or 2.5GiB.")
@report_options
@platform_option
def compare_command(
    images: tuple[str, ...], target_size: int | None, documents: Documents, platform: str | None
) -> None:
    """Compare the sizes of several images, in the order given.

    Each against the one before it, against the first, and against a target.

    \b
    Examples:
      deadweight compare before.tar slim.tar --target-size 3GB
      deadweight compare oci:out:original oci:out:passes oci:out:gpu --json -
    """
    from deadweight.report.compare import compare_report, phase  # noqa: PLC0415
    from deadweight.report.terminal import print_compare  # noqa: PLC0415

    check_outputs(documents.values(), images)
    phases = []
    with progress("reading images") as report:
        for image in images:
            with opened(image, platform, report) as source:
                phases.append(phase(source))
    found = compare_report(phases, target_size)
    deliver(found, documents, lambda console: print_compare(console, found))
