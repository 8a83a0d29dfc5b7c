"""HTML from data: whatever is text becomes text, and nothing that an image says can become anything else."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from deadweight.report.text import LONGEST, plain


class Markup(str):
    """HTML that was made here, as opposed to text."""

    __slots__ = ()


Child = str | Iterable["Child"]


def tag(name: str, *children: Child, **attributes: str | int | bool | None) -> Markup:
    """An element. Text is escaped, in content and attributes; `class_` is `class`, `data_v` is `data-v`.

    Attributes that are None or False are left out, True is an attribute without value.
    """
    words = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        word = key.rstrip("_").replace("_", "-")
        words.append(word if value is True else f'{word}="{escape(plain(str(value)))}"')
    return Markup(f"<{' '.join(words)}>{joined(children)}</{name}>")


def joined(children: Iterable[Child]) -> Markup:
    """Markup and text one after the other, the text escaped and on one line."""
    parts = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, str):
            parts.append(escape(plain(child)))
        else:
            parts.append(joined(child))
    return Markup("".join(parts))


def name(text: str, limit: int = LONGEST) -> Markup:
    """Text of an image in at most `limit` characters, kept from turning what stands around it.

    That is Unicode's bidirectional isolation.
    """
    return tag("bdi", plain(text, limit))
