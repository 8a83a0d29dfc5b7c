"""Reports for people, on a terminal or in a pipe. Only formats: every number comes with the report.

Nothing from an image is markup here, and all of it goes through `plain`.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from deadweight.report.gpu_code import print_gpu_code, print_savings
from deadweight.report.model import CutLine, ImageLine, InspectReport, LayerLine, ModelLine, SlimReport
from deadweight.report.tables import BOLD, DIM, WIDE, Fitted, Line, bytes_table, heading, new_table, paragraphs
from deadweight.report.text import plain, writable
from deadweight.report.verdict import print_verdict
from deadweight.sizes import show_share, show_size

TOP = 15
NARROWEST = 60
"""Columns that tables need; a narrower terminal wraps the lines itself."""
_COMMAND_LIMIT = 150
_LARGEST = 4
_SHELL = re.compile(r"/bin/sh -c #\(nop\)\s*|(?:RUN (?:\|\d+ .*?)?)?/bin/sh -c ", re.DOTALL)
"""What every line starts with: the shell, and before it, of BuildKit, how many build arguments there were and which."""
_BUILDKIT = re.compile(r"\s*# buildkit\s*$")


def make_console(file: TextIO, environment: Mapping[str, str]) -> Console:
    """A console on `file`: colours and the terminal's width where it is one, else neither and 80 columns.

    NO_COLOR (no-color.org), TERM=dumb and COLUMNS are honoured.
    """
    terminal = file.isatty()
    colour = terminal and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"
    columns = environment.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() and 20 <= int(columns) <= 1000 else None
    console = Console(
        file=file,
        force_terminal=terminal and colour,
        no_color=not colour,
        color_system="auto" if colour else None,
        width=width if width is not None else (None if terminal else 80),
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    console.width = max(console.width, NARROWEST)
    return console


def show(file: TextIO, environment: Mapping[str, str], render: Callable[[Console], None]) -> None:
    """Writes what `render` prints to `file` in one go, without the spaces that tables leave at line ends."""
    console = make_console(file, environment)
    with console.capture() as captured:
        render(console)
    text = "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())
    encoding = file.encoding or "utf-8"  # what it has no letters for is escaped rather than refused
    file.write(writable(text, encoding))
    file.flush()


def print_inspect(console: Console, report: InspectReport, top: int = TOP) -> None:
    """Where every byte is."""
    _image(console, report.image, report.bytes, report.stored_bytes)
    bytes_table(
        console,
        "Layers",
        [
            Line(
                layer.bytes,
                f"{layer.layer + 1}  {command(layer.created_by)}",
                _inside(layer, _LARGEST if console.width >= WIDE else 2),
            )
            for layer in report.layers
        ],
        what="layer, what made it, largest owners",
    )
    bytes_table(
        console,
        "Owners",
        [
            Line(owner.bytes, " ".join(filter(None, (owner.name, owner.version, f"({owner.kind})"))), owner.why)
            for owner in report.owners
        ],
        what="owner, and why it is there",
        top=top,
    )
    _kinds(console, report)
    bytes_table(console, "Categories", [Line(each.bytes, each.name) for each in report.categories], what="what it is")
    print_gpu_code(console, report, top)
    if report.models:
        lines = [Line(each.bytes, each.folder, f"{each.owner}: {_model(each)}") for each in report.models]
        bytes_table(console, "Models", lines, what="folder, and what is there", top=min(top, 10))
    if report.unlisted:
        lines = [Line(p.bytes, p.path, _count(p.files, "file")) for p in report.unlisted]
        bytes_table(console, "Files of no package", lines, what="directory", top=min(top, 6))
    if report.hidden:
        _hidden(console, report, min(top, 6))
    if report.unchecked:
        console.print()
        layers = f"{len(report.unchecked):,} of {_count(len(report.layers), 'layer')}"
        text = f"Not read whole, and so not held to their digests: {layers} (plan and slim check what they copy)."
        console.print(Text(text, DIM))
    paragraphs(console, "Notes", report.notes)


def _model(line: ModelLine) -> str:
    """What there is of a model in one format."""
    numbers = ", ".join(f"{count:,} {dtype}" for dtype, count in list(line.dtypes.items())[:3])
    return f"{line.format}, {_count(line.files, 'file')}" + (f": {numbers}" if numbers else "")


def _inside(layer: LayerLine, largest: int) -> str:
    """The largest owners of a layer's bytes."""
    named = [f"{part.name} {show_size(part.bytes)}" for part in layer.owners[:largest]]
    more = len(layer.owners) - len(named)
    return ", ".join(named) + (f", {more:,} more" if more else "")


def print_slim(console: Console, report: SlimReport, top: int = TOP) -> None:
    """What leaves, by pass, layer and path, and what remains."""
    _image(console, report.image, report.before_bytes, report.compressed_before_bytes)
    _outcome(console, report)
    if report.target:
        console.print(f"for {target_line(report.target)}")
    for swap in report.swaps:
        console.print(Text(plain(f"swapped: {swap.name} {swap.before} -> {swap.after}, from {swap.wheel}")))
    if report.edited:
        console.print(Text("The plan was edited by hand; everything here was worked out anew from it."))
    if report.passes:
        lines = [Line(p.bytes, p.pass_, f"{p.risk}, {_count(p.cuts, 'cut')}") for p in report.passes]
        bytes_table(console, "Saved, by pass", lines, what="pass, its risk and cuts", total="saved")
        owners = [Line(one.bytes, one.name, f"{one.kind}, {_count(one.cuts, 'cut')}") for one in report.owners]
        bytes_table(console, "Saved, by owner", owners, what="owner, and how many cuts", top=min(top, 8), total="saved")
        _layers(console, report)
        cuts = heapq.nsmallest(top + 1, report.cuts, key=lambda cut: (cut.after_bytes - cut.before_bytes, cut.path))
        saved = sum(one.bytes for one in report.passes)
        bytes_table(
            console,
            "Largest cuts",
            [
                Line(
                    cut.before_bytes - cut.after_bytes,
                    _place(cut),
                    f"{cut.pass_}: {cut.why}",
                )
                for cut in cuts
            ],
            what="path, and why",
            top=top,
            total="saved",
            all_lines=(len(report.cuts), saved),
        )
    print_savings(console, report.gpu_savings)
    paragraphs(console, "Left behind, and other notes", report.notes)
    if report.verdict.probes:
        print_verdict(console, report.verdict)


def _place(cut: CutLine) -> str:
    if not cut.path:
        return f"(layer {cut.layer + 1})"
    return f"/{cut.path}/ (whole, {_count(cut.below + 1, 'path')})" if cut.below else f"/{cut.path}"


def command(created_by: str) -> str:
    """What made a layer, for people: without the shell that every line starts with, and not too long."""
    text = " ".join(plain(_BUILDKIT.sub("", _SHELL.sub("", created_by, count=1)).replace("\t", " ")).split())
    return plain(text, _COMMAND_LIMIT) or "(no history)"


def _image(console: Console, image: ImageLine, size: int, stored: int | None) -> None:
    line = Text(plain(image.reference), BOLD)
    if image.tag:
        line.append(f"  {plain(image.tag)}")
    line.append(f"  {plain(image.platform)}")
    console.print(line)
    console.print(Text(plain(image.digest), DIM))
    text = f"{size:,} bytes ({show_size(size)}) in layers, uncompressed"
    if stored is not None and stored != size:
        text += f"; stored as {stored:,} ({show_size(stored)})"
    console.print(Text(text))


def _outcome(console: Console, report: SlimReport) -> None:
    saved = report.before_bytes - report.predicted_bytes
    console.print()
    line = Text(f"{show_size(report.before_bytes)} -> {show_size(report.predicted_bytes)}", BOLD)
    line.append(f"   {show_share(saved, report.before_bytes)} less: {saved:,} bytes leave")
    console.print(line)
    if report.after is None or report.after_bytes is None:
        console.print(f"predicted: {report.predicted_bytes:,} bytes; nothing is built")
        return
    same = "=" if report.after_bytes == report.predicted_bytes else "!="
    console.print(f"predicted: {report.predicted_bytes:,} {same} built: {report.after_bytes:,} bytes")
    if report.compressed_after_bytes is not None and report.compressed_after_bytes != report.after_bytes:
        console.print(
            f"stored: {report.compressed_after_bytes:,} bytes ({show_size(report.compressed_after_bytes)}) compressed"
        )
    console.print(Text(f"{plain(report.after.reference)}  {plain(report.after.digest)}"))


def target_line(target: Mapping[str, Any]) -> str:
    """A target as plans have it, in a line: "sm_90, PTX kept"."""
    parts = [*target["gpus"], "PTX kept" if target["keep_ptx"] else "PTX dropped"]
    if not target["gpus"]:
        parts = ["machines without a GPU"]
    if target["raw_blobs"]:
        parts.append("GPU code outside fatbin sections as well")
    if target["recompress"]:
        parts.append(f"recompressed by {target['encoder']}")
    return plain(", ".join(parts))


def _layers(console: Console, report: SlimReport) -> None:
    table = new_table()
    for header in ("before", "after", "saved"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("layer, and what made it")
    for layer in report.layers:
        label = Fitted(f"{layer.layer + 1}  {command(layer.created_by)}", "stays as it is" if layer.kept else "")
        saved = layer.before_bytes - layer.predicted_bytes
        table.add_row(f"{layer.before_bytes:,}", f"{layer.predicted_bytes:,}", f"{saved:,}", label)
    saved = report.before_bytes - report.predicted_bytes
    table.add_row(f"{report.before_bytes:,}", f"{report.predicted_bytes:,}", f"{saved:,}", "total", style=BOLD)
    heading(console, "Layers")
    console.print(table)


def _kinds(console: Console, report: InspectReport) -> None:
    """Owners by kind, in a line: what the others add up to is not lost."""
    sums: dict[str, tuple[int, int]] = {}
    for owner in report.owners:
        size, count = sums.get(owner.kind, (0, 0))
        sums[owner.kind] = (size + owner.bytes, count + 1)
    parts = [
        f"{kind} {show_size(size)}" + (f" ({count:,})" if count > 1 else "")
        for kind, (size, count) in sorted(sums.items(), key=lambda item: -item[1][0])
    ]
    console.print(Text(f"By kind: {', '.join(parts)}", DIM))


def _hidden(console: Console, report: InspectReport, top: int) -> None:
    lines = []
    for line in report.hidden:
        how = {0: "deleted later", line.entries: "overwritten later"}.get(line.overwritten, "deleted or overwritten")
        lines.append(Line(line.bytes, f"{line.path} of layer {line.layer + 1}", f"{_entries(line.entries)}, {how}"))
    bytes_table(console, "Hidden by later layers, in the image for nothing", lines, what="what it was", top=top)


def _entries(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
