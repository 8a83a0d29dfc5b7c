"""Who requires whom among installed distributions, and why each of them is there.

Pure: from distributions and a marker environment (PEP 508) to a graph. Whether an extra was asked for is nowhere
recorded at installation, so extras come in two kinds: *requested* by another installed distribution's metadata
(`uvicorn[standard]`), and *inferred*, where nobody asks, but all that the extra needs is installed.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import msgspec
from packaging.utils import canonicalize_name

from deadweight.errors import shown
from deadweight.ledger.python import Distribution

if TYPE_CHECKING:  # to load packaging's parsers takes longer than to use them, and what they find is mostly known
    from packaging.markers import Marker

EdgeKind = Literal["hard", "requested", "inferred"]
_RANK: dict[EdgeKind, int] = {"hard": 0, "requested": 1, "inferred": 2}
_NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")
_EXTRA = re.compile(r"""\bextra\s*==\s*["']([^"']+)["']|["']([^"']+)["']\s*==\s*extra\b""")

DEVELOPER_EXTRAS = frozenset(
    {"dev", "develop", "development", "test", "tests", "testing", "doc", "docs", "lint", "linting", "typing", "types"}
    | {"mypy", "check", "checks", "ci", "qa", "benchmark", "benchmarks", "release", "build", "all"}
)


class Edge(msgspec.Struct, frozen=True, order=True):
    """`source` requires `target`; `extra` is the source's extra that brings it, empty for a hard requirement."""

    source: str
    target: str
    kind: EdgeKind
    extra: str = ""


class Graph(msgspec.Struct, frozen=True):
    """Installed distributions by canonical name, and what they require of each other."""

    distributions: dict[str, tuple[Distribution, ...]]
    """By name, sorted; two of one name (in different sites) are one node with the requirements of both."""
    edges: dict[str, tuple[Edge, ...]]
    """By source: one edge a target, the strongest kind there is."""
    incoming: dict[str, tuple[Edge, ...]]
    """The same edges by target."""
    roots: dict[str, str]
    """The names that are there on their own account, each with the reason."""
    notes: tuple[str, ...] = ()
    """Requirements that were passed over, and why."""

    def display(self, name: str) -> str:
        """The name as the distribution itself writes it."""
        return self.distributions[name][0].display


class Removal(msgspec.Struct, frozen=True):
    """What leaves together, and what was asked for and must stay; each name with its reason."""

    leaving: dict[str, str]
    refused: dict[str, str]


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A requirement in an environment, as far as it matters here."""

    target: str
    extras: tuple[str, ...]
    """What is asked of the target."""
    hard: bool
    """Whether it holds without an extra."""
    of_extras: tuple[str, ...]
    """With which extras it holds, where it is not hard."""


class _Line(msgspec.Struct, frozen=True):
    """A requirement as it is written."""

    target: str
    extras: tuple[str, ...]
    marker: Marker | None
    of_extras: frozenset[str]
    """The extras that its marker names."""


@lru_cache(maxsize=20_000)
def _parse(text: str) -> _Line | str:
    """A requirement, or why it is none. Most are plain names: those need no parser."""
    from packaging.markers import Marker  # noqa: PLC0415
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415

    head, semicolon, marker = text.partition(";")
    name = _NAME.match(head)
    try:
        if name is None:
            raise InvalidRequirement("it begins with no name")
        if "@" in head or "[" in head:
            requirement = Requirement(text)
            parsed = requirement.marker
            extras = tuple(sorted(str(canonicalize_name(extra)) for extra in requirement.extras))
        else:
            parsed = Marker(marker) if semicolon else None
            extras = ()
    except (ValueError, RecursionError) as error:
        return f"requirement {shown(text)} passed over: {str(error).splitlines()[0] if str(error) else 'too deep'}"
    named = frozenset(str(canonicalize_name(a or b)) for a, b in _EXTRA.findall(marker if parsed else ""))
    return _Line(str(canonicalize_name(name[1])), extras, parsed, named)


def _holds(marker: Marker | None, extra: str, env: Mapping[str, str]) -> bool:
    """Whether a marker is true; one that cannot be told counts as true, since then nothing leaves wrongly."""
    if marker is None:
        return True
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName  # noqa: PLC0415

    try:
        return marker.evaluate({**env, "extra": extra})
    except (UndefinedComparison, UndefinedEnvironmentName, ValueError):
        return True


class _Node(msgspec.Struct):
    """A name's requirements that hold in the environment: without an extra, and by extra."""

    hard: dict[str, set[str]]
    """Target -> extras that are asked of it."""
    extras: dict[str, dict[str, set[str]]]


def held_in(requires: Iterable[str], env: Mapping[str, str]) -> list[Held | str]:
    """What requirements come to in an environment; for those that do not parse the reason."""
    found: list[Held | str] = []
    for text in requires:
        line = _parse(text)
        if isinstance(line, str):
            found.append(line)
            continue
        hard = _holds(line.marker, "", env)
        of_extras = () if hard else tuple(extra for extra in sorted(line.of_extras) if _holds(line.marker, extra, env))
        found.append(Held(line.target, line.extras, hard, of_extras))
    return found


def _node(
    distributions: Sequence[Distribution], held: Callable[[Distribution], list[Held | str]], notes: list[str]
) -> _Node:
    node = _Node({}, {})
    for distribution in distributions:
        for one in held(distribution):
            if isinstance(one, str):
                notes.append(f"{distribution.display}: {one}")
                continue
            if one.hard:
                node.hard.setdefault(one.target, set()).update(one.extras)
            for extra in one.of_extras:
                node.extras.setdefault(extra, {}).setdefault(one.target, set()).update(one.extras)
    return node


def requirement_graph(
    distributions: Iterable[Distribution],
    env: Mapping[str, str],
    held: Callable[[Distribution], list[Held | str]] | None = None,
) -> Graph:
    """The graph of distributions that one interpreter sees, under its marker environment.

    Versions are not compared: what is installed under the required name counts. A requirement that does not parse
    leaves a note; a marker that cannot be told counts as true. `held` gives what a distribution's requirements come to
    there, where that is known.
    """
    by_name: dict[str, list[Distribution]] = {}
    for distribution in distributions:
        by_name.setdefault(distribution.name, []).append(distribution)
    notes: list[str] = []
    held = held or (lambda distribution: held_in(distribution.requires, env))
    nodes = {name: _node(by_name[name], held, notes) for name in sorted(by_name)}
    requested = _requested_extras(nodes)
    edges: dict[tuple[str, str], Edge] = {}

    def add(source: str, targets: Iterable[str], kind: EdgeKind, extra: str) -> None:
        for target in targets:
            if target in nodes and target != source:
                edge = Edge(source, target, kind, extra)
                old = edges.setdefault((source, target), edge)
                if (_RANK[kind], extra) < (_RANK[old.kind], old.extra):
                    edges[source, target] = edge

    for name, node in nodes.items():
        add(name, node.hard, "hard", "")
        for extra in node.extras:
            if (name, extra) in requested:
                add(name, node.extras[extra], "requested", extra)
            elif _is_complete(nodes, name, extra):
                add(name, node.extras[extra], "inferred", extra)
    outgoing: dict[str, list[Edge]] = {name: [] for name in nodes}
    incoming: dict[str, list[Edge]] = {name: [] for name in nodes}
    for edge in sorted(edges.values()):
        outgoing[edge.source].append(edge)
        incoming[edge.target].append(edge)
    installed = {name: tuple(sorted(by_name[name], key=lambda d: (d.site, d.info))) for name in nodes}
    into = {name: tuple(found) for name, found in incoming.items()}
    out = {name: tuple(found) for name, found in outgoing.items()}
    return Graph(installed, out, into, _roots(installed, out, into), tuple(notes))


def _requested_extras(nodes: Mapping[str, _Node]) -> set[tuple[str, str]]:
    """The (name, extra) that installed distributions ask for: in hard requirements, or in extras that are asked for."""
    asked: set[tuple[str, str]] = set()
    todo = [(target, extra) for node in nodes.values() for target in node.hard for extra in node.hard[target]]
    while todo:
        request = todo.pop()
        name, extra = request
        if name not in nodes or request in asked:
            continue
        asked.add(request)
        for target, extras in nodes[name].extras.get(extra, {}).items():
            todo.extend((target, further) for further in extras)
    return asked


def _is_complete(nodes: Mapping[str, _Node], name: str, extra: str) -> bool:
    """Whether all that an extra needs is installed, and that is another distribution at least.

    `name[all]` often requires `name[a]`: such references to itself are followed.
    """
    seen: set[str] = set()
    todo = [extra]
    others = 0
    while todo:
        here = todo.pop()
        if here in seen:
            continue
        seen.add(here)
        for target, extras in nodes[name].extras.get(here, {}).items():
            if target == name:
                todo.extend(extras)
            elif target not in nodes:
                return False
            else:
                others += 1
    return others > 0


def asked_for(distribution: Distribution) -> bool:
    """Whether somebody named this distribution when installing: REQUESTED, unless by uv, which marks everything."""
    return (distribution.requested and distribution.installer != "uv") or is_application(distribution)


def is_application(distribution: Distribution) -> bool:
    """Whether it was installed from a path or URL, and not from an index: most often the image's own code."""
    return distribution.editable or distribution.direct_url is not None


def _roots(
    distributions: Mapping[str, Sequence[Distribution]],
    edges: Mapping[str, Sequence[Edge]],
    incoming: Mapping[str, Sequence[Edge]],
) -> dict[str, str]:
    roots = {}
    for name, found in distributions.items():
        if any(asked_for(d) for d in found):
            roots[name] = "requested"
        elif not incoming[name]:
            roots[name] = "nothing installed requires it"
    reached = _reach(roots, edges)
    # What is left is only required in circles (pytest needs pluggy, whose extra `testing` needs pytest). Each
    # circle that nothing leads into gets a root: one that nobody requires without an extra, if there is one.
    # Backwards in the order in which a depth-first search is done with them, the first one is in such a circle.
    requirers = {n: tuple(Edge(e.target, e.source, e.kind) for e in incoming[n]) for n in distributions}
    for name in reversed(_finishing_order([n for n in distributions if n not in reached], edges)):
        if name not in reached:
            circle = _reach([name], edges) & _reach([name], requirers)
            pick = min(circle, key=lambda n: (_strongest(incoming[n]), n))
            roots[pick] = "nothing outside its own circle of requirements requires it"
            reached |= _reach([pick], edges)
    return {name: roots[name] for name in sorted(roots)}


def _finishing_order(names: Sequence[str], edges: Mapping[str, Sequence[Edge]]) -> list[str]:
    """The names in the order in which a depth-first search leaves them, what each reaches before itself."""
    done: dict[str, None] = {}
    seen: set[str] = set()
    for name in names:
        stack = [name]
        while stack:
            here = stack[-1]
            fresh = [] if here in seen else [e.target for e in edges[here] if e.target not in seen]
            seen.add(here)
            if fresh:
                stack.extend(reversed(fresh))
            else:
                done.setdefault(stack.pop())
    return list(done)


def _strongest(edges: Sequence[Edge]) -> int:
    """Sorts first what is only required by way of extras."""
    return -min((_RANK[edge.kind] for edge in edges), default=3)


def _reach(names: Iterable[str], edges: Mapping[str, Sequence[Edge]], kinds: Collection[str] = _RANK) -> set[str]:
    seen = set(names)
    todo = list(seen)
    while todo:
        for edge in edges[todo.pop()]:
            if edge.kind in kinds and edge.target not in seen:
                seen.add(edge.target)
                todo.append(edge.target)
    return seen


def why(graph: Graph) -> dict[str, str]:
    """For each name the chain of requirements that brought it in, as `app[ml] -> sentence-transformers -> scipy`.

    Of all chains from a root: the one with the fewest inferred extras, then one that needs no extra for developers
    (what the service needs anyway is not there for its tests), then the shortest, then the one with the fewest
    requested extras, then one from an application, then the first by name. A root has its reason instead.
    """
    heap: list[tuple[int, int, int, int, int, tuple[str, ...], str]] = []
    for name in graph.roots:
        found = graph.distributions[name]
        rank = 0 if any(is_application(d) for d in found) else 1 if graph.roots[name] == "requested" else 2
        heapq.heappush(heap, (0, 0, 0, 0, rank, (name,), graph.display(name)))
    chains: dict[str, str] = {}
    while heap:
        inferred, developer, length, requested, rank, path, text = heapq.heappop(heap)
        here = path[-1]
        if here in chains:
            continue
        chains[here] = graph.roots[here] if length == 0 else text
        for edge in graph.edges[here]:
            if edge.target in chains:
                continue
            step = f"{text}[{edge.extra}]" if edge.extra else text
            heapq.heappush(
                heap,
                (
                    inferred + (edge.kind == "inferred"),
                    developer + (edge.extra in DEVELOPER_EXTRAS),
                    length + 1,
                    requested + (edge.kind == "requested"),
                    rank,
                    (*path, edge.target),
                    f"{step} -> {graph.display(edge.target)}",
                ),
            )
    return {name: chains[name] for name in sorted(chains)}


def only_needed_by(graph: Graph, names: Collection[str], keep: Collection[str] = ()) -> Removal:
    """What can leave together with `names` (canonical): those, and what they brought in and nothing else needs.

    Leaving is what `names` reach by hard and requested requirements, less `keep`, less what somebody asked for, and
    less what any staying distribution requires, hard or by an extra. An inferred extra holds too, but not what is
    in `names` itself: that `pluggy[testing]` would need pytest is no reason to keep pytest. A name that has to stay
    is refused, with the reason, and holds what it needs. Names that are not installed are passed over.
    """
    wanted = {name for name in names if name in graph.distributions}
    refused = {name: "it is to be kept" for name in wanted if name in keep}
    leaving = {
        name
        for name in _reach(wanted, graph.edges, ("hard", "requested"))
        if name not in keep and (name in wanted or not any(asked_for(d) for d in graph.distributions[name]))
    }
    todo = sorted(leaving)
    while todo:
        name = todo.pop(0)
        if name not in leaving:
            continue
        holds = [
            edge
            for edge in graph.incoming[name]
            if edge.source not in leaving and (edge.kind != "inferred" or name not in wanted)
        ]
        if holds:
            leaving.remove(name)
            if name in wanted:
                first = min(holds, key=lambda edge: (_RANK[edge.kind], edge.source))
                refused[name] = f"required by {_requirer(graph, first)}"
            todo.extend(edge.target for edge in graph.edges[name])
    reasons = {}
    for name in sorted(leaving):
        by = [_requirer(graph, edge) for edge in graph.incoming[name] if edge.source in leaving]
        reasons[name] = "named" if name in wanted else f"only needed by {_listing(by)}"
    return Removal(reasons, {name: refused[name] for name in sorted(refused)})


def _requirer(graph: Graph, edge: Edge) -> str:
    return f"{graph.display(edge.source)}[{edge.extra}]" if edge.extra else graph.display(edge.source)


def _listing(names: Sequence[str], limit: int = 3) -> str:
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
