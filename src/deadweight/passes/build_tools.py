"""Compilers and other tools that build software: Debian packages, programs of nobody, and Python distributions."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from deadweight.ledger.debian import Alternative, Closure, Package, alternatives, removable
from deadweight.ledger.known import known, matcher
from deadweight.passes.base import Context, Pass, Proposal, noted
from deadweight.passes.commands import commands, follow, path_directories
from deadweight.passes.compiling import compiles, installed
from deadweight.passes.distributions import bytecode, leaving, proposals
from deadweight.passes.libraries import needs
from deadweight.passes.packages import all_needs, kept_by

_COMPILER = re.compile(r"(?:^|[/-])(?:gcc|g\+\+|clang|rustc|gfortran)(?:-\d+)?\Z")
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
    if not seeds:
        return
    groups = alternatives(context.ledger.fs, context.ledger.notes)
    closure = removable(packages, seeds, keep)
    if not closure.leaving:
        return
    for package in packages:
        if package.name in closure.leaving and package.name not in keep:
            reason = _unmovable(context, package)
            if reason is not None:
                keep[package.name] = reason
    at_most = {path for package in packages if package.name in closure.leaving for path in _paths(package)}
    found_needs = all_needs(context, groups, at_most)
    while True:
        closure = removable(packages, seeds, keep)
        files = _leaving_files(packages, closure)
        more = kept_by(found_needs, files, context.gone)
        more.update((p, r) for p, r in _alternatives_need(context, groups, files).items() if p not in more)
        if not more:
            break
        keep.update(more)
    _note(context, packages, closure, keep)
    yield from _removals(context, packages, closure, files, groups, seeds)


def _paths(package: Package) -> Iterator[str]:
    yield from package.files
    yield from package.listed_directories


def _unmovable(context: Context, package: Package) -> str | None:
    """Why a package cannot leave, whatever needs it; None when it can."""
    if not any(path.endswith(".list") for path in package.info_files):
        return "the image has no list of its files"
    for path in (*package.files, *package.info_files):
        if path not in context.gone and not context.may_change(path):
            return f"/{path} is to stay"
    return None


def _leaving_files(packages: Sequence[Package], closure: Closure) -> dict[str, str]:
    """The paths that only leaving packages list, directories too, each with the first such package."""
    staying = {path for package in packages if package.name not in closure.leaving for path in _paths(package)}
    found: dict[str, str] = {}
    for package in packages:
        if package.name in closure.leaving:
            for path in _paths(package):
                if path not in staying:
                    found.setdefault(path, package.name)
    return found


def _note(context: Context, packages: Sequence[Package], closure: Closure, keep: Mapping[str, str]) -> None:
    """Says of each tool, and of what the closure would take without files' needs, why it stays."""
    reasons = {p: r for p, r in closure.refused.items() if p not in keep}
    reasons.update((p, r) for p, r in keep.items() if not r.startswith("its priority"))
    names = {package.name for package in packages}
    context.notes += noted(
        "packages of build tools", {f"the package {name}": reasons[name] for name in reasons.keys() & names}
    )


def _removals(
    context: Context,
    packages: Sequence[Package],
    closure: Closure,
    files: Mapping[str, str],
    groups: Sequence[Alternative],
    seeds: Collection[str],
) -> Iterator[Proposal]:
    checked = f"no kept file needs it: DT_NEEDED of {len(needs(context.ledger)):,} ELF files checked"
    done: set[str] = set()
    for package in packages:
        reason = closure.leaving.get(package.name)
        if reason is None:
            continue
        why = "builds software" if package.name in seeds else "only build tools need it"
        about = "a build tool" if reason == "named" else reason
        evidence = f"Debian package {package.name} ({about}); {checked}"
        own = {path for path in _paths(package) if path in files}
        own.update(package.info_files)
        for path in tuple(own):
            own.update(bytecode(context, path))
        for path in sorted(own - done):
            if context.may_change(path):
                yield Proposal("remove", path, why, evidence)
        done |= own
    for group in groups:
        if group.candidates and all(_leaves(context, files, c.path) for c in group.candidates):
            evidence = f"every alternative for {group.name} leaves"
            for path in dict.fromkeys((*group.links, group.admin)):
                if path not in done and path in context.ledger.fs.nodes and context.may_change(path):
                    done.add(path)
                    yield Proposal("remove", path, "links to build tools", evidence)


def _leaves(context: Context, files: Mapping[str, str], path: str) -> bool:
    """Whether a file that an alternative names leaves, or is not there at all."""
    node = context.ledger.fs.nodes.get(path)
    if node is None:
        parent = context.ledger.fs.resolve(posixpath.dirname(path))
        path = posixpath.join(parent.path, posixpath.basename(path)) if parent is not None else path
    return path not in context.ledger.fs.nodes or path in files or path in context.gone


def _alternatives_need(context: Context, groups: Sequence[Alternative], files: Mapping[str, str]) -> dict[str, str]:
    """Packages that hold what an alternative stands for now, while it has another candidate that stays."""
    fs = context.ledger.fs
    found: dict[str, str] = {}
    for group in groups:
        if all(_leaves(context, files, c.path) for c in group.candidates):
            continue
        for link in group.links:
            for step in follow(fs, link):
                if step.path in files:
                    reason = f"/{link} leads to /{step.path}, and has alternatives that stay"
                    found.setdefault(files[step.path], reason)
    return found


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
    for path, node in fs.nodes.items():
        if node.kind == "symlink" and path not in found and path not in context.gone:
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
