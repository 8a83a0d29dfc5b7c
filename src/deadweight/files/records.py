"""RECORD files of a live tree, kept true: the lines of changed files get their new hash and size, all others stay.

A line that did not match its file before is not made to match: somebody else has changed that file.

RECORD files follow the files they list, so a run that is killed in between would leave lines that no longer match,
for no reason that a later run could see. Hence the journal: before a listed file is replaced, a line with its old and
its new hash goes there, and the next run brings the lines of those up to date whose file is the new one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from deadweight.decoding import from_values
from deadweight.errors import EnvironmentFailure
from deadweight.files.replace import changing, remove, replace_content
from deadweight.ledger.listed import join
from deadweight.ledger.record import read_record, rewrite_record

JOURNAL: Final = ".deadweight-prune.journal"
ALGORITHMS: Final = frozenset({"sha256", "sha384", "sha512"})
"""Those that the specification of RECORD has files listed with."""


class Listed(NamedTuple):
    """One line of a RECORD that is about a file of interest; fields as written, empty where they are missing."""

    record: str
    """The path of the RECORD."""
    name: str
    hash: str
    """`algorithm=value`."""
    size: str

    @property
    def algorithm(self) -> str:
        return self.hash.partition("=")[0]

    @property
    def distribution(self) -> str:
        """The name in the metadata directory's: `torch` of torch-2.9.0.dist-info."""
        return self.record.split("/")[-2].removesuffix(".dist-info").partition("-")[0]


class Change(msgspec.Struct, frozen=True):
    """One file's content before and after."""

    path: str
    """Absolute, or in the journal relative to its directory."""
    before: dict[str, str]
    """Hashes by algorithm, each as RECORD has it: urlsafe base64 without padding."""
    before_bytes: int
    sha256: str
    after_bytes: int


def encode_hash(digest: bytes) -> str:
    """A digest as RECORD has it."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def read_listing(records: Iterable[str], wanted: Collection[str]) -> dict[str, list[Listed]]:
    """For each wanted file, the RECORD lines about it; paths are absolute and free of links.

    What a RECORD lists by way of a linked directory (`../../../lib64/x`) is found where it really is.
    """
    found: dict[str, list[Listed]] = {}
    folders: dict[str, str] = {}
    for record in records:
        site = str(Path(record).parent.parent)
        for line in read_record(_read(record)):
            joined = join(site.strip("/"), line.name) if line.name and "\0" not in line.name else None
            if joined is None:
                continue
            path = f"/{joined}"
            if path not in wanted:
                folder, _, base = path.rpartition("/")
                if folder not in folders:
                    folders[folder] = os.path.realpath(folder or "/")
                path = f"{folders[folder].rstrip('/')}/{base}"
            if path in wanted:
                found.setdefault(path, []).append(Listed(record, line.name, line.hash, line.size))
    return found


def _read(path: str) -> bytes:
    with suppress(OSError):
        return Path(path).read_bytes()
    return b""


def update_records(listing: Mapping[str, Iterable[Listed]], changes: Iterable[Change]) -> list[str]:
    """Brings RECORD lines up to date; gives the paths of files whose line did not match them before.

    EnvironmentFailure where a RECORD cannot be replaced; those that come after it are still tried.
    """
    new: dict[str, dict[str, tuple[str, int]]] = {}
    mismatched = []
    for change in changes:
        for line in listing.get(change.path, ()):
            algorithm, _, value = line.hash.partition("=")
            same = not line.hash or change.before.get(algorithm) == value
            if same and line.size in ("", str(change.before_bytes)):
                new.setdefault(line.record, {})[line.name] = change.sha256, change.after_bytes
            elif line.hash != f"sha256={change.sha256}":
                mismatched.append(change.path)
    failed: EnvironmentFailure | None = None
    for record, lines in new.items():
        try:
            with changing(record):
                raw = Path(record).read_bytes()
            data = rewrite_record(raw, (), lines)
            if data != raw:
                replace_content(record, data)
        except EnvironmentFailure as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return sorted(set(mismatched))


# --- the journal ---------------------------------------------------------------------------------------


def add_to_journal(root: str, changes: Iterable[Change]) -> None:
    """Notes what is about to change. EnvironmentFailure where that cannot be done."""
    journal = Path(root, JOURNAL)
    lines = []
    for change in changes:
        relative = msgspec.structs.replace(change, path=os.path.relpath(change.path, root))
        lines.append(json.dumps(msgspec.to_builtins(relative)) + "\n")  # unlike msgspec's, for names that are no UTF-8
    with changing(str(journal)):
        fd = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "ab") as file:
            file.write("".join(lines).encode("ascii"))


def read_journal(root: str, wanted: Collection[str]) -> list[Change]:
    """What a run that was killed noted about files of interest, as far as it came to pass: they are what is noted."""
    found = []
    for line in _read(str(Path(root, JOURNAL))).splitlines():
        with suppress(ValueError, OSError):  # its last line may be half of one
            noted = from_values(json.loads(line), Change)
            change = msgspec.structs.replace(noted, path=str(Path(root, noted.path)))
            if change.path in wanted and _digest(change.path) == (change.sha256, change.after_bytes):
                found.append(change)
    return found


def _digest(path: str) -> tuple[str, int]:
    with Path(path).open("rb") as file:
        return encode_hash(hashlib.file_digest(file, "sha256").digest()), file.tell()


def remove_journal(root: str) -> None:
    """All RECORD files are up to date."""
    remove([str(Path(root, JOURNAL))])
