r"""RECORD, the list of a distribution's files: read, and rewritten with all untouched lines as they are.

The format: https://packaging.python.org/en/latest/specifications/recording-installed-packages/, a CSV file of
name, hash (`algorithm=urlsafe base64 without padding`) and size. Names are keys here exactly as parsed, so that
what is removed is what is meant.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from deadweight.ledger.listed import join

_FIELD = re.compile(rb'"(?:[^"]|"")*"|[^,]*')


class RecordLine(NamedTuple):
    """One line: its bytes, line end included, and its fields (empty where they are missing)."""

    raw: bytes
    name: str
    hash: str
    size: str


def read_record(raw: bytes) -> list[RecordLine]:
    """The lines of a RECORD, in order. Joining their `raw` gives the file. Never fails: what is no CSV has no name."""
    lines: list[RecordLine] = []
    pending: list[bytes] = []
    for part in raw.split(b"\n"):
        # A quoted name may hold a line end: a line that opens with a quote goes on until its quotes are even.
        odd = part.count(b'"') % 2 == 1
        if pending or (odd and part.startswith(b'"')):
            pending.append(part)
            if len(pending) == 1 or not odd:
                continue
            part = b"\n".join(pending)  # noqa: PLW2901
            pending = []
        lines.append(_line(part + b"\n"))
    if pending:
        lines.append(RecordLine(b"\n".join(pending) + b"\n", "", "", ""))
    last = lines.pop()  # split() gives a piece more than there are line ends
    if last.raw != b"\n":
        lines.append(last._replace(raw=last.raw[:-1]))
    return lines


def _line(raw: bytes) -> RecordLine:
    text = raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
    if '"' in text:
        try:
            rows = list(csv.reader([text]))
        except csv.Error:
            rows = []
        fields = rows[0] if len(rows) == 1 else []
    else:
        fields = text.split(",")
    name, digest, size = [*fields, "", "", ""][:3]
    return RecordLine(raw, name, digest, size)


def record_names(raw: bytes) -> list[str]:
    """The names that a RECORD lists, in order, as `read_record` has them; empty ones are left out."""
    if b'"' in raw:
        return [line.name for line in read_record(raw) if line.name]
    lines = raw.decode("utf-8", "surrogateescape").split("\n")
    names = [line.partition(",")[0] if "," in line else line.rstrip("\r") for line in lines]
    return list(filter(None, names))


def record_paths(raw: bytes, site: str) -> dict[str, str]:
    """For each image path that a RECORD in `site` lists, the name as written. Paths out of the image are left out."""
    paths = {}
    for name in record_names(raw):
        path = join(site, name)
        if path is not None:
            paths[path] = name
    return paths


def record_hash(raw: bytes, names: Collection[str] | None = None) -> dict[str, tuple[str, str, int]]:
    """For each name (of `names`, if given) with a hash and a size: (algorithm, hash as written, size in bytes)."""
    if names is not None and b'"' not in raw:
        wanted = set(map(_encoded, names))
        raw = b"\n".join(line for line in raw.split(b"\n") if line.partition(b",")[0] in wanted)
    hashes = {}
    for line in read_record(raw):
        algorithm, equals, value = line.hash.partition("=")
        if line.name and equals and line.size.isascii() and line.size.isdigit() and len(line.size) < 20:
            hashes[line.name] = (algorithm, value, int(line.size))
    return hashes


def rewrite_record(raw: bytes, removed: Collection[str], changed: Mapping[str, tuple[str, int]]) -> bytes:
    """A RECORD without the lines of `removed`, and with new (sha256, size) in the lines of `changed`.

    Names are as `read_record` gives them; a sha256 is urlsafe base64 without padding. A field that was empty stays
    empty (RECORD's own line has no hash); all other lines stay as they are to the byte.
    """
    if b'"' not in raw:
        return _rewrite_plain(raw, set(map(_encoded, removed)), {_encoded(name): new for name, new in changed.items()})
    kept = []
    for line in read_record(raw):
        if line.name and line.name in removed:
            continue
        new = changed.get(line.name) if line.name else None
        kept.append(line.raw if new is None else _changed(line, *new))
    return b"".join(kept)


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _rewrite_plain(raw: bytes, removed: Collection[bytes], changed: Mapping[bytes, tuple[str, int]]) -> bytes:
    """As `rewrite_record`, where nothing is quoted: most files are so, and some have ten thousand lines."""
    kept = []
    *lines, last = raw.split(b"\n")
    for line in [*(line + b"\n" for line in lines), last]:
        name = line.partition(b",")[0] if b"," in line else line.rstrip(b"\r\n")
        if not name or name not in removed:
            new = changed.get(name) if name else None
            kept.append(line if new is None else _changed(_line(line), *new))
    return b"".join(kept)


def _changed(line: RecordLine, sha256: str, size: int) -> bytes:
    body = line.raw.rstrip(b"\r\n")
    end = line.raw[len(body) :]
    name = _FIELD.match(body)
    assert name is not None  # the pattern matches the empty string
    rest = body[name.end() :].split(b",")  # the comma after the name comes first: ["", hash, size, ...]
    if line.hash:
        rest[1] = b"sha256=" + sha256.encode("ascii")
    if line.size:
        rest[2] = b"%d" % size
    return name.group() + b",".join(rest) + end
