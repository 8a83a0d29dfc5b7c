"""What `--html` takes beyond the report: the tree of all bytes, read while the image is open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deadweight.cli.options import Documents
    from deadweight.ledger.account import Account
    from deadweight.ledger.ledger import Ledger
    from deadweight.planning import Worked
    from deadweight.report.model import CompareReport, InspectReport, SlimReport
    from deadweight.report.tree import Side

Makers = Mapping[str, Callable[[], bytes]]
"""As `output.deliver` takes them; empty where no page was asked for."""


def inspect_pages(documents: Documents, report: InspectReport, ledger: Ledger, account: Account) -> Makers:
    """The page of one image."""
    if documents["html"] is None:
        return {}
    from deadweight.report.html.inspect import inspect_page  # noqa: PLC0415
    from deadweight.report.tree import Side, inspect_tree  # noqa: PLC0415

    tree = inspect_tree(Side(ledger, account))
    return {"html": lambda: inspect_page(report, tree)}


def plan_pages(documents: Documents, report: SlimReport, ledger: Ledger, over: Ledger, worked: Worked) -> Makers:
    """The page of a plan over `over`, which is `ledger` or that with builds swapped."""
    if documents["html"] is None:
        return {}
    from deadweight.report.html.slim import slim_page  # noqa: PLC0415
    from deadweight.report.tree import plan_tree, side  # noqa: PLC0415

    tree = plan_tree(side(ledger, over), over, worked)
    return {"html": lambda: slim_page(report, tree)}


def compare_pages(report: CompareReport, ends: Sequence[Side]) -> Makers:
    """The page of several images: `ends` are the first and the last, which need not be open; none: no page."""
    if not ends:
        return {}
    from deadweight.report.html.compare import compare_page  # noqa: PLC0415
    from deadweight.report.tree import compare_tree  # noqa: PLC0415

    first, last = ends
    tree = compare_tree(first, last)
    return {"html": lambda: compare_page(report, tree)}
