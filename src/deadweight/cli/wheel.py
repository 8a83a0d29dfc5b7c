"""`deadweight wheel`: smaller wheels for a private index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deadweight.cli.common import declared_target
from deadweight.cli.options import Documents, json_option, target_options, top_option
from deadweight.cli.output import check_outputs, deliver
from deadweight.cli.progress import progress
from deadweight.cli.prune import keep_symbols_option
from deadweight.errors import UsageError


@click.command("wheel")
@click.argument("wheels", nargs=-1, required=True, metavar="FILE.whl...")
@click.option("-t", "--to", "destination", required=True, metavar="DIR", help="The directory for the new wheels.")
@target_options
@keep_symbols_option
@click.option("--same-version", is_flag=True, help="Leave the version as it is, for a private index.")
@click.option("-f", "--force", is_flag=True, help="Replace a wheel that is there.")
@json_option
@top_option
def wheel_command(
    wheels: tuple[str, ...],
    destination: str,
    keep_symbols: bool,
    same_version: bool,
    force: bool,
    documents: Documents,
    top: int,
    **target: Any,
) -> None:
    """Make smaller wheels, without GPU code that the declared GPUs do not run, symbols, and what patchelf left behind.

    Nothing but that changes in a wheel, and RECORD is true of what is left. Where there is nothing to drop, no wheel is
    written.

    The version gets a local label: 2.9.0 becomes 2.9.0+sm90, 2.9.0+cu128 becomes 2.9.0+cu128.sm90; for several GPUs it
    is +sm80.sm90, for none +nogpu. ==2.9.0 and >=2.9 still match, and installers prefer the labelled version. ===2.9.0,
    ==2.9.0+cu128 and hashes in lock files match no longer: lock anew, with the index that has the wheel.

    With --same-version all of these match but hashes. Nothing tells such a wheel from the original then, so serve it
    from an index that installers ask alone.

    \b
    Examples:
      deadweight wheel torch-2.9.0-*.whl --gpu h100 --to index
      deadweight wheel wheels/*.whl --gpu l4,a100 --drop-ptx --to index
      deadweight wheel x.whl --gpu none --to index --same-version
    """
    from deadweight.report.prune import WheelReport, print_wheels, printable  # noqa: PLC0415
    from deadweight.wheel import slim_wheel  # noqa: PLC0415

    check_outputs(documents.values(), wheels)
    wanted = declared_target(**target)
    if wanted is None:
        raise UsageError("the GPUs make the new version's label: say --gpu, as --gpu h100, or --gpu none")
    found = []
    for wheel in wheels:
        with progress(f"reading {wheel}") as report:
            made = slim_wheel(
                Path(wheel),
                wanted,
                Path(destination),
                symbols=not keep_symbols,
                same_version=same_version,
                force=force,
                progress=report,
            )
        found.append(printable(made))
    document = WheelReport(found)
    deliver(document, documents, lambda console: print_wheels(console, document, top))
