"""Why an owner's bytes are in an image, in a line."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from packaging.utils import canonicalize_name

from deadweight.ledger.debian import Package
from deadweight.ledger.ledger import Ledger, Owner

_REASONS = {
    "interpreter": "the Python interpreter and its standard library",
    "application": "the working directory and what PYTHONPATH names",
    "system": "made by commands: no package or distribution lists them",
    "hidden": "deleted or overwritten by a later layer: no container sees them",
    "framing": "headers, padding and ends of the layers' tars",
}
ASKED = "asked for"
_BASE = ("required", "important")


def owner_reason(ledger: Ledger, packages: dict[str, str], owner: Owner) -> str:
    """The chain of requirements that brought an owner in, or what it is; `packages` is from `package_reasons`."""
    if owner.kind == "python":
        return ledger.why.get(str(canonicalize_name(owner.name)), "")
    if owner.kind == "debian":
        return packages.get(owner.name, "")
    return _REASONS.get(owner.kind, "")


def package_reasons(packages: Sequence[Package]) -> dict[str, str]:
    """For each Debian package the shortest chain of dependencies from one that somebody asked for.

    Asked for is what apt did not mark as installed automatically; where apt says nothing, what no package needs.
    The base system (essential, or of priority required or important) is its own reason.
    """
    installed = {package.name: package for package in packages if package.installed}
    providers: dict[str, list[str]] = {}
    for package in installed.values():
        for name in package.provides:
            providers.setdefault(name, []).append(package.name)

    def reached(groups: Sequence[Sequence[str]]) -> list[str]:
        return [
            name
            for group in groups
            for alternative in group
            for name in ([alternative] if alternative in installed else providers.get(alternative, ()))
        ]

    needed = {name for package in installed.values() for name in reached(package.depends) if name != package.name}
    reasons: dict[str, str] = {}
    base: list[str] = []
    asked: list[str] = []
    for name, package in sorted(installed.items()):
        if package.essential:
            reasons[name] = "essential to Debian"
        elif package.priority in _BASE:
            reasons[name] = f"Debian's base system (priority {package.priority})"
        elif package.auto is False or (package.auto is None and name not in needed):
            reasons[name] = ASKED if package.auto is False else "no package needs it"
            asked.append(name)
            continue
        else:
            continue
        base.append(name)
    chains = {name: name for name in [*asked, *base]}
    # What the base system needs is not there for what was asked for, even if an installer marked it so (debootstrap
    # marks all that it installs). Hard dependencies explain more than recommendations.
    for starts, soft in ((base, False), (asked, False), (asked, True), (base, True)):
        todo = deque(starts)
        done = set(starts)
        while todo:
            here = todo.popleft()
            package = installed[here]
            for name in reached(package.depends) + (reached(package.recommends) if soft else []):
                if name not in chains or (starts is base and not soft and reasons.get(name) == ASKED):
                    reasons[name] = chains[name] = f"{chains[here]} -> {name}"
                if name not in done:
                    done.add(name)
                    todo.append(name)
    return reasons
