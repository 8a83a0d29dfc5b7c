"""GPU code for people: by architecture, by library, and what declaring a GPU would save."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from deadweight.report.model import GpuLibraryLine, GpuLine, InspectReport, OutOfReachLine, SavingLine
from deadweight.report.tables import DIM, Fitted, Line, bytes_table, heading, new_table
from deadweight.sizes import show_size

_NAMED: Final = 3  # architectures in a line
_PRODUCTS: Final = 3
_PTX: Final = re.compile(r"compute_(\d+)(\d)([af]?)")
_WORDS: Final = {
    "headers": "headers of fatbins, and padding",
    "tables": "pointers to fatbins",
    "amd": "for AMD's GPUs, not taken apart",
    "unread": "could not be taken apart",
}
_OUT_OF_REACH: Final = {
    "data": "in data of libraries, where only --raw-blobs goes",
    "file": "in files of GPU code alone",
    "amd": "for AMD's GPUs",
    "unread": "that could not be taken apart",
}


def print_gpu_code(console: Console, report: InspectReport, top: int) -> None:
    """The tables about GPU code, where there is any."""
    if not report.gpu_code:
        return
    lines = [Line(line.bytes, f"{line.arch}  {runs_on(line)}".rstrip()) for line in report.gpu_code]
    bytes_table(console, "GPU code by architecture", lines, what="architecture, and GPUs that have it", top=top)
    if report.gpu_out_of_reach:
        text = "Declaring a GPU does not reach " + ", ".join(map(_out_of_reach, report.gpu_out_of_reach))
        console.print(Text(text, DIM))
    bytes_table(
        console,
        "GPU code by library",
        [Line(line.bytes, line.path, _parts(line)) for line in report.gpu_libraries],
        what="library, and its largest architectures",
        top=min(top, 10),
    )
    print_savings(console, report.gpu_savings)


def print_savings(console: Console, savings: Sequence[SavingLine]) -> None:
    """What declaring a GPU would save, where there is anything to save."""
    if not savings:
        return
    table = new_table()
    table.add_column("declared", no_wrap=True)
    table.add_column("PTX kept", justify="right", no_wrap=True)
    table.add_column("PTX dropped", justify="right", no_wrap=True)
    table.add_column("GPUs")
    for line in savings:
        names = _names(line.products) if line.gpu != "none" else "machines without a GPU"
        table.add_row(
            f"--gpu {line.gpu}", show_size(line.ptx_kept), show_size(line.ptx_dropped), Fitted("", names, lines=1)
        )
    heading(console, "What declaring a GPU would save, about")
    console.print(table)
    console.print(
        Text("PTX is for GPUs newer than the declared ones: with --keep-ptx, the default, or --drop-ptx.", DIM)
    )


def runs_on(line: GpuLine) -> str:
    """What runs the code of an architecture, or what else it is."""
    ptx = _PTX.fullmatch(line.arch)
    if ptx is not None:
        only = {"a": " alone", "f": " and its family", "": " and newer"}[ptx[3]]
        return f"PTX, for {ptx[1]}.{ptx[2]}{only}"
    if line.arch.startswith("lto_"):
        return "LTO-IR, linked when it is loaded"
    return _WORDS.get(line.arch, _names(line.products))


def _names(products: Sequence[str]) -> str:
    return ", ".join([*products[:_PRODUCTS], *(["..."] if len(products) > _PRODUCTS else [])])


def _parts(line: GpuLibraryLine) -> str:
    """The largest architectures of a library, and how much of it is out of reach."""
    parts = [f"{arch} {show_size(size)}" for arch, size in list(line.by_arch.items())[:_NAMED]]
    more = len(line.by_arch) - len(parts)
    beyond = f"; out of reach: {show_size(line.out_of_reach)}" if line.out_of_reach else ""
    files = f", {line.files:,} files of GPU code alone" if line.files > 1 else ""
    return f"{line.owner}{files}: {', '.join(parts)}" + (f", {more:,} more" if more else "") + beyond


def _out_of_reach(line: OutOfReachLine) -> str:
    files = f" ({line.files:,} file{'' if line.files == 1 else 's'})"
    return f"{show_size(line.bytes)} {_OUT_OF_REACH[line.where]}{files}"
