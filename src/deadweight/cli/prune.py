"""`deadweight prune`: GPU code, symbols and leftovers, in place."""

from __future__ import annotations

from typing import Any

import click

from deadweight.cli.common import declared_target
from deadweight.cli.options import Documents, json_option, target_options, top_option, weights_option
from deadweight.cli.output import check_outputs, deliver
from deadweight.cli.progress import progress

keep_symbols_option = click.option(
    "--keep-symbols", is_flag=True, help="Keep symbols and debug information, for profilers and debuggers."
)


@click.command("prune")
@click.argument("directory", metavar="DIR")
@target_options
@keep_symbols_option
@weights_option
@click.option(
    "--check-load",
    is_flag=True,
    help="Load each library in a fresh process before it replaces the old one, and follow its pointers to GPU code. "
    "Runs the library's own code.",
)
@click.option("--dry-run", is_flag=True, help="Work it all out and write nothing.")
@json_option
@top_option
def prune_command(
    directory: str,
    keep_symbols: bool,
    weights: str | None,
    check_load: bool,
    dry_run: bool,
    documents: Documents,
    top: int,
    **target: Any,
) -> None:
    """Drop GPU code, symbols and what patchelf left behind from the libraries in DIR, in place.

    For a Dockerfile's build stage and for virtual environments: DIR is a site-packages directory or one that holds
    some. Without --gpu GPU code stays; with --weights models of transformers are stored as smaller numbers as well.

    Each file is replaced whole, after the new one was read again and checked; RECORD files follow. Symbolic links are
    not followed, and hard links not written through: uv's cache stays as it is. A second run changes nothing.
    deadweight-target.json in DIR says which GPUs were kept, and `deadweight doctor` reads it.

    \b
    Examples:
      deadweight prune .venv --gpu h100
      deadweight prune /usr/local/lib/python3.12/site-packages --gpu sm_90
      deadweight prune .venv --gpu l4,a100 --drop-ptx --dry-run
    """
    from deadweight.prune import prune_tree  # noqa: PLC0415
    from deadweight.report.prune import print_pruned, printable  # noqa: PLC0415

    check_outputs(documents.values(), [])
    wanted = declared_target(**target)
    with progress(f"looking through {directory}") as report:
        found = prune_tree(
            directory,
            wanted,
            symbols=not keep_symbols,
            weights=weights,
            dry_run=dry_run,
            check_load=check_load,
            progress=report,
        )
    found = printable(found)
    deliver(found, documents, lambda console: print_pruned(console, found, top))
