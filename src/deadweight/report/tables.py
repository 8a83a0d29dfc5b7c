"""Tables of bytes for terminals: every one adds up, to the byte, in the column that shows all digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.style import Style
from rich.table import Table
from rich.text import Text

from deadweight.report.shorten import fit
from deadweight.report.text import plain, writable
from deadweight.sizes import show_share, show_size

DIM = Style(dim=True)
BOLD = Style(bold=True)
BAR = 10
NARROW_BAR = 6
WIDE = 100
"""Columns from which on there is room."""
_EIGHTHS = " ▏▎▍▌▋▊▉"
_GAP = 2
_LEAST = 12


class Fitted:
    """Text that takes what room there is, in a table or by itself: broken between words, long words shortened.

    `lines` is how many lines each of its two parts may take, 0 for as many as it needs; the second part is dim.
    """

    def __init__(self, label: str, more: str = "", *, lines: int = 2, style: Style | None = None) -> None:
        self.parts = [(plain(text), style) for text, style in ((label, style), (more, DIM)) if text]
        self.lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for text, style in self.parts or [("", None)]:
            written = writable(text, console.encoding)
            yield Text("\n".join(fit(written, options.max_width, self.lines)), style or "")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        longest = max((cell_len(writable(text, console.encoding)) for text, _ in self.parts), default=0)
        return Measurement(min(longest, _LEAST), longest)


class Line(NamedTuple):
    """One row: bytes, what they are, and perhaps more about it on a line of its own."""

    bytes: int
    label: str
    more: str = ""


def bytes_table(
    console: Console,
    title: str,
    lines: Sequence[Line],
    *,
    what: str,
    top: int | None = None,
    total: str = "total",
    all_lines: tuple[int, int] | None = None,
) -> None:
    """Prints `lines` as a table whose last row is their sum; what `top` leaves out is one row, `others (N)`.

    `what` says what the labels are and, after a comma, what stands beside or below them. `all_lines` is how many lines
    there are, and their sum, where `lines` are only the first of them.
    """
    count, whole = all_lines or (len(lines), sum(line.bytes for line in lines))
    shown = list(lines if top is None or count <= top + 1 else lines[:top])
    rest = count - len(shown)
    if rest:
        shown.append(Line(whole - sum(line.bytes for line in shown), f"others ({rest:,})"))
    width = BAR if console.width >= WIDE else NARROW_BAR
    cells = [
        (
            f"{line.bytes:,}",
            show_size(line.bytes),
            show_share(line.bytes, whole),
            bar(line.bytes, whole, console, width),
        )
        for line in shown
    ]
    sums = (f"{whole:,}", show_size(whole), show_share(whole, whole), "")
    table = new_table()
    headers = ("bytes", "size", "share", "")
    for number, header in enumerate(headers):
        table.add_column(header, justify="right" if number < 3 else "left", no_wrap=True)
    taken = sum(max(map(len, column)) + _GAP for column in zip(headers, sums, *cells, strict=True))
    shown = [Line(size, *(writable(plain(text), console.encoding) for text in texts)) for size, *texts in shown]
    beside = _beside(shown, console.width - taken)
    kind, _, more = what.partition(", ")
    for header in (kind, more.removeprefix("and ")) if beside else (what,):
        table.add_column(header)
    for line, (*numbers, share) in zip(shown, cells, strict=True):
        label = [Text(plain(line.label)), Text(plain(line.more), DIM)] if beside else [Fitted(line.label, line.more)]
        table.add_row(*numbers, Text(share, "cyan"), *label)
    table.add_row(*sums, total, style=BOLD)
    heading(console, title)
    console.print(table)


def _beside(lines: Sequence[Line], room: int) -> bool:
    """Whether what more there is to say has room beside the labels, in all rows."""
    label = max((cell_len(plain(line.label)) for line in lines), default=0)
    more = max((cell_len(plain(line.more)) for line in lines), default=0)
    return more > 0 and label + _GAP + more <= room


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
    for text in texts:
        table.add_row("-", Fitted(text, lines=0))
    console.print(table)
