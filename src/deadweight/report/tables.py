"""Tables of bytes for terminals: every one adds up, to the byte, in the column that shows all digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from deadweight.report.text import plain
from deadweight.sizes import show_share, show_size

DIM = Style(dim=True)
BOLD = Style(bold=True)
BAR = 10
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Line(NamedTuple):
    """One row: bytes, what they are, and perhaps more about it on a line of its own."""

    bytes: int
    label: str
    more: str = ""


def bytes_table(
    console: Console, title: str, lines: Sequence[Line], *, what: str, top: int | None = None, total: str = "total"
) -> None:
    """Prints `lines` as a table whose last row is their sum; what `top` leaves out is one row, `others (N)`."""
    whole = sum(line.bytes for line in lines)
    shown = list(lines if top is None or len(lines) <= top + 1 else lines[:top])
    rest = len(lines) - len(shown)
    if rest:
        shown.append(Line(whole - sum(line.bytes for line in shown), f"others ({rest:,})"))
    table = new_table()
    for header, justify in (("bytes", "right"), ("size", "right"), ("share", "right"), ("", "left")):
        table.add_column(header, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column(what, overflow="fold", ratio=1)
    for line in shown:
        label = Text(plain(line.label))
        if line.more:
            label.append("\n" + plain(line.more), DIM)
        table.add_row(
            f"{line.bytes:,}",
            show_size(line.bytes),
            show_share(line.bytes, whole),
            Text(bar(line.bytes, whole, console), "cyan"),
            label,
        )
    table.add_section()
    table.add_row(f"{whole:,}", show_size(whole), show_share(whole, whole), "", Text(total), style=BOLD)
    heading(console, title)
    console.print(table)


def new_table() -> Table:
    """An empty table in the house style: no lines but the one below the header."""
    return Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=DIM, expand=False, show_edge=False, highlight=False
    )


def heading(console: Console, title: str) -> None:
    """A title above a table, with an empty line before it."""
    console.print()
    console.print(Text(title, BOLD))


def bar(part: int, whole: int, console: Console, width: int = BAR) -> str:
    """The share of `part` in `whole` as a bar; in `#` where the output's encoding has no blocks."""
    if whole <= 0 or part <= 0:
        return ""
    eighths = max(1, round(8 * width * part / whole))
    if console.encoding.lower().startswith("utf"):
        return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    return "#" * max(1, eighths // 8)


def paragraphs(console: Console, title: str, texts: Sequence[str]) -> None:
    """A list of sentences, where there are any."""
    if not texts:
        return
    heading(console, title)
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for text in texts:
        table.add_row("-", Text(plain(text)))
    console.print(table)
