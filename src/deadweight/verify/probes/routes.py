"""The application object loads, and has the same routes."""

from __future__ import annotations

import posixpath
from collections import Counter

import msgspec

from deadweight.application.discover import Discovery, discover
from deadweight.application.servers import TARGET
from deadweight.decoding import from_values
from deadweight.errors import UsageError, shown
from deadweight.verify.model import Observation
from deadweight.verify.probes import Kind, failures
from deadweight.verify.probes.start import stable
from deadweight.verify.side import NoAnswer, Side, gist
from deadweight.verify.spec import RoutesProbe

LOADS = "application"


class Loaded(msgspec.Struct, frozen=True):
    """What came of loading an application."""

    framework: str = ""
    routes: list[tuple[str, str]] = []
    """Methods with the path, and where it leads."""
    error: str = ""


def observe(probe: RoutesProbe, side: Side) -> Observation:
    """Loads the application as its server does."""
    found = discover(side.original or side.ledger, side.app)
    target = probe.app or found.app
    if not target:
        raise NoAnswer('nothing in the image shows its application: say it in [app], as asgi = "package.module:app"')
    if not TARGET.match(target):
        raise UsageError(f"{shown(target)} is no application: write package.module:attribute")
    arguments = {
        "app": target,
        "factory": target == found.app and found.factory,
        "paths": list(dict.fromkeys([directory(found, side), side.directory])),
    }
    answer = side.ask("routes", arguments, probe.timeout, env=side.app.env)
    try:
        loaded = from_values(answer, Loaded)
    except msgspec.ValidationError as error:
        raise NoAnswer(f"what the sandbox answers about routes cannot be read: {error}") from None
    if loaded.error:
        return Observation("does not load", {LOADS: stable(f"{target}: {gist(loaded.error)}")}, (LOADS,))
    facts = {LOADS: f"{target} loads"}
    seen: Counter[str] = Counter()
    for name, endpoint in loaded.routes:
        seen[name] += 1
        facts[_printable(name if seen[name] == 1 else f"{name} ({seen[name]})")] = _printable(endpoint)
    count = len(loaded.routes)
    if not loaded.framework:
        return Observation("loads", facts, notes=("its framework is not known: routes are not listed",), data=0)
    return Observation(f"{count:,} route{'' if count == 1 else 's'}", facts, data=count)


def directory(found: Discovery, side: Side) -> str:
    """Where the application's modules are imported from first."""
    return posixpath.join(side.workdir, found.directory or side.directory)


def unmet(probe: RoutesProbe, seen: Observation) -> list[str]:
    """It has to load, and to have as many routes as were asked for."""
    found = failures(probe, seen)
    if not found and probe.count is not None and seen.data != probe.count:
        found.append(f"{seen.data:,} routes, {probe.count:,} are wanted")
    return found


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:500])


KIND = Kind(observe, unmet=unmet, must=lambda probe: probe.must or probe.count is not None)
