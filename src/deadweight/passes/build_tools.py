"""Compilers and other tools that build software: Debian packages, programs of nobody, and Python distributions."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Final

from deadweight.ledger.known import known, matcher
from deadweight.passes.base import Context, Pass, Proposal
from deadweight.passes.commands import commands, path_directories
from deadweight.passes.compiling import compiles, installed
from deadweight.passes.debian_removal import Words, package_removals
from deadweight.passes.distributions import leaving, proposals

_COMPILER = re.compile(r"(?:^|[/-])(?:gcc|g\+\+|clang|rustc|gfortran)(?:-\d+)?\Z")
_WORDS: Final = Words("a build tool", "build tools", "builds software")
KEPT_PRIORITIES = frozenset({"required", "important"})


def propose(context: Context) -> Iterator[Proposal]:
    """Packages, programs and distributions, each whole."""
    reason = compiles(context)
    if reason is not None:
        context.notes.append(f"build tools stay: {reason}")
        return
    users = installed(context, "compilers")
    if users:
        context.notes.append(f"build tools stay: {', '.join(users)} may compile code while running")
        return
    _note_others(context)
    yield from list(_packages(context))
    yield from list(_programs(context))
    yield from list(_distributions(context))


# --- Debian packages -----------------------------------------------------------------------------------


def _packages(context: Context) -> Iterator[Proposal]:
    packages = [package for package in context.ledger.packages if package.installed]
    is_tool, is_none = matcher(known("build_tools", "packages")), matcher(known("build_tools", "not_packages"))
    seeds = {p.name for p in packages if is_tool(p.name) and not is_none(p.name)}
    keep = {p.name: f"its priority is {p.priority}" for p in packages if p.priority in KEPT_PRIORITIES}
    yield from package_removals(context, packages, seeds, keep, _WORDS)


# --- programs and distributions ------------------------------------------------------------------------


def _note_others(context: Context) -> None:
    """Says that compilers stay which dpkg knows nothing of: apk's, rpm's, conda's, or built in the image."""
    fs = context.ledger.fs
    places = [node.path for d in path_directories(fs.image) if (node := fs.resolve(d)) is not None]
    found = [
        path
        for place in dict.fromkeys(places)
        for path in fs.children(place)
        if _COMPILER.search(path) and fs.nodes[path].kind == "file" and context.ledger.owner(path).kind == "system"
    ]
    if found:
        context.notes.append(
            f"/{min(found)} stays, and what belongs to it: only Debian's packages leave as build tools"
        )


def _programs(context: Context) -> Iterator[Proposal]:
    """Programs that were copied in: uv as its documentation has it, say."""
    ledger = context.ledger
    fs = ledger.fs
    used = commands(ledger).programs
    names = known("build_tools", "programs")
    homes = ("/root/.local/bin", "/root/.cargo/bin")
    found: dict[str, str] = {}
    for directory in dict.fromkeys((*path_directories(fs.image), *homes)):
        node = fs.resolve(directory)
        if node is None or posixpath.join(posixpath.dirname(node.path), "conda-meta") in fs.nodes:
            continue  # what is in conda's environments is conda's, and its own list would be wrong
        for name in names:
            path = posixpath.join(node.path, name)
            program = fs.nodes.get(path)
            if program is None or program.kind not in ("file", "symlink") or ledger.owner(path).kind != "system":
                continue
            target = fs.resolve(path)
            for place in (path, target.path if target is not None else path):
                if posixpath.basename(place) == name and ledger.owner(place).kind == "system":
                    found[place] = name
    linked = _linked(context, found)
    for path, name in sorted(found.items()):
        word = next((used[place] for place, other in found.items() if other == name and place in used), None)
        if word is not None:
            context.notes.append(f"/{path} stays: the image runs {word}")
        elif path in linked:
            context.notes.append(f"/{path} stays: /{linked[path]} leads to it")
        elif context.may_change(path):
            evidence = f"{name} is a known tool, and nothing starts it"
            yield Proposal("remove", path, "builds or installs software", evidence)


def _linked(context: Context, found: Mapping[str, str]) -> dict[str, str]:
    """Programs that links under other names lead to."""
    fs = context.ledger.fs
    targets: dict[str, str] = {}
    for path in fs.symlinks:
        if path not in found and path not in context.gone:
            target = fs.resolve(path)
            if target is not None and target.path in found:
                targets.setdefault(target.path, path)
    return targets


def _distributions(context: Context) -> Iterator[Proposal]:
    graph = context.ledger.graph
    is_tool = matcher(known("build_tools", "distributions"))
    found = leaving(context, [name for name in graph.distributions if is_tool(name)])
    for name, reason in found.stays.items():
        context.notes.append(f"{graph.display(name)} stays: {reason}")
    yield from proposals(context, found, "builds or installs software")


PASS = Pass(
    name="build-tools",
    risk="policy",
    order=30,
    summary="compilers and installers: their Debian packages with what only those need, uv and the like",
    propose=propose,
)
