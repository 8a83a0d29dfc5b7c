"""Which wheel is meant: by a file's name, as a CPU build that pip finds, or by the hash that a plan has of it."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from deadweight.errors import BadInputError, EnvironmentFailure, PlanError, UsageError, shown
from deadweight.files.cpu_wheel import Sources, download_wheel, find_cpu_wheel
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.python import Distribution
from deadweight.plan import Swap
from deadweight.swap.fit import runs_of

CPU: Final = "cpu"


class Asked(NamedTuple):
    """A --swap of the command line."""

    name: str
    """Canonical."""
    by: str
    """`cpu`, or a wheel file."""


class Found(NamedTuple):
    """A wheel for a distribution."""

    name: str
    path: Path
    source: str
    """Where it was: a path or a URL."""


def parse_swaps(texts: Sequence[str]) -> list[Asked]:
    """What --swap says, as `torch=cpu` or `torch=FILE.whl`. Raises UsageError."""
    found: list[Asked] = []
    for text in texts:
        name, equals, by = text.partition("=")
        if not equals or not name.strip() or not by:
            raise UsageError(f"--swap {shown(text)}: say NAME=cpu or NAME=FILE.whl, as torch=cpu")
        if by != CPU and not by.endswith(".whl"):
            raise UsageError(f"--swap {shown(text)}: {shown(by)} is neither cpu nor a wheel file (FILE.whl)")
        if by != CPU and not Path(by).is_file():
            raise UsageError(f"--swap {shown(text)}: there is no file {shown(by)}")
        found.append(Asked(str(canonicalize_name(name.strip())), by))
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise UsageError("--swap names a distribution twice; once is enough")
    return found


def installed(ledger: Ledger, name: str) -> Distribution:
    """The distribution of a name. Raises UsageError where there is none, BadInputError where there are several."""
    found = [dist for dist in ledger.distributions if dist.name == name]
    if not found:
        close = difflib.get_close_matches(name, [dist.name for dist in ledger.distributions], 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UsageError(f"--swap {shown(name)}: the image has no distribution of that name{hint}")
    if len(found) > 1:
        places = ", ".join(shown("/" + dist.site) for dist in found)
        raise BadInputError(
            f"{found[0].display} is installed {len(found)} times in the image ({places}): which is not clear"
        )
    return found[0]


def find(ledger: Ledger, asked: Asked, sources: Sources, into: Path) -> Found:
    """The wheel that is asked for; one that has to be downloaded is put in the folder `into`.

    Raises BadInputError where no CPU build can be had, saying what to pass; UsageError where the image has one.
    """
    dist = installed(ledger, asked.name)
    if asked.by != CPU:
        path = Path(asked.by).resolve()
        return Found(dist.name, path, str(path))
    try:
        version = Version(dist.version)
    except InvalidVersion:
        raise BadInputError(
            f"the image's {dist.display} has the version {shown(dist.version)}, which is none"
        ) from None
    if version.local == CPU:
        raise UsageError(
            f"{dist.display} {version} in the image is a CPU build already: leave out --swap {dist.name}=cpu"
        )
    wheel = find_cpu_wheel(dist.name, str(version), runs_of(ledger, dist.site), sources, into)
    return Found(dist.name, wheel.path, wheel.source)


def find_again(ledger: Ledger, swap: Swap, sources: Sources, into: Path) -> Found:
    """The very wheel that a plan has: among the sources, where it was then, or where pip finds it.

    Raises PlanError where it is in none of these.
    """
    dist = installed(ledger, swap.name)
    for path in _places(swap, sources):
        if _sha256(path) == swap.sha256:
            return Found(swap.name, path, swap.source)
    said = "pip finds another one"
    try:
        runs = runs_of(ledger, dist.site)
        path = download_wheel(f"{swap.name}=={swap.after}", runs, sources, into)
        if _sha256(path) == swap.sha256:
            return Found(swap.name, path, swap.source)
    except EnvironmentFailure as error:
        said = str(error)
    raise PlanError(
        f"the plan swaps {swap.name} by the wheel {shown(swap.wheel)} (sha256 {swap.sha256[:12]}...), which is not at "
        f"{shown(swap.source)} any more, and {said}: name its folder by --find-links, or make a new plan"
    )


def _places(swap: Swap, sources: Sources) -> Iterator[Path]:
    """Files that may be the wheel."""
    for link in (*sources.find_links, swap.source):
        if "://" in link and not link.startswith("file://"):
            continue
        place = Path(unquote(urlsplit(link).path)) if link.startswith("file://") else Path(link)
        for path in (place, place / swap.wheel):
            if path.name == swap.wheel and path.is_file():
                yield path


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
