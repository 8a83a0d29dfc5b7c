"""Modules import."""

from __future__ import annotations

import os
import re

import msgspec

from deadweight.decoding import from_values
from deadweight.errors import shown
from deadweight.sizes import show_size
from deadweight.verify.model import Observation
from deadweight.verify.probes import Kind, by_facts
from deadweight.verify.side import Ended, NoAnswer, Side, gist
from deadweight.verify.spec import ImportProbe

NAMESPACE = "imports as a namespace package"
"""As the agent says it: fine for packages that are one, and a difference where only one image has a namespace."""
_JOBS = 4
"""Imports at a time: each may take a gigabyte and a thread for each core."""
WORKS = "imports"
REPEATS = 5
SLACK_SECONDS = 0.2
"""An import may always take so much longer than in the original: below, noise is all there is."""
SLACK_BYTES = 16_000_000
"""The same for memory."""
_TOTAL = 0.95  # of the probe's time: the rest is for saying what was not done
_ONE = 1 / 3  # of the probe's time, for one module
_VARIES = (
    (re.compile(r"\b0x[0-9a-fA-F]{3,}"), "0x..."),
    (re.compile(r"(/(?:var/)?tmp/)[\w.+-]+"), r"\1..."),
    (re.compile(r"(?i)\b(pid|process|thread)([ =:#]+)\d+"), r"\1\2..."),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?"), "..."),
)


class _Taken(msgspec.Struct):
    seconds: float
    memory: int


class _Answer(msgspec.Struct):
    errors: dict[str, str]
    measured: dict[str, _Taken]
    unfinished: list[str]
    hung: list[str]


def observe(probe: ImportProbe, side: Side) -> Observation:
    """Imports each module in a process of its own; with a ratio, several times more and one at a time."""
    modules = list(dict.fromkeys(probe.modules)) if probe.modules is not None else _own(side)
    if not modules:
        raise NoAnswer("no module of a distribution is in the image: name some, as modules = [...]")
    measures = probe.time_ratio is not None or probe.memory_ratio is not None
    seconds = probe.timeout or side.limits.seconds
    arguments = {
        "modules": modules,
        "jobs": min(os.cpu_count() or 1, _JOBS),
        "paths": [side.directory],
        "seconds": seconds * _ONE,
        "total": seconds * _TOTAL,
        "repeats": REPEATS if measures else 0,
    }
    try:
        found = from_values(side.ask("imports", arguments, probe.timeout, env=side.app.env), _Answer)
    except msgspec.ValidationError as error:
        raise NoAnswer(f"the image's Python gave no sound answer: {error}") from None
    if found.unfinished:
        raise Ended(f"out of time after {seconds:g} s, at {', '.join(map(shown, found.unfinished[:5]))}")
    if found.errors.keys() != set(modules):
        raise NoAnswer("the image's Python gave no sound answer: not that of the modules asked for")
    facts = {name: _fact(found.errors[name]) for name in modules}
    failed = tuple(name for name in modules if facts[name] not in (WORKS, NAMESPACE))
    count = f"{len(modules):,}"
    summary = f"{len(modules) - len(failed):,} of {count} import" if failed else f"{count} import"
    if len(found.measured) == len(modules) == 1:
        (taken,) = found.measured.values()
        summary = f"{taken.seconds:.2f} s, {show_size(taken.memory)}"
    return Observation(summary, facts, failed, tuple(found.hung), data=found.measured)


def _own(side: Side) -> list[str]:
    """The top-level modules of all distributions of an image."""
    return sorted({name for dist in side.ledger.distributions for name in dist.top_level})


def _fact(error: str) -> str:
    """An error without what differs from run to run: addresses, temporary names, numbers of processes."""
    error = gist(error)
    for pattern, text in _VARIES:
        error = pattern.sub(text, error)
    return shown(error, 500)[1:-1] or WORKS


def differences(probe: ImportProbe, before: Observation, after: Observation) -> list[str]:
    """Modules that import in one image only, or fail otherwise; then those that take more than their ratio."""
    found = by_facts(probe, before, after)
    both = [name for name in before.data if name in after.data]
    for name in both:
        one, two = before.data[name], after.data[name]
        time, memory = probe.time_ratio, probe.memory_ratio
        if time is not None and two.seconds > one.seconds * time + SLACK_SECONDS:
            how = f"{two.seconds / max(one.seconds, 1e-3):.1f} times as long (at most {time:g})"
            found.append(f"{name}: {one.seconds:.2f} s -> {two.seconds:.2f} s, {how}")
        if memory is not None and two.memory > one.memory * memory + SLACK_BYTES:
            how = f"{two.memory / max(one.memory, 1):.1f} times the memory (at most {memory:g})"
            found.append(f"{name}: {show_size(one.memory)} -> {show_size(two.memory)}, {how}")
    return found


KIND = Kind(observe, differences)
