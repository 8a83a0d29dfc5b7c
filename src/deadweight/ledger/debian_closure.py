"""Which Debian packages can leave together, by dpkg's own dependencies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from deadweight.ledger.debian import Package

Groups = tuple[tuple[str, ...], ...]
BASE_PRIORITIES = frozenset({"required", "important", "standard"})


class Closure(msgspec.Struct, frozen=True):
    """What leaves, and which seeds must stay; each package name with the reason."""

    leaving: dict[str, str]
    refused: dict[str, str]


class _Node(msgspec.Struct):
    """A package name: all architectures of it that are installed leave together or not at all."""

    essential: bool
    brought: bool
    """Whether it is there for others only, as far as can be told."""
    depends: list[list[str]]
    """For each group that it depends on, the installed packages that satisfy it."""
    recommends: list[list[str]]
    wants: set[str]
    """All that `depends` and `recommends` can mean."""


def removable(packages: Iterable[Package], seeds: Collection[str], keep: Collection[str] = ()) -> Closure:
    """The packages that can leave together with `seeds`, so that no staying package loses what it depends on.

    A package leaves when it is a seed, or when leaving packages brought it in (they depend on or recommend it, and
    it was not asked for: apt marked it automatic, or, where apt says nothing, its priority is not one of the base
    system's). It stays when it is essential, when it is in `keep`, when a staying package depends on it and on
    nothing else that would do, and, but for seeds, when a staying package recommends it (apt's autoremove keeps
    those too). Groups of alternatives and virtual packages count as dpkg counts them; where either of two leaving
    packages would do for a staying one, one that is no seed stays, else the first named. Seeds that are not
    installed are passed over.
    """
    nodes = _nodes([p for p in packages if p.installed])
    wanted = {name for name in seeds if name in nodes}
    refused: dict[str, str] = {}
    for name in sorted(wanted):
        if nodes[name].essential:
            refused[name] = "essential: dpkg does not remove it"
        elif name in keep:
            refused[name] = "a file that stays needs it"
    blocked = {name for name, node in nodes.items() if node.essential or name in keep}
    brought = {name for name, node in nodes.items() if node.brought} - blocked
    leaving = _reach(nodes, wanted - blocked, brought)
    while True:
        stays = _needed(nodes, leaving, wanted)
        if stays:
            leaving -= stays.keys()
            refused.update((name, reason) for name, reason in stays.items() if name in wanted)
            continue
        linked = _reach(nodes, leaving & wanted, leaving)
        if linked == leaving:
            break
        leaving = linked
    requirers: dict[str, list[str]] = {name: [] for name in leaving}
    for name in sorted(leaving):
        for other in nodes[name].wants & leaving - {name}:
            requirers[other].append(name)
    reasons = {n: "named" if n in wanted else f"only needed by {_listing(requirers[n])}" for n in sorted(leaving)}
    return Closure(reasons, {name: refused[name] for name in sorted(refused)})


def _nodes(packages: Sequence[Package]) -> dict[str, _Node]:
    """The installed packages by name, sorted."""
    names = {package.name for package in packages}
    providers: dict[str, list[str]] = {}
    for package in sorted(packages, key=lambda p: p.name):
        for virtual in package.provides:
            providers.setdefault(virtual, []).append(package.name)

    def satisfying(groups: Iterable[Sequence[str]]) -> list[list[str]]:
        found = []
        for group in groups:
            good = [p for name in group for p in ([name] if name in names else []) + providers.get(name, [])]
            if good:  # otherwise it was broken before
                found.append(list(dict.fromkeys(good)))
        return found

    nodes: dict[str, _Node] = {}
    for package in packages:
        node = nodes.setdefault(package.name, _Node(False, True, [], [], set()))
        node.essential |= package.essential
        node.brought &= package.auto if package.auto is not None else package.priority not in BASE_PRIORITIES
        node.depends += satisfying(package.depends)
        node.recommends += satisfying(package.recommends)
        node.wants.update(*node.depends, *node.recommends)
    return {name: nodes[name] for name in sorted(nodes)}


def _reach(nodes: Mapping[str, _Node], start: Collection[str], within: Collection[str]) -> set[str]:
    """What `start` brought in, directly or by way of others of `within`; `start` included."""
    found = set(start)
    todo = list(start)
    while todo:
        for name in nodes[todo.pop()].wants:
            if name in within and name not in found:
                found.add(name)
                todo.append(name)
    return found


def _needed(nodes: Mapping[str, _Node], leaving: set[str], seeds: Collection[str]) -> dict[str, str]:
    """Leaving packages that staying ones need, with the reason; empty when there are none.

    Needs that only one package can meet come first; a choice is made only when there are none of them, and one at a
    time, since it may settle others.
    """
    needed: dict[str, str] = {}
    choice: dict[str, str] = {}
    for name, node in nodes.items():
        if name in leaving:
            continue
        for groups, verb in ((node.depends, "depends on"), (node.recommends, "recommends")):
            for group in groups:
                if any(package not in leaving for package in group):
                    continue
                good = group if verb == "depends on" else [package for package in group if package not in seeds]
                if len(good) == 1:
                    needed.setdefault(good[0], f"{name} {verb} it")
                elif good and not choice:
                    pick = next((package for package in good if package not in seeds), good[0])
                    choice[pick] = f"{name} {verb} it"
    return needed or choice


def _listing(names: Sequence[str], limit: int = 3) -> str:
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")
