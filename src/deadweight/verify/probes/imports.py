"""Modules import."""

from __future__ import annotations

import os

from deadweight.verify.model import Observation
from deadweight.verify.probes import Kind
from deadweight.verify.side import Side
from deadweight.verify.spec import ImportProbe

WORKS = "imports"


def observe(probe: ImportProbe, side: Side) -> Observation:
    """Imports each module in a process of its own."""
    modules = list(probe.modules or ())
    arguments = {"modules": modules, "jobs": os.cpu_count() or 1, "paths": [side.directory]}
    found = side.ask("imports", arguments, probe.timeout, env=side.app.env)
    facts = {name: found[name]["error"] or WORKS for name in modules}
    failed = tuple(name for name in modules if facts[name] != WORKS)
    summary = f"{len(modules) - len(failed)} of {len(modules)} import" if failed else f"{len(modules)} import"
    return Observation(summary, facts, failed, data=found)


KIND = Kind(observe)
