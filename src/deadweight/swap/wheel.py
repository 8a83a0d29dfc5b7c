"""A wheel as it is installed: its files with their hashes, all of them checked.

The format is https://packaging.python.org/en/latest/specifications/binary-distribution-format/. Wheels are hostile:
names, sizes and hashes are checked before anything of them goes into an image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.tags import Tag
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

from deadweight.errors import BadInputError, shown
from deadweight.files.archive import Archive, Member, open_archive
from deadweight.files.records import encode_hash
from deadweight.files.wheels import SIGNATURES, wheel_name
from deadweight.image.bytes import open_file
from deadweight.ledger.python import parse_headers, read_entry_points
from deadweight.ledger.record import read_record, record_hash

_METADATA_LIMIT: Final = 64 << 20
_UNPACKED_LIMIT: Final = 64 << 30
"""Bytes of a wheel's files: the largest of torch's are under 3 GB."""
_SITES: Final = ("purelib", "platlib")


@dataclass(frozen=True)
class WheelFile:
    """One file of a wheel."""

    path: str
    """Where it goes, below site-packages."""
    size: int
    sha256: str
    """As RECORD has it: urlsafe base64 without padding."""
    executable: bool
    member: Member


@dataclass(frozen=True)
class Wheel:
    """A wheel, checked."""

    place: Path
    file: str
    """Its name."""
    name: str
    """Canonical."""
    version: Version
    info: str
    """The metadata directory."""
    sha256: str
    """Of the wheel itself, in hex."""
    tags: frozenset[Tag]
    requires: tuple[str, ...]
    """Requires-Dist, as written."""
    entry_points: tuple[tuple[str, str, str], ...]
    """(group, name, value)."""
    files: Mapping[str, WheelFile]
    """By path below site-packages, in the order of RECORD, which is not among them itself."""
    archive: Archive

    def chunks(self, file: WheelFile) -> Iterator[bytes]:
        """A file's content, held to its size and hash. Raises BadInputError."""
        digest, size = hashlib.sha256(), 0
        for chunk in self.archive.chunks(file.member):
            digest.update(chunk)
            size += len(chunk)
            yield chunk
        if size != file.size or encode_hash(digest.digest()) != file.sha256:
            raise BadInputError(f"{shown(file.path)} in {shown(self.file)} is not what its RECORD says of it")


def open_wheel(path: Path, resources: ExitStack) -> Wheel:
    """Opens a wheel, which `resources` closes. Its contents are held to RECORD when they are read.

    Raises BadInputError for what is none, and for what cannot be installed into an image as it is: scripts, headers
    and data that go elsewhere than into site-packages.
    """
    archive = open_archive(path, resources)
    members = {member.name: member for member in archive.members if not member.name.endswith("/")}
    named = wheel_name(path.name, list(members))
    if sum(member.info.file_size for member in members.values()) > _UNPACKED_LIMIT:
        raise BadInputError(f"{shown(named.file)} unpacks to more than {_UNPACKED_LIMIT:,} bytes")
    headers = parse_headers(_read(archive, members, f"{named.info}/METADATA", named.file))
    name = str(canonicalize_name(headers.get("name", [""])[0]))
    stated = headers.get("version", [""])[0]
    tags = parse_wheel_filename(named.file)[3]
    if name != parse_wheel_filename(named.file)[0] or stated != str(named.version):
        raise BadInputError(f"the METADATA of {shown(named.file)} is of {shown(f'{name} {stated}')}")
    points = f"{named.info}/entry_points.txt"
    text = _read(archive, members, points, named.file).decode("utf-8", "replace") if points in members else ""
    with ExitStack() as reading:
        digest = hashlib.sha256()
        for chunk in open_file(path, reading).chunks():
            digest.update(chunk)
    return Wheel(
        place=path,
        file=named.file,
        name=name,
        version=named.version,
        info=named.info,
        sha256=digest.hexdigest(),
        tags=tags,
        requires=tuple(headers.get("requires_dist", [])),
        entry_points=tuple(read_entry_points(text)),
        files=_files(archive, members, named.info, named.data, named.file),
        archive=archive,
    )


def _read(archive: Archive, members: Mapping[str, Member], name: str, file: str) -> bytes:
    member = members.get(name)
    if member is None:
        raise BadInputError(f"{shown(file)} has no {shown(name)}")
    if member.info.file_size > _METADATA_LIMIT:
        raise BadInputError(
            f"{shown(name)} in {shown(file)} has {member.info.file_size:,} bytes, which cannot be meant"
        )
    return b"".join(archive.chunks(member))


def _files(archive: Archive, members: Mapping[str, Member], info: str, data: str, file: str) -> dict[str, WheelFile]:
    record = f"{info}/RECORD"
    raw = _read(archive, members, record, file)
    hashes = record_hash(raw)
    found: dict[str, WheelFile] = {}
    own = {record, *(f"{info}/{name}" for name in SIGNATURES)}
    for line in read_record(raw):
        if not line.name or line.name in own:
            continue
        member = members.get(line.name)
        algorithm, digest, size = hashes.get(line.name, ("", "", 0))
        if member is None or algorithm != "sha256" or size != member.info.file_size:
            what = "is not in it" if member is None else "has no sha256 there, or another size"
            raise BadInputError(f"the RECORD of {shown(file)} lists {shown(line.name)}, which {what}")
        path = _place(line.name, data, file)
        _check_place(path, info, file)
        if path in found:
            raise BadInputError(f"{shown(file)} has {shown(path)} twice")
        found[path] = WheelFile(path, size, digest, bool(member.info.external_attr >> 16 & 0o111), member)
    listed = {one.member.name for one in found.values()} | own
    unlisted = next((name for name in members if name not in listed), None)
    if unlisted is not None:
        raise BadInputError(f"the RECORD of {shown(file)} does not list {shown(unlisted)}")
    return found


def _check_place(path: str, info: str, file: str) -> None:
    """Raises BadInputError for a name that means something else in a layer, and for another distribution's metadata."""
    if any(part.startswith(".wh.") for part in path.split("/")):
        raise BadInputError(f"{shown(file)} has {shown(path)}: in an image's layer such a name deletes what it names")
    top = path.partition("/")[0]
    if top.endswith((".dist-info", ".egg-info")) and top != info:
        raise BadInputError(f"{shown(file)} has {shown(path)}, which is of another distribution")


def _place(name: str, data: str, file: str) -> str:
    """Where a member goes, below site-packages."""
    if not name.startswith(f"{data}/"):
        return name
    kind, _, rest = name[len(data) + 1 :].partition("/")
    if kind not in _SITES or not rest:
        raise BadInputError(
            f"{shown(file)} has {shown(name)}: what goes elsewhere than into site-packages (scripts, headers, data) "
            "cannot be swapped; take a wheel without"
        )
    return rest
