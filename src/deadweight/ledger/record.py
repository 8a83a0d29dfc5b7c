r"""RECORD, the list of a distribution's files: read, and rewritten with all untouched lines as they are.

The format: https://packaging.python.org/en/latest/specifications/recording-installed-packages/, a CSV file of
name, hash (`algorithm=urlsafe base64 without padding`) and size. Names are keys here exactly as parsed, so that
what is removed is what is meant.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
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
    return [name for _, name in _named_lines(raw) if name]


def record_paths(raw: bytes, site: str) -> dict[str, str]:
    """For each image path that a RECORD in `site` lists, the name as written. Paths out of the image are left out."""
    return paths_of(record_names(raw), site)


def paths_of(names: Iterable[str], site: str) -> dict[str, str]:
    """As `record_paths`, where the names are known."""
    paths = {}
    for name in names:
        path = join(site, name)
        if path is not None:
            paths[path] = name
    return paths


def record_hash(raw: bytes, names: Collection[str] | None = None) -> dict[str, tuple[str, str, int]]:
    """For each name (of `names`, if given) with a hash and a size: (algorithm, hash as written, size in bytes)."""
    if names is not None:
        wanted = set(names)
        raw = b"".join(line for line, name in _named_lines(raw) if name in wanted)
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
    kept = []
    for line, name in _named_lines(raw):
        if name and name in removed:
            continue
        new = changed.get(name) if name else None
        kept.append(line if new is None else _changed(_line(line), *new))
    return b"".join(kept)


def _named_lines(raw: bytes) -> Iterator[tuple[bytes, str]]:
    """Each line, its end included, with its name; joining them gives the file."""
    if b'"' in raw:
        yield from ((line.raw, line.name) for line in read_record(raw))
        return
    # Most files quote nothing, some have ten thousand lines, and of most of these only the name matters.
    for line in io.BytesIO(raw):
        text = line.decode("utf-8", "surrogateescape")
        yield line, text.partition(",")[0] if "," in text else text.rstrip("\r\n")


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
