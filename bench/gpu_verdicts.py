"""What the outcomes of probes in two trees say: pure functions of what gpu_children.py collected.

The original runs more than once: a probe whose outputs differ between two runs of the original says nothing about what
was pruned, and is told apart from one that differs in the pruned tree alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["ok", "error", "skipped", "crash", "hang", "not run"]
Verdict = Literal["same", "same error", "skipped", "not reproducible", "differs", "not run"]
Elsewhere = Literal["no kernel image", "another error", "same", "skipped", "not reproducible", "wrong", "not run"]

NO_KERNEL = "no kernel image is available"
"""The driver's words for a GPU that nothing was compiled for (cudaErrorNoKernelImageForDevice)."""
STOPPED = ("crash", "hang")
"""The kinds of outcome that end the process."""


@dataclass(frozen=True)
class Outcome:
    """What one probe gave in one process. `seconds` takes no part in comparisons: see `essence`."""

    kind: Kind
    text: str = ""
    """The error, why it was skipped, or by which signal the process ended."""
    outputs: tuple[tuple[str, str], ...] = ()
    """Each output's name and digest."""
    seconds: float = 0.0

    @property
    def essence(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """What must be equal for two outcomes to be the same."""
        return self.kind, self.text, self.outputs


@dataclass(frozen=True)
class Judged:
    """A probe's verdict, with the words for people where it is not plainly the same."""

    name: str
    verdict: Verdict | Elsewhere
    why: str = ""


def distinct(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """One of each kind of outcome, in order."""
    return list({outcome.essence: outcome for outcome in reversed(list(outcomes))}.values())[::-1]


def difference(one: Outcome, other: Outcome) -> str:
    """What differs between two outcomes, in a few words."""
    if one.kind == other.kind == "ok":
        before, after = dict(one.outputs), dict(other.outputs)
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{len(names)} of {len(before)} outputs: {', '.join(names[:3])}{more}"
    return f"{one.kind} {one.text}".strip() + f" / {other.kind} {other.text}".rstrip()


def judge(name: str, original: Sequence[Outcome], pruned: Sequence[Outcome]) -> Judged:
    """The verdict on a probe from its outcomes in the original and in the pruned tree."""
    before, after = distinct(original), distinct(pruned)
    if any(outcome.kind in STOPPED for outcome in before):
        return Judged(name, "skipped", f"in the original: {before[-1].kind} {before[-1].text}")
    if not before or not after:
        return Judged(name, "not run")
    if len(before) == 1 and [o.essence for o in before] == [o.essence for o in after]:
        if before[0].kind == "ok":
            return Judged(name, "same")
        verdict: Verdict = "skipped" if before[0].kind == "skipped" else "same error"
        return Judged(name, verdict, f"{before[0].kind}: {before[0].text}")
    if len(before) > 1 and {o.kind for o in after} <= {o.kind for o in before}:
        return Judged(name, "not reproducible", f"in the original: {difference(before[0], before[1])}")
    known = {outcome.essence for outcome in before}
    strange = next(outcome for outcome in after if outcome.essence not in known)
    return Judged(name, "differs", difference(before[0], strange))


def judge_all(original: Mapping[str, Sequence[Outcome]], pruned: Mapping[str, Sequence[Outcome]]) -> list[Judged]:
    """The verdict on each probe."""
    return [judge(name, original[name], pruned[name]) for name in original]


def judge_elsewhere(name: str, original: Sequence[Outcome], outcome: Outcome) -> Judged:
    """The verdict on a probe in a tree that was pruned for another GPU: an error is right, a wrong result is not."""
    before = distinct(original)
    if outcome.kind == "not run" or not before:
        return Judged(name, "not run")
    if outcome.essence in {known.essence for known in before}:
        return Judged(name, "skipped" if outcome.kind == "skipped" else "same", outcome.text)
    if outcome.kind == "error":
        return Judged(name, "no kernel image" if NO_KERNEL in outcome.text else "another error", outcome.text)
    if outcome.kind == "ok" and len(before) > 1:
        return Judged(name, "not reproducible")
    return Judged(name, "wrong", difference(before[0], outcome))


def all_same(judged: Sequence[Judged]) -> bool | None:
    """Whether nothing differs; None when that was not established: a probe did not run, or not one of them worked."""
    verdicts = {each.verdict for each in judged}
    if "differs" in verdicts:
        return False
    return True if "same" in verdicts and "not run" not in verdicts else None


def all_clear(judged: Sequence[Judged]) -> bool | None:
    """Whether a GPU without code is told so, nothing goes wrong silently and nothing crashes; None when not run."""
    verdicts = {each.verdict for each in judged}
    if "wrong" in verdicts:
        return False
    if "not run" in verdicts or not judged:
        return None
    return "no kernel image" in verdicts


def counted(judged: Sequence[Judged]) -> str:
    """The verdicts, counted: '61 same, 2 skipped'."""
    return ", ".join(f"{count} {verdict}" for verdict, count in Counter(each.verdict for each in judged).most_common())


def table(judged: Sequence[Judged], quiet: Iterable[str] = ("same",)) -> list[str]:
    """A line for every probe that has something to say."""
    silent = set(quiet)
    return [f"  {each.name:<30} {each.verdict:<17} {each.why[:140]}" for each in judged if each.verdict not in silent]


def as_records(outcomes: Iterable[Outcome]) -> list[dict[str, object]]:
    """Outcomes as they stand in the JSON record, each kind once."""
    return [
        {"kind": outcome.kind, "seconds": outcome.seconds}
        | ({"text": outcome.text} if outcome.text else {})
        | ({"outputs": dict(outcome.outputs)} if outcome.outputs else {})
        for outcome in distinct(outcomes)
    ]
