"""Sizes for people: decimal units, as disks and registries have them; `GiB` and the like are understood."""

from __future__ import annotations

import re
from fractions import Fraction

from deadweight.errors import UsageError, shown

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_SIZE = re.compile(
    r"\s*([+-]?\d+(?:[_,]\d+)*(?:\.\d+)?)\s*(?:([kmgtpe])(i?))?(?:b|bytes)?\s*", re.IGNORECASE | re.ASCII
)


def parse_size(text: str) -> int:
    """Bytes of `3GB`, `2.5GiB`, `1_000_000` or `40k`. Raises UsageError for anything else, and below zero."""
    match = _SIZE.fullmatch(text)
    if match is None or match[1].startswith("-") or len(text) > 40:
        raise UsageError(f"{shown(text)} is no size; write 3GB, 2.5GiB or 1000000")
    number = Fraction(match[1].replace("_", "").replace(",", ""))
    power = " kmgtpe".index(match[2].lower()) if match[2] else 0
    unit: int = (1024 if match[3] else 1000) ** power
    return round(number * unit)


def show_size(size: int) -> str:
    """`size` bytes in three digits and a decimal unit: `1.72 GB`, `958 B`."""
    amount = abs(size)
    sign = "-" if size < 0 else ""
    if amount < 1000:
        return f"{sign}{amount} B"
    for power, unit in enumerate(_UNITS[1:], 1):
        value = amount / 1000**power
        if value < 999.5 or unit == _UNITS[-1]:
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{sign}{value:,.{digits}f} {unit}"
    raise AssertionError(size)


def show_share(part: int, whole: int) -> str:
    """`part` of `whole` in percent, with one decimal; `<0.1%` where it would show as nothing."""
    if not whole:
        return "-"
    percent = 100 * part / whole
    return "<0.1%" if percent and abs(percent) < 0.05 else f"{percent:.1f}%"
