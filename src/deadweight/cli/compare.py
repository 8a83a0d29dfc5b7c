"""`deadweight compare`: what a change did to an image, and the phase table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deadweight.cli.common import opened, remember, the_cache
from deadweight.cli.options import Documents, cache_option, page_options, platform_option, size, top_option
from deadweight.cli.output import check_outputs, deliver
from deadweight.cli.pages import compare_pages
from deadweight.cli.progress import progress
from deadweight.errors import BadInputError, UsageError, shown

if TYPE_CHECKING:
    from deadweight.report.model import InspectReport


@click.command("compare")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--target-size", type=size, metavar="SIZE", help="The size to reach, as 3GB or 2.5GiB.")
@page_options
@cache_option
@top_option
@platform_option
def compare_command(
    images: tuple[str, ...],
    target_size: int | None,
    documents: Documents,
    no_cache: bool,
    top: int,
    platform: str | None,
) -> None:
    """Say what changed from one image to the next: what came, went, grew and was upgraded, with bytes.

    Packages, the largest files, categories, GPU code and layers; and of each image its size against the one before it,
    the first, and a target. With --markdown that is for the reviewer of a pull request. In place of an image its report
    may stand, a file NAME.json that `deadweight inspect --json` wrote: of an image that is no longer there, or far
    away; files are not named then.

    \b
    Examples:
      deadweight compare before.tar slim.tar --target-size 3GB
      deadweight compare before.tar slim.tar --html changes.html
      deadweight compare docker://host/app:main app:pr --markdown summary.md
      deadweight compare main.json app:pr --markdown -
      deadweight compare oci:out:original oci:out:passes oci:out:gpu --json -
    """
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415
    from deadweight.report.compare import compare_report, file_sizes  # noqa: PLC0415
    from deadweight.report.inspect import inspect_report  # noqa: PLC0415
    from deadweight.report.print_compare import print_compare  # noqa: PLC0415
    from deadweight.report.tree import side  # noqa: PLC0415

    check_outputs(documents.values(), images)
    if documents["html"] is not None:
        if len(images) < 2:
            raise UsageError("--html shows one image beside another: name two or more (inspect --html shows one)")
        if _is_report(images[0]) or _is_report(images[-1]):
            raise UsageError("--html shows every byte, and a report has sums: name the image itself")
    cache = the_cache(wanted=not no_cache)
    inspected = []
    files: list[dict[str, int] | None] = []
    ends = []
    with progress("reading images") as report:
        for number, image in enumerate(images):
            if _is_report(image):
                inspected.append(_saved(image))
                files.append(None)
                continue
            with opened(image, platform, report, cache, proved_alone=True) as source:
                if report is not None:
                    report(f"accounting {image}", number, len(images))
                one = side(Ledger(source, cache))
                inspected.append(inspect_report(one.ledger, one.account))
                files.append(file_sizes(one.account))
                remember(one.ledger, cache)
                if documents["html"] is not None and number in (0, len(images) - 1):
                    ends.append(one)
    found = compare_report(inspected, target_size, files)
    pages = compare_pages(found, ends)
    deliver(found, documents, lambda console: print_compare(console, found, top), quiet=False, **pages)


def _is_report(name: str) -> bool:
    """Whether it is a report of `inspect`, and no image."""
    return name.endswith(".json") and "\0" not in name and Path(name).is_file()


def _saved(name: str) -> InspectReport:
    """The report in a file. Raises BadInputError when it is none."""
    from deadweight.report.model import read_inspect  # noqa: PLC0415

    try:
        return read_inspect(Path(name).read_bytes())
    except OSError as error:
        raise BadInputError(f"cannot read {shown(name)}: {error.strerror}") from None
    except ValueError as error:
        raise BadInputError(f"{shown(name)} is no report of `deadweight inspect --json`: {error}") from None
