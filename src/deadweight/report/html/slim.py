"""The page of `slim` and `plan`: what leaves an image, and why."""

from __future__ import annotations

from deadweight.passes.base import RISKS
from deadweight.report.html import sections
from deadweight.report.html.markup import Child, Markup, joined, name, tag
from deadweight.report.html.page import page
from deadweight.report.html.tables import number, share, size, strip, table, words
from deadweight.report.model import SlimReport
from deadweight.report.terminal import target_line
from deadweight.report.tree_model import Tree
from deadweight.sizes import show_share, show_size


def slim_page(report: SlimReport, tree: Tree) -> bytes:
    """The page of `slim`, or of a plan that was not applied."""
    after = report.predicted_bytes if report.after_bytes is None else report.after_bytes
    left = report.before_bytes - after
    parts = [("stays", after, "stays"), *((line.pass_, line.bytes, f"risk-{line.risk}") for line in report.passes)]
    header = [
        tag("h1", name(report.image.reference), *([" → ", name(report.after.reference)] if report.after else [])),
        sections.image_facts(
            report.image,
            f"now {report.after.digest[:19]}" if report.after else "not built yet",
            f"for {target_line(report.target)}" if report.target else "",
        ),
        tag(
            "div",
            sections.figure(show_size(report.before_bytes), "before"),
            sections.figure(show_size(after), "predicted" if report.after_bytes is None else "after"),
            sections.figure(show_share(left, report.before_bytes), f"smaller: {show_size(left)} left"),
            *_compressed(report),
            class_="hero",
        ),
        strip([part for part in parts if part[1] > 0]),
        _risks(report),
        tag("ul", [tag("li", text, class_=f"pill {kind}") for text, kind in _pills(report)], class_="pills"),
    ]
    main: list[Child] = [
        sections.treemap(tree),
        sections.section("Verdict", sections.verdict(report.verdict)),
        sections.section("Prediction and result", _projection(report)),
        sections.section("What left, and why", _passes(report), id_="cuts"),
        sections.section("Packages afterwards", sections.owners(tree)),
        sections.section("Layers", _layers(report)),
        sections.section("GPUs", sections.savings(report.gpu_savings)),
        sections.section("Notes", sections.notes(report.notes)),
    ]
    return page("what left, and why", header, main, tree)


_SAME = {True: ("Behaves the same", "good"), False: ("Does not behave the same", "bad"), None: ("No verdict", "open")}


def _risks(report: SlimReport) -> Markup:
    """What the colours of the bar above are."""
    found = {line.risk for line in report.passes if line.bytes > 0}
    if not found:
        return Markup()
    shown = (joined([" ", tag("span", risk, class_=f"risk {risk}")]) for risk in RISKS if risk in found)
    return tag("p", "Passes, in the colours of their risks:", shown, class_="note risks")


def _compressed(report: SlimReport) -> list[Markup]:
    before, after = report.compressed_before_bytes, report.compressed_after_bytes
    if before is None or after is None or (before, after) == (report.before_bytes, report.after_bytes):
        return []
    return [sections.figure(show_size(after), f"as it is stored, before {show_size(before)}")]


def _pills(report: SlimReport) -> list[tuple[str, str]]:
    found = []
    if report.after_bytes is not None:
        exact = report.after_bytes == report.predicted_bytes
        found.append(("Built as predicted, to the byte", "good") if exact else ("Not as predicted", "bad"))
    found.append(_SAME[report.verdict.same] if report.verdict.probes else ("Not verified", "open"))
    if report.edited:
        found.append(("The plan was edited by hand", "open"))
    return found


def _projection(report: SlimReport) -> Markup:
    """What was predicted beside what was built."""
    most = max(report.before_bytes, report.predicted_bytes)
    lines = [("before", report.before_bytes), ("predicted", report.predicted_bytes)]
    if report.after_bytes is not None:
        lines.append(("built", report.after_bytes))
    rows = [(tag("th", what, scope="row"), *size(amount), share(amount, most)) for what, amount in lines]
    said = "The result has not been built."
    if report.after_bytes is not None:
        difference = report.after_bytes - report.predicted_bytes
        said = (
            f"{difference:+,} bytes between prediction and result."
            if difference
            else "The result is what was predicted, to the byte."
        )
    return joined(
        [table("Prediction and result", ["what", "#size", "#=bytes", "#share"], rows), tag("p", said, class_="note")]
    )


def _passes(report: SlimReport) -> Markup:
    """What each pass takes out; every cut follows, once the page's script has made that table."""
    if not report.cuts:
        return tag("p", "Nothing leaves.", class_="note")
    left = sum(line.bytes for line in report.passes)
    rows = [
        (
            tag("th", line.pass_, scope="row"),
            words(tag("span", line.risk, class_=f"risk {line.risk}")),
            *size(line.bytes),
            share(line.bytes, report.before_bytes),
            number(line.cuts),
        )
        for line in report.passes
    ]
    total = (
        tag("th", "total", scope="row"),
        words(""),
        *size(left),
        share(left, report.before_bytes),
        number(sum(line.cuts for line in report.passes)),
    )
    headers = ["pass", "risk", "*#leaves", "#=bytes", "#of the image before", "#cuts"]
    unscripted = tag("noscript", tag("p", "The list needs JavaScript.", class_="note"))
    return joined([table("Passes", headers, rows, total), tag("h3", "Every cut"), unscripted])


def _layers(report: SlimReport) -> Markup:
    built = report.after_bytes is not None
    rows = []
    for line in report.layers:
        after = line.predicted_bytes if line.after_bytes is None else line.after_bytes
        same = "stays as it is" if line.kept or line.after_diff_id == line.diff_id else ""
        rows.append(
            (
                sections.layer_name(line.layer, line.created_by),
                *size(line.before_bytes)[:1],
                *size(after),
                share(after, line.before_bytes),
                words(same, "why"),
            )
        )
    after = sum(line.predicted_bytes if line.after_bytes is None else line.after_bytes for line in report.layers)
    total = (
        tag("th", "total", scope="row"),
        *size(report.before_bytes)[:1],
        *size(after),
        share(after, report.before_bytes),
        words(""),
    )
    headers = ["layer", "#before", "#after" if built else "#predicted", "#=bytes after", "#stays", "note"]
    return table("Layers", headers, rows, total)
