"""What a change did to an image, as Markdown."""

from __future__ import annotations

from deadweight.report.markdown.text import code, listed, table
from deadweight.report.model import CompareReport
from deadweight.sizes import show_size

_NOTES = 2


def compare_lines(report: CompareReport) -> list[str]:
    """The phase table."""
    first, last = report.images[0], report.images[-1]
    title = f"{show_size(first.bytes)} → {show_size(last.bytes)}: {last.cumulative:+,} bytes"
    return [f"### {title}", *_phases(report), *listed(report.notes, _NOTES)]


def _phases(report: CompareReport) -> list[str]:
    headers = ["bytes", "size", "difference", "share"]
    if report.target_bytes is not None:
        headers.append(f"to {show_size(report.target_bytes)}")
    rows = []
    for line in report.images:
        row = [f"{line.bytes:,}", show_size(line.bytes), f"{line.difference:+,}", f"{100 * line.share:.1f}%"]
        if line.gap is not None:
            row.append("reached" if line.gap <= 0 else f"+{show_size(line.gap)}")
        rows.append([*row, code(line.reference)])
    return table([*headers, "image"], rows, len(headers))
