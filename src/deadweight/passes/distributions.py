"""Taking Python distributions out whole: which can leave, and the paths that leave with them."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Mapping

import msgspec

from deadweight.ledger.python import Distribution
from deadweight.ledger.requirements import Graph, only_needed_by
from deadweight.passes.application import importers, needed
from deadweight.passes.base import Context, Proposal

NOTHING: Mapping[str, str] = {}


class Leaving(msgspec.Struct, frozen=True):
    """Distributions that leave together."""

    names: tuple[str, ...]
    """All of them, canonical, sorted."""
    chains: Mapping[str, tuple[str, ...]]
    """For each, the requirements that lead to it from one that was named."""
    stays: Mapping[str, str]
    """Those that were named, or only needed by such, and must stay; each with the reason."""


def leaving(
    context: Context, names: Collection[str], asked: Collection[str] = (), *, keep: Mapping[str, str] = NOTHING
) -> Leaving:
    """What can leave with `names` (canonical); `asked` are those of them that the user named, `keep` what stays for
    reasons of the pass's own.

    What the application imports, or the image runs, stays; so does what a staying module imports undeclared, but for
    `names` themselves: libraries import pytest in helpers for tests.
    """
    graph = context.ledger.graph
    gone = {name for name, found in graph.distributions.items() if all(d.info in context.gone for d in found)}
    wanted = {name for name in names if name in graph.distributions} - gone
    keep = {**keep, **{n: r for n, r in needed(context).items() if n not in asked or not r.endswith(" imports it")}}
    stays: dict[str, str] = {}
    for name in graph.distributions:
        reason = _unmovable(context, graph.distributions[name])
        if reason is not None and name not in gone:
            keep.setdefault(name, reason)
    while True:
        removal = only_needed_by(graph, wanted | gone, keep)
        found = set(removal.leaving) - gone
        for name, reason in removal.refused.items():
            if name in wanted:
                stays.setdefault(name, keep.get(name, reason))
        more = _undeclared(context, graph, found - wanted, found)
        if not more:
            break
        keep.update(more)
        stays.update(more)
    return Leaving(tuple(sorted(found)), _chains(graph, wanted & found, found), dict(sorted(stays.items())))


def _unmovable(context: Context, found: Collection[Distribution]) -> str | None:
    """Why distributions of one name cannot leave, whatever needs them; None when they can."""
    owners = context.ledger.owners
    for dist in found:
        if not dist.has_record:
            return "no list of its files is in the image"
        for path in () if context.anything_may_change else dist.files:
            if path not in context.gone and not context.may_change(path):
                return f"/{path} is to stay"
        if dist.installer == "conda":  # conda-meta has its own list of them
            return "it belongs to a conda package"
        if owners[dist.files[0]].kind == "debian":
            return "it belongs to a Debian package"
    return None


def _undeclared(context: Context, graph: Graph, names: set[str], found: set[str]) -> dict[str, str]:
    """Those of `names` that staying modules import without saying so in their metadata."""
    modules = {
        module: name for name in sorted(names) for dist in graph.distributions[name] for module in dist.top_level
    }
    if not modules:
        return {}
    shared = {m for n, dists in graph.distributions.items() if n not in found for d in dists for m in d.top_level}
    files = {path for name in found for dist in graph.distributions[name] for path in dist.files}
    importing = importers(context, modules.keys() - shared, files)
    return {modules[m]: f"/{path} imports it, undeclared" for m, path in sorted(importing.items())}


def _chains(graph: Graph, wanted: Collection[str], found: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Breadth first, so the shortest."""
    chains: dict[str, tuple[str, ...]] = {name: (name,) for name in sorted(wanted)}
    todo = sorted(wanted)
    while todo:
        here = todo.pop(0)
        for edge in graph.edges[here]:
            if edge.target in found and edge.target not in chains:
                chains[edge.target] = (*chains[here], edge.target)
                todo.append(edge.target)
    return chains


def proposals(
    context: Context, found: Leaving, why: str, asked: Collection[str] = (), *, known: str = "is a known one"
) -> Iterator[Proposal]:
    """All paths of the distributions; `why` and `known` are said of those that were named, but for what the user
    `asked` for.
    """
    graph = context.ledger.graph
    shared = {p for n, dists in graph.distributions.items() if n not in found.names for d in dists for p in d.files}
    for name in found.names:
        chain = found.chains.get(name, (name,))
        roots = [
            root for root in found.names if found.chains.get(root) == (root,) and _reaches(graph, root, name, found)
        ]
        shown = [graph.display(root) for root in roots]
        if name in asked:
            reason, evidence = "asked for", f"--remove names {graph.display(name)}, and nothing that stays requires it"
        elif len(chain) == 1:
            reason, evidence = why, f"{graph.display(name)} {known}, and nothing that stays requires it"
        else:
            reason = f"only {_listing(shown)} {'needs' if len(shown) == 1 else 'need'} it"
            evidence = f"reachable from {_listing(shown)} only: {' -> '.join(map(graph.display, chain))}"
        for dist in graph.distributions[name]:
            for path in sorted(_paths(context, dist)):
                if path not in shared and context.may_change(path):
                    yield Proposal("remove", path, reason, evidence)


def _reaches(graph: Graph, root: str, name: str, found: Leaving) -> bool:
    seen = {root}
    todo = [root]
    while todo:
        here = todo.pop()
        if here == name:
            return True
        fresh = [e.target for e in graph.edges[here] if e.target in found.chains and e.target not in seen]
        seen.update(fresh)
        todo += fresh
    return False


def _listing(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}"


def _paths(context: Context, dist: Distribution) -> set[str]:
    """The files of a distribution, the bytecode of its modules, and the directories that may be empty then."""
    found = set(dist.files)
    for path in dist.files:
        found.update(bytecode(context, path))
    below = f"{dist.site}/"
    for path in tuple(found):
        parent = posixpath.dirname(path)
        while parent.startswith(below) and parent not in found:
            found.add(parent)
            parent = posixpath.dirname(parent)
    return found


def bytecode(context: Context, path: str) -> Iterator[str]:
    """The .pyc files of a .py file, with their directory (PEP 3147)."""
    if not path.endswith(".py"):
        return
    parent, _, base = path.rpartition("/")
    directory = f"{parent}/__pycache__" if parent else "__pycache__"
    children = context.ledger.fs.children(directory)
    if not children:
        return
    prefix = f"{directory}/{base[:-3]}."
    for child in children:
        if child.startswith(prefix) and child.endswith(".pyc"):
            yield child
    yield directory
