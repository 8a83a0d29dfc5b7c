"""The words of a text, as full-text search takes them."""

import re

_WORD = re.compile(r"[^\W_]+")

MOST = 64
"""Words of one query; a long claim has said what it is about by then."""


def words(text: str) -> list[str]:
    """The distinct words in their order: letters and digits alone, so nothing in them is syntax to any database."""
    found: dict[str, str] = {}
    for word in _WORD.findall(text):
        found.setdefault(word.lower(), word)
        if len(found) == MOST:
            break
    return list(found.values())
