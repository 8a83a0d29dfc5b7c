"""Compared images for people: the phase table, and what each change did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from deadweight.report.model import BytesChange, CompareReport, FileChanges, ImageChange, LayerName, OwnerChange
from deadweight.report.tables import BOLD, DIM, Fitted, Line, bytes_table, heading, new_table, paragraphs
from deadweight.report.terminal import command
from deadweight.sizes import show_size

TOP = 15
_CHANGES = ("added", "removed", "upgraded", "downgraded", "changed", "grown", "shrunk")


class Difference(NamedTuple):
    """One row: what it is, and its bytes in both images."""

    before: int
    after: int
    label: str


def print_compare(console: Console, report: CompareReport, top: int = TOP) -> None:
    """The phase table, and below it what its numbers stand for."""
    table = new_table()
    headers = ["", "bytes", "size", "difference", "cumulative", "share"]
    if report.target_bytes is not None:
        headers.append("to target")
    for header in headers:
        table.add_column(header, justify="right", no_wrap=True)
    for number, line in enumerate(report.images, 1):
        cells = [f"{number}", f"{line.bytes:,}", show_size(line.bytes)]
        cells += ["", ""] if number == 1 else [f"{line.difference:+,}", f"{line.cumulative:+,}"]
        cells.append(f"{100 * line.share:.1f}%")
        if line.gap is not None:
            cells.append("reached" if line.gap <= 0 else f"+{show_size(line.gap)}")
        table.add_row(*cells)
    console.print(table)
    console.print()
    for number, line in enumerate(report.images, 1):
        stored = line.stored_bytes != line.bytes
        more = f"   stored as {line.stored_bytes:,} bytes ({show_size(line.stored_bytes)})" if stored else ""
        console.print(Fitted(f"{number}  {line.reference}", more))
    if report.target_bytes is not None:
        console.print(Text(f"target: {report.target_bytes:,} bytes ({show_size(report.target_bytes)})", DIM))
    for change in report.changes:
        _print_change(console, report, change, top)
    paragraphs(console, "Notes", report.notes)


def _print_change(console: Console, report: CompareReport, change: ImageChange, top: int) -> None:
    """Packages, categories, GPU code and layers."""
    step = f" from {change.before + 1} to {change.after + 1}" if len(report.images) > 2 else ""
    if not change.owners:
        heading(console, f"What changed{step}")
        console.print("nothing: every owner has the same bytes")
        _print_files(console, change, step, top)
        return
    rows = [Difference(one.before_bytes, one.after_bytes, owner_label(one)) for one in change.owners]
    as_before = Difference(change.unchanged_bytes, change.unchanged_bytes, f"as before ({change.unchanged:,})")
    _difference_table(console, f"What changed{step}", top_rows(rows, as_before, top), "whose, and how")
    console.print(Text(changes_line(change), DIM))
    _print_files(console, change, step, top)
    kinds = (("Categories", change.categories, "what it is"), ("GPU code", change.gpu_code, "architecture"))
    for title, lines, what in kinds:
        rows, same = differing(lines)
        if rows:
            _difference_table(console, f"{title}{step}", top_rows(rows, same, top), what)
    if change.layers_new:
        layers = [Line(one.bytes, layer_label(one)) for one in change.layers_new]
        bytes_table(console, f"New layers{step}", layers, what="layer, and what made it", top=top)
    console.print(Text(shared_line(change), DIM))


def _print_files(console: Console, change: ImageChange, step: str, top: int) -> None:
    """The largest files that came, went, grew or shrank."""
    if change.files is not None and change.files.count:
        _difference_table(console, f"Files{step}", _file_rows(change, change.files, top), "file")


def _file_rows(change: ImageChange, files: FileChanges, top: int) -> list[Difference]:
    """The largest files that differ, the others as one, and all that is in none of them; the last is the sum of all."""
    largest = files.largest[: top if files.count > top + 1 else top + 1]
    shown = [Difference(one.before_bytes, one.after_bytes, one.path) for one in largest]
    if rest := files.count - len(shown):
        before, after = sum(row.before for row in shown), sum(row.after for row in shown)
        shown.append(Difference(files.before_bytes - before, files.after_bytes - after, f"others ({rest:,})"))
    before, after = change.before_bytes - files.before_bytes, change.after_bytes - files.after_bytes
    shown.append(Difference(before, after, "files as before, tar framing, what later layers hide"))
    return [*shown, Difference(change.before_bytes, change.after_bytes, "total")]


def differing(lines: Sequence[BytesChange]) -> tuple[list[Difference], Difference]:
    """The lines that differ, and all others as one."""
    rows = [Difference(one.before_bytes, one.after_bytes, one.name) for one in lines]
    same = [row for row in rows if row.before == row.after]
    size = sum(row.before for row in same)
    return [row for row in rows if row.before != row.after], Difference(size, size, f"as before ({len(same):,})")


def top_rows(rows: Sequence[Difference], same: Difference, top: int) -> list[Difference]:
    """The `top` first rows, the others as one, and what is as before; the last is the sum of all."""
    shown = list(rows if len(rows) <= top + 1 else rows[:top])
    if rest := rows[len(shown) :]:
        sums = sum(row.before for row in rest), sum(row.after for row in rest)
        shown.append(Difference(*sums, f"others ({len(rest):,})"))
    if same.before:
        shown.append(same)
    return [*shown, Difference(sum(row.before for row in shown), sum(row.after for row in shown), "total")]


def _difference_table(console: Console, title: str, rows: Sequence[Difference], what: str) -> None:
    """A table of what differs, in whose exact column the differences add up to the last row."""
    table = new_table()
    for header in ("difference", "before", "after"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column(what)
    *shown, total = rows
    for row in shown:
        table.add_row(
            f"{row.after - row.before:+,}", size_or_none(row.before), size_or_none(row.after), Fitted(row.label)
        )
    difference = f"{total.after - total.before:+,}"
    table.add_row(difference, show_size(total.before), show_size(total.after), total.label, style=BOLD)
    heading(console, title)
    console.print(table)


def size_or_none(size: int) -> str:
    """A size for people, and a dash for none."""
    return show_size(size) if size else "-"


def owner_label(change: OwnerChange) -> str:
    """An owner with what became of it: `numpy 1.26 -> 2.0  (python, upgraded)`."""
    return f"{owner_name(change)}  ({change.kind}, {change.change})"


def owner_name(change: OwnerChange) -> str:
    """An owner with its version, or both where it is another one afterwards."""
    versions = change.before_version or change.after_version
    if change.before_version and change.after_version and change.before_version != change.after_version:
        versions = f"{change.before_version} -> {change.after_version}"
    return " ".join(filter(None, (change.name, versions)))


def layer_label(layer: LayerName) -> str:
    """A layer as people count them, with what made it."""
    return f"{layer.layer + 1}  {command(layer.created_by)}"


def changes_line(change: ImageChange) -> str:
    """How many came, went and changed, with the difference that each makes."""
    parts = []
    for kind in _CHANGES:
        found = [one for one in change.owners if one.change == kind]
        if found:
            difference = sum(one.after_bytes - one.before_bytes for one in found)
            parts.append(f"{len(found):,} {kind} ({'+' if difference >= 0 else ''}{show_size(difference)})")
    return ", ".join([*parts, f"{change.unchanged:,} as before"])


def shared_line(change: ImageChange) -> str:
    """What a machine that has the one image need not pull for the other."""
    layers = f"{change.shared_layers:,} layer{'' if change.shared_layers == 1 else 's'}"
    new = sum(layer.bytes for layer in change.layers_new)
    shared = f"{layers} of {change.shared_bytes:,} bytes ({show_size(change.shared_bytes)}) in both"
    return f"{shared}; new: {len(change.layers_new):,}, of {new:,} bytes ({show_size(new)})"
