"""The lists of known.toml."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources
from typing import Any

_MAGIC = re.compile(r"[*?\[]")


@cache
def known(section: str, name: str) -> tuple[str, ...]:
    """One list of known.toml."""
    return tuple(_document()[section][name])


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads(resources.files(__package__).joinpath("known.toml").read_text("utf-8"))


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """A function that tells whether a text matches one of the fnmatch patterns."""
    patterns = tuple(patterns)
    if not patterns:
        return lambda _: False
    match = re.compile("|".join(map(fnmatch.translate, patterns))).match
    beginnings = tuple({_MAGIC.split(pattern, maxsplit=1)[0] for pattern in patterns})
    if all(beginnings):  # most texts are told by them alone, in a fifth of the time
        return lambda text: text.startswith(beginnings) and match(text) is not None
    return lambda text: match(text) is not None


def known_pairs(section: str, name: str) -> list[tuple[Callable[[str], bool], str]]:
    """A list of [pattern, text], as (whether a name matches, text)."""
    return [(matcher((pattern,)), text) for pattern, text in _document()[section][name]]
