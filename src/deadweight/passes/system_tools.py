"""What installs packages in a Debian system, logs in to it and boots it: dpkg, Perl's core, debconf, PAM, util-linux.

Debian calls most of it essential, for its packages to rely on while they are installed and for people to run a system
with; a container that only serves does neither. Shells, coreutils, grep, sed, find, tar and gzip are no system tools
here. dpkg's database stays, for scanners, and no longer has what left. Dependencies on dpkg, debconf and their like
are those of maintainer scripts, by Debian's policy, and so hold nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from deadweight.ledger.debian import Package
from deadweight.ledger.known import known, known_pairs, matcher
from deadweight.passes.base import Context, Pass, Proposal
from deadweight.passes.debian_removal import Words, package_removals

_WORDS: Final = Words("a system tool", "system tools", "installs packages, logs in or boots")
_LIBRARIES: Final = ("libs", "oldlibs")


def propose(context: Context) -> Iterator[Proposal]:
    """The packages, whole, with the libraries that only they need, and what they wrote; ordered by package."""
    is_tool = matcher(known("system_tools", "packages"))
    installed = [p for p in context.ledger.packages if p.installed and not context.gone.intersection(p.info_files)]
    packages = _without_maintainers(installed, {p.name for p in installed if is_tool(p.name)})
    seeds = {p.name for p in packages if is_tool(p.name)}
    removals = list(package_removals(context, packages, seeds, {}, _WORDS, matcher(known("system_tools", "boot"))))
    yield from removals
    leaving = {removal.path for removal in removals}
    yield from list(_boot(context, leaving))
    for package in packages:
        if not leaving.isdisjoint(package.info_files):
            yield from _written(context, package.name, leaving)


def _boot(context: Context, leaving: set[str]) -> Iterator[Proposal]:
    """Links by which booting starts what leaves."""
    is_boot = matcher(known("system_tools", "boot"))
    fs = context.ledger.fs
    for path in fs.symlinks:
        if is_boot(path) and path not in leaving and context.may_change(path):
            target = fs.resolve(path)
            if target is not None and target.path in leaving:
                leaving.add(path)
                yield Proposal("remove", path, "starts a service when a system boots", f"/{target.path} leaves")


def _written(context: Context, name: str, leaving: set[str]) -> Iterator[Proposal]:
    """The files that a package's programs wrote and nobody lists."""
    patterns = [is_its for is_its, package in known_pairs("system_tools", "written") if package == name]
    for path, node in context.ledger.fs.nodes.items():
        if node.kind == "dir" or path in leaving or not any(is_its(path) for is_its in patterns):
            continue
        if context.may_change(path) and context.ledger.owner(path).kind == "system":
            leaving.add(path)
            yield Proposal("remove", path, f"written by {name}", f"only {name} reads it, and that leaves")


def _without_maintainers(packages: Sequence[Package], tools: set[str]) -> list[Package]:
    """The packages as they are where nothing is installed any more.

    Tools are not essential, dependencies of maintainer scripts are none, and libraries are there for others.
    """
    is_scripts = matcher(known("system_tools", "of_maintainer_scripts"))
    found = []
    for package in packages:
        depends = tuple(group for group in package.depends if not any(is_scripts(name) for name in group))
        auto = None if package.section.rpartition("/")[2] in _LIBRARIES else package.auto
        essential = package.essential and package.name not in tools
        found.append(msgspec.structs.replace(package, depends=depends, auto=auto, essential=essential))
    return found


PASS = Pass(
    name="system-tools",
    risk="observed",
    order=38,
    summary="what installs Debian packages, logs in and boots: apt, dpkg, Perl's core, PAM, util-linux",
    propose=propose,
)
