"""How two outputs differ: byte for byte, or but for numbers that are near each other."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence

from deadweight.errors import shown
from deadweight.verify.arrays import apart

_NUMBER = re.compile(
    r"(?<![\w.])[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|nan|inf(?:inity)?)(?!\w|\.\d)", re.ASCII | re.IGNORECASE
)
_SHOWN = 10
_WINDOW = 20
_WIDTH = 160


def text_of(output: bytes) -> str:
    """An output as text that can be turned back into it."""
    return output.decode("utf-8", "surrogateescape")


def without(text: str, patterns: Iterable[re.Pattern[str]]) -> str:
    """`text` without what the patterns match."""
    for pattern in patterns:
        text = pattern.sub("", text)
    return text


def output_difference(what: str, one: str, two: str, tolerance: float) -> list[str]:
    """Where two texts differ, as lines of a diff; none when they do not."""
    if one == two:
        return []
    a, b = one.split("\n"), two.split("\n")
    short = min(len(a), len(b))
    first = next((at for at in range(short) if not same_line(a[at], b[at], tolerance)), short)
    if first == short and len(a) == len(b):
        return []
    return [f"{what} differs, first in line {first + 1:,}:", *_diff(a[first:], b[first:])]


def same_line(one: str, two: str, tolerance: float) -> bool:
    """Whether two texts are equal, but for numbers that are no further apart than `tolerance` allows."""
    if one == two:
        return True
    if not tolerance or _NUMBER.split(one) != _NUMBER.split(two):
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(two), strict=True)
    return all(a == b or not _apart(a, b, tolerance) for a, b in pairs)


def _apart(one: str, two: str, tolerance: float) -> bool:
    a, b = float(one), float(two)
    if math.isinf(a) and math.isinf(b):  # 1e400 and 2e400 are no more equal than 1 and 2
        return one.lower() != two.lower()
    return apart(a, b, tolerance)


def _diff(one: Sequence[str], two: Sequence[str]) -> list[str]:
    """The first lines of what has to go and what has to come."""
    a, b = ([line_shown(line) for line in lines[:_WINDOW]] for lines in (one, two))
    if a[:1] == b[:1]:  # they differ behind what is shown of them, or in a number that is near
        return [f"-{a[0] if a else ''}", f"+{b[0] if b else ''}"]
    changed = [line for line in difflib.ndiff(a, b) if line[0] in "+-"]
    return [line[0] + line[2:] for line in changed[:_SHOWN]]


def line_shown(line: str, width: int = _WIDTH) -> str:
    """A line of an output for people: cut, and without control characters."""
    return shown(line, width)[1:-1]
