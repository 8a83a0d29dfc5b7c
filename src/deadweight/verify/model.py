"""What verification finds, as data: observations of one image, results of probes, and the verdict of them all."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Outcome = Literal["same", "differs", "undeclared", "fails", "met", "not met", "no answer"]
"""`same`, `differs`: what two images did. `undeclared`: they differ as slimming makes them differ, and no plan says so.
`fails`: the same failure in both. `met`, `not met`: what was asked of one image. `no answer`: it was not found out,
which is never a pass."""


class Observation(msgspec.Struct, frozen=True):
    """What a probe saw in one image."""

    summary: str
    """For the table: `131 modules`, `HTTP 200, 34 bytes`."""
    facts: dict[str, str] = {}
    """What was seen of each thing, by the thing's name: `torch` -> `imports`. Two images are compared by these."""
    failures: tuple[str, ...] = ()
    """Names of those facts that say that something does not work."""
    hung: tuple[str, ...] = ()
    """Names of those facts that say that something was ended for want of time: its outcome is not known."""
    ended: str = ""
    """Why the sandbox ended it: out of time, say. With such an end in both images there is no answer."""
    unanswered: str = ""
    """Why nothing could be seen: no sandbox, no Python in the image."""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What was left out, and why."""
    data: Any = None
    """What the probe's own comparison needs beyond facts: outputs, arrays."""


class ProbeResult(msgspec.Struct, frozen=True):
    """One row of the verdict."""

    name: str
    kind: str
    outcome: Outcome
    ok: bool
    """Whether the verdict can be `same` with it: a failure in both is no difference, but fails a `must`."""
    must: bool
    before: str | None
    """What was seen in the original; null where only one image was looked at."""
    after: str
    before_seconds: float | None
    after_seconds: float
    details: list[str] = []
    """What differs, is not met, fails, or has no answer: each by its name."""
    notes: list[str] = []
    """What was declared to differ, or was left out, and why."""
    measured: dict[str, float] = {}
    """Numbers that comparing gave, by name, where a kind measures: `lowest_cosine`, `agreement`, `loss`."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether one image behaves like the other, or is as it was asked to be.

    `same` is true when every probe is fine, false when one differs or fails a `must`, and null as long as an answer
    is missing or nothing was compared.
    """

    same: bool | None = None
    probes: list[ProbeResult] = []
    sandbox: str = ""
    """What ran the probes; empty where nothing was run."""
    seconds: float = 0.0
    """What the verification took as a whole, unpacking included."""
    notes: list[str] = []


def verdict_of(probes: list[ProbeResult], sandbox: str, seconds: float, notes: list[str]) -> Verdict:
    """The verdict that results come to: a `no` is one even where other answers are missing."""
    same: bool | None = True
    if not probes or any(probe.outcome == "no answer" for probe in probes):
        same = None
    if any(not probe.ok and probe.outcome != "no answer" for probe in probes):
        same = False
    return Verdict(same, probes, sandbox, seconds, notes)
