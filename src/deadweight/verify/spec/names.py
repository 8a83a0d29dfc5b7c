"""What probes are called in the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from deadweight.errors import shown
from deadweight.verify import spec

_LIMIT = 60


def name_of(probe: Any) -> str:
    """The name that a probe was given, or a short one made up of what it asks: `import torch`, `GET /health`."""
    given: str = probe.name
    return given or _cut(_made_up(probe))


def named(probes: Sequence[spec.Probe]) -> list[spec.Probe]:
    """The probes, each with a name, and no two with the same: one that is taken gets a number.

    Given names come before made-up ones.
    """
    taken: set[str] = set()
    found = list(probes)
    for place, probe in sorted(enumerate(probes), key=lambda item: not item[1].name):
        plain = name = name_of(probe)
        number = 1
        while name in taken:
            number += 1
            name = f"{plain} ({number})"
        taken.add(name)
        found[place] = msgspec.structs.replace(probe, name=name)
    return found


def _made_up(probe: Any) -> str:
    match probe:
        case spec.ImportProbe():
            return f"import {_some(probe.modules)}" if probe.modules else "modules import"
        case spec.RunProbe():
            return f"run {_program(probe)}"
        case spec.ModelsProbe():
            return f"models in {_some(probe.folders)} open" if probe.folders else "models open"
        case spec.AccuracyProbe():
            return f"accuracy of {probe.script or 'what is computed'}"
        case spec.HttpProbe():
            return f"{probe.method} {probe.path}"
        case spec.StartProbe():
            return "the server starts" + (f": {probe.path}" if probe.path else "")
        case spec.RoutesProbe():
            return f"routes of {probe.app}" if probe.app else "the application loads"
        case spec.AbsentProbe():
            return f"no {_some([*probe.commands, *probe.modules])}"
        case spec.LibrariesProbe():
            return f"libraries of {_some(probe.paths)}" if probe.paths else "libraries resolve"
        case spec.SizeProbe():
            return f"at most {probe.max}" if probe.max else "image size"
        case spec.TestsProbe():
            return f"tests of {_some(probe.tests)}"
        case spec.FileProbe():
            return probe.path if probe.exists else f"no {probe.path}"
        case spec.ConfigProbe():
            return "configuration"
    raise AssertionError(probe)


def _program(probe: spec.RunProbe) -> str:
    if isinstance(probe.command, str):
        return probe.command
    return " ".join(probe.command) if probe.command else probe.script or probe.code or "nothing"


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - 3} more" if len(words) > 4 else ""
    return ", ".join(words[:3] if more else words) + more


def _cut(text: str) -> str:
    line = shown(" ".join(text.split()), 10_000)[1:-1]
    return line if len(line) <= _LIMIT else line[: _LIMIT - 3] + "..."
