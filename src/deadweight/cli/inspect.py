"""`deadweight inspect`: where every byte is."""

from __future__ import annotations

import click

from deadweight.cli.common import opened, remember, the_cache
from deadweight.cli.options import Documents, cache_option, image_argument, page_options, platform_option, top_option
from deadweight.cli.output import check_outputs, deliver
from deadweight.cli.pages import inspect_pages
from deadweight.cli.progress import progress
from deadweight.cli.sbom import image_sboms, sbom_option


@click.command("inspect")
@image_argument
@page_options
@sbom_option
@cache_option
@top_option
@platform_option
def inspect_command(image: str, documents: Documents, no_cache: bool, top: int, platform: str | None) -> None:
    """Say where every byte of IMAGE is, whose it is, and why.

    Layers, owners and categories each add up to the image's size, to the byte; GPU code is told apart by architecture
    and by library, with what declaring a GPU (--gpu of plan and slim) would save. Contents are read only where they
    tell something; the report names the layers whose digest was therefore not checked.

    \b
    Examples:
      deadweight inspect image.tar
      deadweight inspect oci:layout:latest --top 40
      deadweight inspect image.tar --sbom spdx=image.spdx.json
      deadweight inspect image.tar --html report.html
      deadweight inspect image.tar --json - | jq '.owners[:5], .gpu_savings'
    """
    from deadweight.ledger.account import make_account  # noqa: PLC0415
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.report.inspect import inspect_report  # noqa: PLC0415
    from deadweight.report.terminal import print_inspect  # noqa: PLC0415

    check_outputs(documents.values(), [image])
    cache = the_cache(wanted=not no_cache)
    with (
        progress(f"reading {image}") as report,
        opened(image, platform, report, cache, proved_alone=True) as source,
    ):
        if report is not None:
            report("accounting", 0, 0)
        ledger = Ledger(source, cache)
        account = make_account(ledger)
        found = inspect_report(ledger, account)
        pages = inspect_pages(documents, found, ledger, account)
        makers = image_sboms(documents, ledger)
        remember(ledger, cache)
    deliver(found, documents, lambda console: print_inspect(console, found, top), quiet=False, **pages, **makers)
