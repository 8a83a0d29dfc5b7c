"""Distributions that only a build needed which was swapped out: CUDA's libraries, once torch is a CPU build."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator

from deadweight.passes.base import Context, Pass, Proposal
from deadweight.passes.distributions import leaving, proposals
from deadweight.passes.libraries import needs


def propose(context: Context) -> Iterator[Proposal]:
    """What the swap names, whole, but for what something that stays requires, imports, loads or runs."""
    graph = context.ledger.graph
    names = {name for name in context.options.orphans if name in graph.distributions}
    if not names:
        return
    loaded: dict[str, str] = {}
    while True:
        found = leaving(context, names, keep=loaded)
        more = _loaded(context, found.names)
        if not more:
            break
        loaded.update(more)
    for name, reason in {**found.stays, **loaded}.items():
        if name in names:
            context.notes.append(f"{graph.display(name)}, which the old build needed, stays: {reason}")
    yield from list(
        proposals(context, found, "only the build that was swapped out needs it", known="was required by it")
    )


def _loaded(context: Context, names: Collection[str]) -> dict[str, str]:
    """Those of the distributions of which a program or library that stays needs a library, each with the reason.

    What the loader would not find by itself counts by its name: something may load it beforehand.
    """
    owners = {path: name for name in names for dist in context.ledger.graph.distributions[name] for path in dist.files}
    by_name = {posixpath.basename(path): name for path, name in owners.items() if ".so" in posixpath.basename(path)}
    found: dict[str, str] = {}
    for path, asked in needs(context.ledger).items():
        if path in owners or path in context.gone:
            continue
        for library, chain in asked.libraries.items():
            name = next((owners[each] for each in chain if each in owners), None)
            if not chain:
                name = by_name.get(posixpath.basename(library))
            if name is not None:
                found.setdefault(name, f"/{path} needs its {library}")
    return found


PASS = Pass(
    name="orphans",
    risk="target",
    order=35,
    summary="distributions that only a build needed which --swap replaced",
    propose=propose,
)
