"""The verdict as Markdown: what it comes to, and what differed, before all else."""

from __future__ import annotations

from collections.abc import Sequence

from deadweight.report.markdown.text import code, listed, prose, table
from deadweight.report.model import VerifyReport
from deadweight.report.verdict import WORDS, conclusion
from deadweight.verify.model import ProbeResult, Verdict

_PROBES = 20
_WRONG = 3
_DETAILS = 2
_NAME = 120
_NOTES = 4


def verify_lines(report: VerifyReport) -> list[str]:
    """The document of `verify` and `check`."""
    images = [image for image in (report.before, report.after) if image is not None]
    names = " and ".join(f"{code(image.reference)} ({code(image.digest[:19])})" for image in images)
    notes = [f"{_name(probe)}: {prose(note)}" for probe in report.verdict.probes for note in probe.notes]
    notes += map(prose, report.verdict.notes)
    return [
        *verdict_lines(report.verdict, "###"),
        "",
        names,
        *probes_table(report.verdict),
        *listed(notes, _NOTES, str),
    ]


def verdict_lines(verdict: Verdict, level: str = "####") -> list[str]:
    """What it comes to, and each probe that is not fine with what it says."""
    mark = {True: "✅", False: "❌", None: "❔"}[verdict.same]
    lines = [f"{level} {mark} {conclusion(verdict, _names)}"]
    wrong = [probe for probe in verdict.probes if not probe.ok]
    lines += [""] if wrong else []
    for probe in wrong[:_WRONG]:
        details = [f"  {line}" for line in listed(probe.details, _DETAILS, code) if line]
        lines += [f"- **{_name(probe)}**: {WORDS[probe.outcome]}: {_seen(probe)}", *details]
    if len(wrong) > _WRONG:
        lines.append(f"- and {len(wrong) - _WRONG:,} more that are not fine")
    return lines


def probes_table(verdict: Verdict) -> list[str]:
    """All probes with their outcomes, those that are not fine first."""
    probes = sorted(verdict.probes, key=lambda probe: probe.ok)
    rows = [
        (
            f"{(probe.before_seconds or 0.0) + probe.after_seconds:.1f}",
            _name(probe),
            _seen(probe),
            WORDS[probe.outcome],
        )
        for probe in probes[:_PROBES]
    ]
    if len(probes) > _PROBES:
        rows.append(("", f"and {len(probes) - _PROBES:,} more", "", ""))
    return table(("seconds", "probe", "seen", "outcome"), rows, 1) if rows else []


def _name(probe: ProbeResult) -> str:
    """A probe's name, which may be a whole command of a shell, in one piece."""
    return code(probe.name, _NAME)


def _names(names: Sequence[str]) -> str:
    """The first of several probes, and how many more there are."""
    more = f" and {len(names) - _WRONG:,} more" if len(names) > _WRONG else ""
    return ", ".join(code(name) for name in names[:_WRONG]) + more


def _seen(probe: ProbeResult) -> str:
    """What was seen in one image, or in both."""
    if probe.before is None or probe.before == probe.after:
        return prose(probe.after)
    return f"{prose(probe.before)} → {prose(probe.after)}"
