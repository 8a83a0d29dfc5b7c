"""GitHub's Markdown of texts that anybody may have written.

What comes from an image goes into code spans, the one place where GitHub's Markdown makes nothing of anything: no
links, no HTML, no @mentions, no #123, no mathematics (github.github.com/gfm, 6.3; backslashes do not help against what
GitHub itself looks for in the finished page).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from deadweight.report.shorten import shorten
from deadweight.report.text import plain
from deadweight.sizes import show_share, show_size

_NAME = 90
_PROSE = 300
_WORD = re.compile(
    r"[(\"']?(?:[A-Za-z]+(?:['-][A-Za-z]+)*|[A-Za-z][A-Za-z0-9]{0,5}|[A-Za-z]*[G-Zg-z][A-Za-z]*[0-9]{1,2})[.,:;!?)\"']{0,2}"
    r"|\(?[+-]?\d{1,6}(?:,\d{3})*(?:\.\d+)?[,:;%]?|\.\.\."
)
"""What can be nothing but a word or a number, with the punctuation around it: no digest, no number of an issue."""
_END = re.compile(r"(.*?)([.,:;]*)", re.DOTALL)


class Row(NamedTuple):
    """A row of a table of bytes: the bytes, and the other cells as Markdown."""

    bytes: int
    cells: Sequence[str]


def code(text: str, limit: int = _NAME) -> str:
    """`text` as a code span on one line, shortened in the middle to about `limit` letters."""
    name = shorten(plain(text), limit).replace("`", r"\x60")
    return f"`{name}`" if name.strip() else "(empty)"


def prose(text: str, limit: int = _PROSE) -> str:
    """A sentence of ours with names of others in it: words stay words, whatever else there is becomes code."""
    words = plain(text, limit).split()
    parts = []
    for harmless, group in groupby(words, lambda word: _WORD.fullmatch(word) is not None):
        said = " ".join(group)
        if not harmless:
            found = _END.fullmatch(said)
            assert found is not None
            said = code(found[1], limit) + found[2] if found[1] else code(said)
        parts.append(said)
    return " ".join(parts)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], numbers: int) -> list[str]:
    """The lines of a table; its first `numbers` columns are numbers, to the right. An empty line comes before it."""
    rules = ["---:" if column < numbers else "---" for column in range(len(headers))]
    lines = [[cell.replace("|", r"\|") for cell in cells] for cells in (headers, rules, *rows)]
    return ["", *(f"| {' | '.join(cells)} |" for cells in lines)]


def bytes_table(title: str, what: Sequence[str], rows: Sequence[Row], top: int, total: str = "total") -> list[str]:
    """The lines of a table that adds up: the `top` first rows, what is left as `others (N)`, and the sum.

    `what` are the headers of the cells.
    """
    whole = sum(row.bytes for row in rows)
    shown = list(rows if len(rows) <= top + 1 else rows[:top])
    if rest := len(rows) - len(shown):
        shown.append(Row(whole - sum(row.bytes for row in shown), (f"others ({rest:,})",)))
    empty = [""] * len(what)
    cells = [
        (f"{row.bytes:,}", show_size(row.bytes), show_share(row.bytes, whole), *row.cells, *empty[len(row.cells) :])
        for row in shown
    ]
    last = (f"**{whole:,}**", f"**{show_size(whole)}**", f"**{show_share(whole, whole)}**", f"**{total}**", *empty[1:])
    return ["", f"#### {title}", *table(("bytes", "size", "share", *what), (*cells, last), 3)]


def listed(texts: Sequence[str], top: int, say: Callable[[str], str] = prose) -> list[str]:
    """The lines of a list of at most `top` texts, and how many more there are."""
    if not texts:
        return []
    shown = texts if len(texts) <= top + 1 else texts[:top]
    more = [f"- and {len(texts) - len(shown):,} more"] if len(texts) > len(shown) else []
    return ["", *(f"- {say(text)}" for text in shown), *more]
