"""Names that are longer than there is room for: what tells them apart is mostly at their end."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len

ELLIPSIS = "…"
_LETTERS = 4
"""Characters that a cell of a terminal may have: marks above and below a letter take no room, and have no limit."""
_OPENING = ("'", '"', "(")
"""What may stand before a path: it has another half behind it."""


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` cells of a terminal, with an ellipsis in its middle; of a path whole names remain.

    `/usr/local/lib/python3.11/dist-packages/torch/lib/libtorch_cuda.so` in 40 cells is
    `/usr/…/torch/lib/libtorch_cuda.so`, and with a quotation mark before and behind it still has both.
    """
    if len(text) <= _LETTERS * width and cell_len(text) <= width:
        return text
    path = int(text.startswith(_OPENING))
    first = text.find("/", path + 1) + 1 if text.startswith("/", path) else path
    first = first if first <= _LETTERS * width else path
    for head in (text[:first], text[:path]):
        room = width - cell_len(head) - 1
        nearest = max(0, len(text) - _LETTERS * max(room, 0))
        start = next((i for i in _slashes(text, nearest) if cell_len(text[i:]) <= room), len(text))
        if start < len(text) - 1 and start > len(head):
            return f"{head}{ELLIPSIS}{text[start:]}"
    front = _front(text, (width - 1) // 3)
    return f"{front}{ELLIPSIS}{_front(text[::-1], width - 1 - cell_len(front))[::-1]}"


def _slashes(text: str, start: int) -> Iterator[int]:
    """Where slashes are, from a place on."""
    while (start := text.find("/", start)) >= 0:
        yield start
        start += 1


def fit(text: str, width: int, lines: int = 0) -> list[str]:
    """`text` in lines of at most `width` cells, broken between words; words that are longer are shortened.

    With `lines`, at most so many, the last of which ends in an ellipsis where something is left out.
    """
    rows = [""]
    for word in text.split(" "):
        longer = f"{rows[-1]} {word}" if rows[-1] else word
        if len(longer) <= _LETTERS * width and cell_len(longer) <= width:
            rows[-1] = longer
        elif not rows[-1]:
            rows[-1] = shorten(word, width)
        else:
            rows.append(shorten(word, width))
    if not lines or len(rows) <= lines:
        return rows
    return [*rows[: lines - 1], _front(rows[lines - 1], width - 1) + ELLIPSIS]


def _front(text: str, width: int) -> str:
    """The most of the beginning that fits."""
    end = max(0, min(len(text), _LETTERS * width))
    while end and cell_len(text[:end]) > width:
        end -= 1
    return text[:end]
