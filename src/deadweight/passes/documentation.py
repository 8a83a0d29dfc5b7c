"""Manual pages, documentation and translations: what people read in a shell, and a service's container never shows.

Of Python it is what `help("topics")` shows, not docstrings.

Licences stay (`/usr/share/doc/*/copyright`, and what is called LICENSE, COPYING or NOTICE there), and so do the
languages that the environment asks for. Pages are told by their names, too: a folder `share/info` may hold data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from deadweight.ledger.named import named
from deadweight.passes.application import mentions
from deadweight.passes.base import Context, Pass, Proposal

MANUALS, DOCUMENTATION, TRANSLATIONS, TOPICS = "manual pages", "documentation", "translations", "Python's help texts"
_PLACES: Final = (
    (
        MANUALS,
        re.compile(
            r"(?:.+/)?share/(?:man(?:/[^/]+)?/man\w+/[^/]+\.(?:\d\w*|[ln])|info/(?:[^/]+/)?(?:[^/]+\.info(?:-\d+)?|dir))"
            r"(?:\.(?:gz|bz2|xz|zst))?"
        ),
    ),
    (DOCUMENTATION, re.compile(r"usr/share/(?:doc|doc-base|lintian|linda)/.+")),
    (TOPICS, re.compile(r"(?:.+/)?lib/python3(?:\.\d+)?/pydoc_data/(?:topics\.py|__pycache__/topics\.[^/]+\.pyc)")),
    (TRANSLATIONS, re.compile(r"usr/share/locale/(?P<language>[^/]+)/LC_\w+/.+\.mo")),
)
_EVIDENCE: Final = {
    MANUALS: "man and info show them, and nothing else reads them",
    DOCUMENTATION: "people read it, no program does; licences stay",
    TOPICS: "help() shows them, and says so where they are missing",
    TRANSLATIONS: "of messages, in languages that the image's environment does not ask for",
}
_VARIABLES: Final = ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
_OWNERS: Final = {
    MANUALS: frozenset({"debian", "python", "interpreter", "system"}),
    DOCUMENTATION: frozenset({"debian"}),
    TOPICS: frozenset({"debian", "interpreter"}),
    TRANSLATIONS: frozenset({"debian"}),
}
"""Whose they are: what nobody lists below /usr/share may be the application's."""
_SYSTEM: Final = ("usr/share/", "usr/local/share/")
"""Where manual pages are the system's though nobody lists them."""
_LICENCE: Final = re.compile(r"licen[cs]e|copying|copyright|notice", re.IGNORECASE)
_TRANSLATES: Final = re.compile(rb"\bsetlocale\s*\(|\bimport gettext\b|\bfrom gettext\b")


def propose(context: Context) -> Iterator[Proposal]:
    """Files, and links to files, ordered by path; directories stay, as dpkg keeps them where it leaves files out."""
    wanted = languages(context)
    translated = next(iter(mentions(context, _TRANSLATES)), None)
    if translated is not None:
        context.notes.append(f"translations stay: /{translated[0]} mentions {translated[1]}")
    fs = context.ledger.fs
    there = named(fs, context.ledger.facts, "documentation", _is_documentation)
    for path in sorted(path for path in there if path not in context.gone):
        what = _what(path, wanted)
        if what is None or (what == TRANSLATIONS and translated is not None):
            continue
        node = fs.nodes[path]
        if node.kind == "symlink":
            target = fs.resolve(path)
            if target is not None and target.kind == "dir":
                continue  # the documentation of another package, and with it its copyright
        elif node.kind != "file":
            continue
        kind = context.ledger.owner(path).kind
        if kind == "system" and not path.startswith(_SYSTEM):
            continue
        if context.may_change(path) and kind in _OWNERS[what]:
            yield Proposal("remove", path, what, _EVIDENCE[what])


def languages(context: Context) -> frozenset[str]:
    """The languages that the image's environment asks for, as directories of translations are called: de, de_DE."""
    found = set()
    for variable in _VARIABLES:
        for locale in context.ledger.image.environment.get(variable, "").split(":"):
            name = re.split(r"[.@]", locale)[0]
            found |= {name, name.partition("_")[0]}
    return frozenset(found - {"", "C", "POSIX"})


def _is_documentation(path: str) -> bool:
    if "share/" not in path and "/pydoc_data/" not in path:  # all places have one of these
        return False
    return any(pattern.fullmatch(path) for _, pattern in _PLACES)


def _what(path: str, wanted: frozenset[str]) -> str | None:
    for what, pattern in _PLACES:
        match = pattern.fullmatch(path)
        if match is None:
            continue
        if what == DOCUMENTATION and _is_licence(path):
            return None
        if what == TRANSLATIONS and re.split(r"[.@]", match["language"])[0] in wanted:
            return None
        return what
    return None


def _is_licence(path: str) -> bool:
    """Whether a name of a package's documentation, or of a folder in it, is that of a licence."""
    return _LICENCE.search(path.split("/", 4)[-1]) is not None if path.startswith("usr/share/doc/") else False


PASS = Pass(
    name="documentation",
    risk="policy",
    order=65,
    summary="manual pages, documentation (not licences), and translations into languages that nobody asks for",
    propose=propose,
)
