"""The GPUs that are known by name, as data and as tables."""

from __future__ import annotations

from itertools import groupby

import msgspec
from rich.console import Console
from rich.text import Text

from deadweight.report.tables import BOLD, new_table


class GpuName(msgspec.Struct, frozen=True):
    """One GPU."""

    name: str
    """As the command line takes it."""
    title: str
    """NVIDIA's name."""
    generation: str
    sm: str
    """The architecture that its code is compiled for, as sm_90."""


class GpusReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.gpus/1"):
    """All of them, by generation."""

    gpus: list[GpuName]


def print_gpus(console: Console, report: GpusReport) -> None:
    """A table for each generation."""
    for generation, gpus in groupby(report.gpus, lambda gpu: gpu.generation):
        table = new_table()
        for header in ("name", "architecture", "title"):
            table.add_column(header, no_wrap=True)
        for gpu in gpus:
            table.add_row(gpu.name, gpu.sm, gpu.title)
        console.print(Text(generation, BOLD))
        console.print(table)
        console.print()
