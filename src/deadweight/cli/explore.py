"""`deadweight explore`: a browser of every byte, in the terminal."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from deadweight.cli.common import opened, plan_at, remember, swapped_as_planned, the_cache
from deadweight.cli.options import cache_option, image_argument, platform_option, source_options
from deadweight.cli.progress import progress

if TYPE_CHECKING:
    from deadweight.cli.progress import Report
    from deadweight.ledger.ledger import Ledger
    from deadweight.plan import Plan
    from deadweight.report.tree_model import Tree


@click.command("explore")
@image_argument
@click.option("--plan", "plan_from", metavar="FILE", help="Show what this plan takes out as well, and why.")
@source_options
@cache_option
@platform_option
def explore_command(
    image: str,
    plan_from: str | None,
    find_links: tuple[str, ...],
    index_url: str | None,
    no_cache: bool,
    platform: str | None,
) -> None:
    """Browse every byte of IMAGE in the terminal.

    Owners, then directories, files, and what is inside of them (ELF sections, GPU code by architecture), the largest
    first, each with the reason why it is there; grouped by layer, category or directory on a key. `?` shows all keys.
    With --plan, what a plan of `deadweight plan -o` would take out of each, by which pass, at which risk and why.

    \b
    Examples:
      deadweight explore image.tar
      deadweight explore service:latest --plan plan.json
    """
    from deadweight.errors import EnvironmentFailure  # noqa: PLC0415
    from deadweight.ledger.ledger import Ledger  # noqa: PLC0415

    _check_terminal()
    if find_spec("textual") is None:
        raise EnvironmentFailure(
            "explore needs a library that is not installed: pip install 'deadweight[explore]'; `deadweight inspect` "
            "prints a report without it"
        )
    from deadweight.explore.app import Explorer  # noqa: PLC0415
    from deadweight.explore.view import View  # noqa: PLC0415

    plan = None if plan_from is None else plan_at(plan_from)
    cache = the_cache(wanted=not no_cache)
    wanted = platform or (None if plan is None else plan.image.platform or None)
    with progress(f"reading {image}") as report, opened(image, wanted, report, cache) as source:
        ledger = Ledger(source, cache)
        view = View(_tree(ledger, plan, find_links, index_url, report or (lambda *_: None)))
        remember(ledger, cache)
        view.root("owner")
    app = Explorer(view)
    app.run()
    if app.return_code:  # Textual has said what went wrong
        raise click.exceptions.Exit(70)


def _tree(
    ledger: Ledger, plan: Plan | None, find_links: tuple[str, ...], index_url: str | None, report: Report
) -> Tree:
    """The tree of the image, and of what a plan makes of it. Raises PlanError when the plan is not for the image."""
    from deadweight.apply import reworked  # noqa: PLC0415
    from deadweight.report.tree import inspect_tree, plan_tree, side  # noqa: PLC0415

    report("accounting", 0, 0)
    before = side(ledger)
    if plan is None:
        return inspect_tree(before)
    with swapped_as_planned(plan, ledger, find_links, index_url, report) as swapped:
        report("working the plan out", 0, 0)
        worked = reworked(plan, ledger, swapped)
        report("accounting for what is left", 0, 0)
        return plan_tree(before, ledger if swapped is None else swapped.ledger, worked)


def _check_terminal() -> None:
    """Raises EnvironmentFailure where nobody can look at it and press keys."""
    from deadweight.errors import EnvironmentFailure  # noqa: PLC0415

    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") == "dumb":
        raise EnvironmentFailure(
            "explore needs a terminal for what it shows and for keys: `deadweight inspect` prints a report anywhere, "
            "and with --json - a document"
        )
