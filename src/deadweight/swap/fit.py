"""Whether a wheel fits an image: its machine and Python, the version, and what is required by it and of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from deadweight.errors import BadInputError, shown
from deadweight.files.cpu_wheel import Runs, runs_there
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.machine import MACHINES, glibc
from deadweight.ledger.python import Distribution, marker_environment
from deadweight.swap.wheel import Wheel

_SHOWN: Final = 5


def runs_of(ledger: Ledger, site: str) -> Runs:
    """Where wheels for a site of the image have to run. Raises BadInputError where none are made for it."""
    architecture = str(ledger.image.config.get("architecture", ""))
    machine = MACHINES.get(architecture)
    if machine is None:
        raise BadInputError(
            f"the image is for {shown(architecture)}: wheels for amd64 and arm64 can be swapped, no others"
        )
    python = marker_environment(ledger.fs, site, ledger.interpreters)["python_version"]
    return Runs(python, machine, glibc(ledger.fs, machine))


def check_fits(ledger: Ledger, dist: Distribution, wheel: Wheel) -> None:
    """Raises BadInputError unless the wheel is another build of this version of the distribution, and runs there."""
    if wheel.name != dist.name:
        raise BadInputError(f"{shown(wheel.file)} is a wheel of {wheel.name}, not of {dist.display}")
    try:
        there = Version(dist.version)
    except InvalidVersion:
        raise BadInputError(
            f"the image's {dist.display} has the version {shown(dist.version)}, which is none"
        ) from None
    if wheel.version.public != there.public:
        raise BadInputError(
            f"{shown(wheel.file)} is not the same version as the image's {dist.display} {there}: take a build of "
            f"{there.public}, since another version is another program"
        )
    runs = runs_of(ledger, dist.site)
    if not runs_there(wheel.tags, runs):
        raise BadInputError(f"{shown(wheel.file)} does not run in the image: it has to be for {runs}")


def check_can_leave(ledger: Ledger, dist: Distribution) -> None:
    """Raises BadInputError where a distribution is not one that installers of wheels put there."""
    info = f"{dist.info}/RECORD"
    if not dist.has_record or not dist.info.endswith(".dist-info") or info not in ledger.fs.nodes:
        reason = "it has no RECORD of its files"
    elif dist.installer == "conda":
        reason = "it belongs to a conda package: install it by pip"
    elif ledger.owner(info).kind == "debian":
        reason = "it belongs to a Debian package: install it by pip"
    elif dist.editable:
        reason = "it is an editable installation"
    else:
        return
    raise BadInputError(f"{dist.display} cannot be swapped: {reason}")


def check_requirements(before: Ledger, after: Ledger) -> None:
    """Raises BadInputError, naming them, where requirements no longer hold that did, or new ones do not hold."""
    new = sorted(broken(after).items() - broken(before).items())
    if new:
        lines = []
        for (by, requirement), there in new[:_SHOWN]:
            lines.append(f"{by} requires {shown(requirement)}, and {there or 'nothing of the name'} is installed")
        more = f" and {len(new) - _SHOWN} more" if len(new) > _SHOWN else ""
        raise BadInputError(f"the swap would leave requirements unmet: {'; '.join(lines)}{more}")


def broken(ledger: Ledger) -> dict[tuple[str, str], str]:
    """The requirements of installed distributions that do not hold, as `pip check` has it: (by, requirement), and the
    version that is there."""
    found = {}
    installed = {dist.name: dist for dist in ledger.distributions}
    for dist in ledger.distributions:
        environment = {**marker_environment(ledger.fs, dist.site, ledger.interpreters), "extra": ""}
        for one, text in requirements(dist.requires, environment):
            there = installed.get(canonicalize_name(one.name))
            if there is None or not _satisfies(there.version, one):
                found[dist.name, text] = f"{there.display} {there.version}" if there is not None else ""
    return found


def requirements(lines: tuple[str, ...], environment: Mapping[str, str]) -> Iterator[tuple[Requirement, str]]:
    """The requirements that hold in an environment, and how they are written; what is none is passed over."""
    for line in lines:
        try:
            one = Requirement(line)
            if one.marker is None or one.marker.evaluate(dict(environment)):
                yield one, line
        except (InvalidRequirement, UndefinedComparison, UndefinedEnvironmentName, ValueError, RecursionError):
            continue


def _satisfies(version: str, one: Requirement) -> bool:
    try:
        return one.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return True
