"""What a change did to an image, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from deadweight.report.markdown.text import code, listed, prose, table
from deadweight.report.model import CompareReport, ImageChange
from deadweight.report.print_compare import (
    Difference,
    changes_line,
    differing,
    owner_name,
    shared_line,
    size_or_none,
    top_rows,
)
from deadweight.sizes import show_size

_OWNERS = 8
_FILES = 4
_CATEGORIES = 4
_GPU = 2
_STEPS = 12
_NAMES = 4
_NOTES = 1


def compare_lines(report: CompareReport) -> list[str]:
    """The phase table, and what changed: in tables of two images, in a line for each step of more."""
    first, last = report.images[0], report.images[-1]
    title = f"{show_size(first.bytes)} → {show_size(last.bytes)}: {last.cumulative:+,} bytes"
    changes = _change(report.changes[0]) if len(report.changes) == 1 else _steps(report)
    return [f"### {title}", *_phases(report), *changes, *listed(report.notes, _NOTES)]


def _phases(report: CompareReport) -> list[str]:
    headers = ["bytes", "size", "difference", "share"]
    if report.target_bytes is not None:
        headers.append(f"to {show_size(report.target_bytes)}")
    rows = []
    more = max(0, len(report.images) - _STEPS)
    # The first one stays: what the others are shares of.
    for line in (report.images[0], *report.images[1 + more :]):
        row = [f"{line.bytes:,}", show_size(line.bytes), f"{line.difference:+,}", f"{100 * line.share:.1f}%"]
        if line.gap is not None:
            row.append("reached" if line.gap <= 0 else f"+{show_size(line.gap)}")
        rows.append([*row, code(line.reference)])
    if more:
        rows.insert(1, [*[""] * len(headers), f"{more:,} more"])
    return table([*headers, "image"], rows, len(headers))


def _change(change: ImageChange) -> list[str]:
    """Packages, files, categories, GPU code, and how much is to be pulled anew."""
    if not change.owners:
        return ["", "Nothing changed: every owner has the same bytes.", *_file_lines(change)]
    names = [f"{code(owner_name(one))} {prose(one.kind)}, {one.change}" for one in change.owners]
    rows = [Difference(one.before_bytes, one.after_bytes, name) for one, name in zip(change.owners, names, strict=True)]
    same = Difference(change.unchanged_bytes, change.unchanged_bytes, f"as before ({change.unchanged:,})")
    lines = ["", prose(changes_line(change)) + ".", *_differences("What changed", "owner", rows, same, _OWNERS)]
    lines += _file_lines(change)
    kinds = (
        ("Categories", "what it is", change.categories, _CATEGORIES),
        ("GPU code", "architecture", change.gpu_code, _GPU),
    )
    for title, what, found, top in kinds:
        rows, same = differing(found)
        if rows:
            rows = [row._replace(label=prose(row.label)) for row in rows]
            lines += _differences(title, what, rows, same, top)
    return [*lines, "", f"Layers: {shared_line(change)}"]


def _file_lines(change: ImageChange) -> list[str]:
    """The largest files that came, went, grew or shrank, and how many more there are."""
    files = change.files
    if files is None or not files.count:
        return []
    shown = [(one, one.after_bytes - one.before_bytes) for one in files.largest[:_FILES]]
    lines = [f"- {difference:+,} {code(one.path)}, {one.change}" for one, difference in shown]
    if rest := files.count - len(shown):
        others = files.after_bytes - files.before_bytes - sum(difference for _, difference in shown)
        lines.append(f"- {others:+,} in {rest:,} more")
    return ["", "#### Files", "", *lines]


def _differences(title: str, what: str, rows: Sequence[Difference], same: Difference, top: int) -> list[str]:
    *shown, total = top_rows(rows, same, top)
    cells = [
        (f"{row.after - row.before:+,}", size_or_none(row.before), size_or_none(row.after), row.label) for row in shown
    ]
    last = (f"{total.after - total.before:+,}", show_size(total.before), show_size(total.after), total.label)
    bold = tuple(f"**{cell}**" for cell in last)
    return ["", f"#### {title}", *table(("difference", "before", "after", what), (*cells, bold), 3)]


def _steps(report: CompareReport) -> list[str]:
    """A line for each step, with the owners that changed most."""
    lines = []
    for change in report.changes[-_STEPS:]:
        owners = [f"{code(one.name, 40)} {one.after_bytes - one.before_bytes:+,}" for one in change.owners[:_NAMES]]
        said = ", ".join(owners) if owners else "nothing changed"
        lines.append(f"- {change.before + 1} → {change.after + 1}: {said}")
    return ["", *lines] if lines else []
