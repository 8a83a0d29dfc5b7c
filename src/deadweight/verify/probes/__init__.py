"""Probes: one file for each kind. A kind observes one image; what two observations come to is judged here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from deadweight.verify.model import Observation, Outcome, ProbeResult
from deadweight.verify.side import Ended, NoAnswer, Side

DETAIL_LIMIT = 1000


def by_facts(probe: Any, before: Observation, after: Observation) -> list[str]:
    """The facts that differ, each as `name: before -> after`."""
    names = [*before.facts, *(name for name in after.facts if name not in before.facts)]
    nothing = "not there"
    return [
        f"{name}: {before.facts.get(name, nothing)} -> {after.facts.get(name, nothing)}"
        for name in names
        if before.facts.get(name) != after.facts.get(name)
    ]


def nothing_differs(probe: Any, before: Observation, after: Observation) -> list[str]:
    """For kinds that only ask something of one image."""
    return []


def failures(probe: Any, seen: Observation) -> list[str]:
    """What does not work: what a `must` forbids."""
    return [f"{name}: {seen.facts.get(name, 'fails')}" for name in seen.failures]


@dataclass(frozen=True)
class Kind:
    """A kind of probe."""

    observe: Callable[[Any, Side], Observation]
    """Looks at one image. May raise NoAnswer and Ended."""
    differences: Callable[[Any, Observation, Observation], list[str]] = by_facts
    """What the second image does otherwise than the first."""
    unmet: Callable[[Any, Observation], list[str]] = failures
    """What an image fails to do where it has to: for `must`, and where only one image is looked at."""
    must: Callable[[Any], bool] = lambda probe: probe.must
    """Whether a probe has to succeed: some ask for something outright, whatever its `must` says."""
    measure: Callable[[Observation, Observation], tuple[str, dict[str, float]]] | None = None
    """What comparing gave where that is more than yes or no: in words, for the table, and as numbers by name."""


def observe(kind: Kind, probe: Any, side: Side) -> Observation:
    """What a probe sees in one image, or why it sees nothing."""
    start, opening = time.monotonic(), side.opening
    try:
        seen = kind.observe(probe, side)
    except NoAnswer as error:
        seen = Observation("no answer", unanswered=str(error))
    except Ended as error:
        seen = Observation(str(error), ended=str(error))
    return msgspec.structs.replace(seen, seconds=time.monotonic() - start - (side.opening - opening))


def judge(kind: Kind, probe: Any, name: str, before: Observation | None, after: Observation) -> ProbeResult:
    """What one observation, or two, come to."""
    sides = [after] if before is None else [before, after]
    must = before is None or kind.must(probe)
    outcome, ok, details = _outcome(kind, probe, before, after, must)
    said, measured = after.summary, dict[str, float]()
    if kind.measure is not None and before is not None and before.data is not None and after.data is not None:
        said, measured = kind.measure(before, after)
    return ProbeResult(
        name,
        type(probe).__struct_config__.tag,
        outcome,
        ok,
        must,
        None if before is None else before.summary,
        said,
        None if before is None else before.seconds,
        after.seconds,
        details[:DETAIL_LIMIT],
        list(dict.fromkeys([*([said] if measured else []), *(note for seen in sides for note in seen.notes)])),
        measured,
    )


def _outcome(
    kind: Kind, probe: Any, before: Observation | None, after: Observation, must: bool
) -> tuple[Outcome, bool, list[str]]:
    sides = [after] if before is None else [before, after]
    unanswered = [seen.unanswered for seen in sides if seen.unanswered]
    if unanswered:
        return "no answer", False, list(dict.fromkeys(unanswered))
    ends = [seen.ended for seen in sides]
    if any(ends):
        if before is not None and not all(ends):
            return "differs", False, [f"{before.summary} -> {after.summary}"]
        return "no answer", False, [after.ended]
    different = [] if before is None else kind.differences(probe, before, after)
    if different:
        return "differs", False, different
    if after.hung:  # in both images, else they differ
        return "no answer", False, [f"{name}: {after.facts[name]}" for name in after.hung]
    unmet = kind.unmet(probe, after) if must else []
    if before is None:
        return ("not met" if unmet else "met"), not unmet, unmet
    if unmet:
        return "not met", False, unmet
    if kind.differences is nothing_differs:
        return "met", True, []
    if before.failures:
        return "fails", True, failures(probe, after)
    return "same", True, []
