"""Text from images, made harmless: names, commands and metadata are whatever somebody wanted them to be."""

from __future__ import annotations

import re

_ODD = re.compile(r"[^\x20-\x7e]")
LONGEST = 1000
"""Characters of a text from an image that a page shows: metadata can have names of megabytes."""


def plain(text: str, limit: int = 0) -> str:
    """`text` on one line: line ends, terminal escapes, bidirectional marks and the like are written as escapes.

    With a `limit`, at most so many characters, the last of them an ellipsis.
    """
    safe = _ODD.sub(lambda odd: odd[0] if odd[0].isprintable() else _escape(odd[0]), text)
    return safe if not limit or len(safe) <= limit else safe[: limit - 1] + "…"


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def writable(text: str, encoding: str) -> str:
    """`text` with escapes in the place of what an encoding has no letters for, and `~` in that of an ellipsis."""
    if not encoding.lower().startswith("utf"):
        text = text.replace("…", "~")
    return text.encode(encoding, "backslashreplace").decode(encoding)


def valid(text: str) -> str:
    r"""`text` as valid Unicode: bytes of names that are no UTF-8 (surrogates, in Python) are written as `\udcXX`."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def bounded(text: str) -> str:
    """`text` as valid Unicode and in at most `LONGEST` characters, the last of them an ellipsis where it has more."""
    return valid(text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")


def printable_json(document: str) -> str:
    r"""A JSON document with what is not printable in its strings as `\uXXXX`, so that it can be shown anywhere."""
    return _ODD.sub(lambda odd: odd[0] if odd[0].isprintable() or odd[0] == "\n" else _json_escape(odd[0]), document)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))
