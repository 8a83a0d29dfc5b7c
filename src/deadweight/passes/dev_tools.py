"""Development tools among the Python distributions: known ones, and what only they need."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from packaging.utils import canonicalize_name

from deadweight.errors import UsageError, shown
from deadweight.ledger.known import known, matcher
from deadweight.passes.base import Context, Pass, Proposal
from deadweight.passes.distributions import leaving, proposals


def propose(context: Context) -> Iterator[Proposal]:
    """Known tools and what the user named, whole. Raises UsageError when something named is not installed."""
    graph = context.ledger.graph
    asked = [str(canonicalize_name(name)) for name in context.options.remove]
    for name, given in zip(asked, context.options.remove, strict=True):
        if name not in graph.distributions:
            close = difflib.get_close_matches(name, graph.distributions, 3)
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            raise UsageError(f"--remove {shown(given)}: the image has no distribution of that name{hint}")
    tool = matcher(known("dev_tools", "distributions"))
    found = leaving(context, [name for name in graph.distributions if tool(name) or name in asked], asked)
    for name, reason in found.stays.items():
        context.notes.append(f"{graph.display(name)} stays: {reason}")
    yield from list(proposals(context, found, "a development tool", asked))


PASS = Pass(
    name="dev-tools",
    risk="policy",
    order=40,
    summary="development tools (pytest, mypy, ...) and the Python distributions that only they need",
    propose=propose,
)
