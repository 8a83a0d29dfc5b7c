"""Comparing Debian versions (deb-version(7), dpkg's lib/dpkg/version.c)."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable

_PARTS = re.compile(r"(\D*)(\d*)")
_OPERATORS: dict[str, Callable[[int, int], bool]] = {
    "<<": operator.lt,
    "<": operator.le,  # of old, meaning <=
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">": operator.ge,  # of old, meaning >=
    ">>": operator.gt,
}


def satisfies(version: str, op: str, wanted: str) -> bool:
    """Whether `version` stands in the relation `op` to `wanted`; without an operator everything does.

    An empty version is that of a virtual package, which satisfies no versioned relation (Debian policy, 7.5).
    """
    if not op:
        return True
    compare = _OPERATORS.get(op)
    return bool(version) and compare is not None and compare(compare_versions(version, wanted), 0)


def compare_versions(a: str, b: str) -> int:
    """-1, 0 or 1 as `a` is older than, equal to or newer than `b`."""
    for left, right in zip(_split(a), _split(b), strict=True):
        order = _compare_part(left, right)
        if order:
            return order
    return 0


def _split(version: str) -> tuple[str, str, str]:
    """(epoch, upstream version, revision)"""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return epoch, upstream, revision


def _compare_part(a: str, b: str) -> int:
    left, right = _PARTS.findall(a), _PARTS.findall(b)
    for i in range(max(len(left), len(right))):
        text_a, number_a = left[i] if i < len(left) else ("", "")
        text_b, number_b = right[i] if i < len(right) else ("", "")
        # A tilde sorts before the end, the end (0) before letters, letters before all else.
        key_a, key_b = [*map(_order, text_a), 0], [*map(_order, text_b), 0]
        if key_a != key_b:
            return -1 if key_a < key_b else 1
        digits_a, digits_b = number_a.lstrip("0"), number_b.lstrip("0")
        if digits_a != digits_b:
            return -1 if (len(digits_a), digits_a) < (len(digits_b), digits_b) else 1
    return 0


def _order(character: str) -> int:
    if character == "~":
        return -1
    return ord(character) if character.isascii() and character.isalpha() else ord(character) + 256
