"""Editing dpkg's and apt's own files: what is not touched stays as it is, to the byte."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_STANZA = re.compile(rb"(?:[^\n]*\S[^\n]*(?:\n|\Z))+(?:[ \t]*\n)*|(?:[ \t]*\n)+|.+", re.DOTALL)


def drop_stanzas(raw: bytes, names: Collection[tuple[str, str]]) -> bytes:
    """A deb822 file (dpkg's status, apt's extended_states) without the stanzas of `names`, (package, architecture).

    The architecture `all` goes with any: apt writes such packages under the machine's own.
    """
    kept = []
    for match in _STANZA.finditer(raw):
        name = _field(match.group(), b"Package")
        pair = (name, _field(match.group(), b"Architecture"))
        if not name or (pair not in names and (name, "all") not in names):
            kept.append(match.group())
    return b"".join(kept)


def _field(stanza: bytes, name: bytes) -> str:
    match = re.search(rb"^" + name + rb":[ \t]*([^\n]*)", stanza, re.MULTILINE | re.IGNORECASE)
    return match[1].strip().decode("utf-8", "surrogateescape") if match else ""


def drop_list_lines(raw: bytes, removed: Collection[str]) -> bytes:
    """A .list file (or conffiles) without the lines of `removed`: paths as written there, less the leading `/`."""
    gone = {name.encode("utf-8", "surrogateescape") for name in removed}
    return b"".join(line for line in _lines(raw) if line == b"\n" or line.rstrip(b"\n").lstrip(b"/") not in gone)


def _lines(raw: bytes) -> list[bytes]:
    """Lines with their ends; only a line feed ends one (bytes.splitlines knows others)."""
    return re.findall(rb"[^\n]*\n|[^\n]+\Z", raw)


def rewrite_md5sums(raw: bytes, removed: Collection[str], changed: Mapping[str, str]) -> bytes:
    """A .md5sums file without the lines of `removed`, and with new sums (32 hex digits) in those of `changed`.

    Paths are as written there: no leading `/`. Lines are `sum`, two spaces, path.
    """
    lines = []
    for line in _lines(raw):
        digest, spaces, name = line.rstrip(b"\n").partition(b"  ")
        path = name.decode("utf-8", "surrogateescape").removeprefix("./")
        if spaces and path in removed:
            continue
        if spaces and path in changed:
            line = changed[path].encode("ascii") + line[len(digest) :]  # noqa: PLW2901
        lines.append(line)
    return b"".join(lines)
