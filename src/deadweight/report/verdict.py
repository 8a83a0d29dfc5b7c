"""The verdict for people: one table, what differs by name, and one last line that says it all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from rich.console import Console
from rich.style import Style
from rich.text import Text

from deadweight.image.model import Image
from deadweight.report.identity import image_line
from deadweight.report.model import VerifyReport
from deadweight.report.tables import BOLD, DIM, Fitted, heading, new_table, paragraphs
from deadweight.report.text import plain, valid
from deadweight.verify.model import Outcome, ProbeResult, Verdict

TOP = 10
WORDS: dict[Outcome, str] = {
    "same": "same",
    "differs": "DIFFERS",
    "undeclared": "undeclared",
    "fails": "same failure",
    "met": "as asked",
    "not met": "NOT AS ASKED",
    "no answer": "NO ANSWER",
}
"""Outcomes for people."""
_DETAIL = 400


def verify_report(before: Image | None, after: Image, spec: str, verdict: Verdict) -> VerifyReport:
    """The document of `verify` and `check`."""
    return VerifyReport(
        before=None if before is None else image_line(before),
        after=image_line(after),
        spec=valid(spec),
        verdict=printable(verdict),
    )


def printable(verdict: Verdict) -> Verdict:
    """A verdict whose texts are valid Unicode: what an image printed need not be."""
    probes = [
        msgspec.structs.replace(
            probe,
            name=valid(probe.name),
            before=None if probe.before is None else valid(probe.before),
            after=valid(probe.after),
            details=[valid(text) for text in probe.details],
            notes=[valid(text) for text in probe.notes],
        )
        for probe in verdict.probes
    ]
    return msgspec.structs.replace(verdict, probes=probes, notes=[valid(note) for note in verdict.notes])


def print_verify(console: Console, report: VerifyReport, top: int = TOP) -> None:
    """Which images, and the verdict."""
    for title, image in (("before", report.before), ("after", report.after)):
        if image is not None:
            label = f"{title:7}" if report.before is not None else ""
            console.print(Text(f"{label}{plain(image.reference)}  {plain(image.digest)[:19]}"))
    print_verdict(console, report.verdict, top)


def print_verdict(console: Console, verdict: Verdict, top: int = TOP) -> None:
    """The table of probes, and what it comes to."""
    heading(console, "Verdict")
    two = any(probe.before is not None for probe in verdict.probes)
    table = new_table()
    table.add_column("probe")
    for title in ("before", "after") if two else ("image",):
        table.add_column(title)
    table.add_column("same?" if two else "so?", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    for probe in verdict.probes:
        seen = [probe.before or "", probe.after] if two else [probe.after]
        seconds = (probe.before_seconds or 0.0) + probe.after_seconds
        row = [Fitted(probe.name, lines=0), *(Fitted(text) for text in seen)]
        table.add_row(*row, Text(WORDS[probe.outcome], _style(probe)), f"{seconds:.1f}")
    console.print(table)
    for probe in verdict.probes:
        if probe.details:
            _details(console, probe, top)
    notes = [f"{probe.name}: {note}" for probe in verdict.probes for note in probe.notes]
    paragraphs(console, "Notes on the verdict", [*notes, *verdict.notes])
    console.print()
    console.print(Text(conclusion(verdict), BOLD))


def _named(names: Sequence[str]) -> str:
    return plain(", ".join(names))


def conclusion(verdict: Verdict, named: Callable[[Sequence[str]], str] = _named) -> str:
    """The verdict in a line; `named` writes the names of probes, which are whatever somebody wanted them to be."""
    count = len(verdict.probes)
    how = f"{count:,} {'probe' if count == 1 else 'probes'}, {verdict.seconds:,.1f} s"
    how += f" in {verdict.sandbox}" if verdict.sandbox else ", nothing was run"
    two = any(probe.before is not None for probe in verdict.probes)
    wrong = [probe.name for probe in verdict.probes if not probe.ok and probe.outcome != "no answer"]
    missing = [probe.name for probe in verdict.probes if probe.outcome == "no answer"]
    ran = bool(verdict.sandbox)
    if verdict.same:
        good = "The images behave the same" if ran else "What differs was declared" if two else ""
        return f"{good if two else 'The image is as asked'}: {how}."
    if verdict.same is False:
        what = "The images do NOT behave the same" if ran else "What differs was NOT all declared"
        what = what if two else "The image is NOT as asked"
        also = f", and there is no answer to {named(missing)}" if missing else ""
        return f"{what}: {named(wrong)}{also} ({how})."
    if missing:
        return f"NO VERDICT: there is no answer to {named(missing)} ({how})."
    return "NO VERDICT: nothing was probed."


def _style(probe: ProbeResult) -> Style:
    if probe.ok:
        return DIM if probe.outcome == "fails" else Style(color="green")
    return Style(color="red", bold=True)


def _details(console: Console, probe: ProbeResult, top: int) -> None:
    shown = probe.details[:top]
    if len(probe.details) > len(shown):
        shown = [*shown, f"and {len(probe.details) - len(shown):,} more (--top, --json)"]
    paragraphs(console, f"{plain(probe.name)}: {WORDS[probe.outcome]}", [plain(text, _DETAIL) for text in shown])
