"""Debian packages leave whole, with what only they need, unless a file that stays needs one of theirs."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from deadweight.ledger.debian import Alternative, Closure, Package, alternatives, removable
from deadweight.passes.base import Context, Proposal, noted
from deadweight.passes.commands import follow
from deadweight.passes.distributions import bytecode
from deadweight.passes.libraries import needs
from deadweight.passes.packages import all_needs, kept_by


class Words(NamedTuple):
    """What reports call the packages that a pass is after."""

    one: str
    """As in `Debian package gcc (a build tool)`."""
    many: str
    """As in `only build tools need it`."""
    purpose: str
    """What they are for, as in `builds software`."""


def package_removals(
    context: Context,
    packages: Sequence[Package],
    seeds: Collection[str],
    keep: Mapping[str, str],
    words: Words,
    is_nothing: Callable[[str], bool] = lambda _: False,
) -> Iterator[Proposal]:
    """Removes the installed `packages` that are `seeds`, and what only those need, but for those of `keep`.

    What stays though it is a seed is noted with the reason, where `keep` does not give it. Paths that are nothing need
    nothing.
    """
    if not seeds:
        return
    keep = dict(keep)
    base = frozenset(keep)
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
    found_needs = [
        need
        for need in all_needs(context, groups, at_most)
        if not (need.source and all(is_nothing(name) for name in need.source))
    ]
    while True:
        closure = removable(packages, seeds, keep)
        files = _leaving_files(packages, closure)
        more = kept_by(found_needs, files, context.gone)
        more.update((p, r) for p, r in _alternatives_need(context, groups, files).items() if p not in more)
        if not more:
            break
        keep.update(more)
    reasons = {p: r for p, r in closure.refused.items() if p not in keep}
    reasons.update((p, r) for p, r in keep.items() if p not in base)
    names = {package.name for package in packages}
    context.notes += noted(
        f"packages of {words.many}", {f"the package {name}": reasons[name] for name in reasons.keys() & names}
    )
    yield from _removals(context, packages, closure, files, groups, seeds, words)


def _paths(package: Package) -> Iterator[str]:
    yield from package.files
    yield from package.listed_directories


def _unmovable(context: Context, package: Package) -> str | None:
    """Why a package cannot leave, whatever needs it; None when it can."""
    if not any(path.endswith(".list") for path in package.info_files):
        return "the image has no list of its files"
    for path in () if context.anything_may_change else (*package.files, *package.info_files):
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


def _removals(
    context: Context,
    packages: Sequence[Package],
    closure: Closure,
    files: Mapping[str, str],
    groups: Sequence[Alternative],
    seeds: Collection[str],
    words: Words,
) -> Iterator[Proposal]:
    checked = f"no kept file needs it: DT_NEEDED of {len(needs(context.ledger)):,} ELF files checked"
    done: set[str] = set()
    for package in packages:
        reason = closure.leaving.get(package.name)
        if reason is None:
            continue
        why = words.purpose if package.name in seeds else f"only {words.many} need it"
        about = words.one if reason == "named" else reason
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
                    yield Proposal("remove", path, f"links to {words.many}", evidence)


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
