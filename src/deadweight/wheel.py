"""Makes smaller wheels for a private index: without GPU code that no declared GPU runs, symbols, and leftovers.

    slim_wheel(Path("torch-2.9.0-cp312-cp312-manylinux_2_28_x86_64.whl"), Target((90,)), Path("index"))

The version gets a label that says which GPUs were kept, and RECORD is true of what is in the wheel. All other members
are copied as they are stored: the same bytes, order, modes and times. Two runs give the same wheel.
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, BinaryIO, Final

import msgspec

from deadweight.binary.elf import HEADER, is_elf
from deadweight.binary.fixed import fixed_reason
from deadweight.binary.gpu import Target
from deadweight.binary.target_document import gpu_names
from deadweight.errors import BadInputError, EnvironmentFailure, UsageError, shown
from deadweight.files.account import LeftFile, PrunedFile
from deadweight.files.archive import Archive, Member, NewMember, check_names, open_archive, write_archive
from deadweight.files.records import ALGORITHMS, encode_hash
from deadweight.files.smaller import CheckFailed, check_rewritten, make_smaller
from deadweight.files.wheels import (
    SIGNATURES,
    WheelName,
    labelled,
    rename_in_record,
    renamed,
    wheel_name,
    with_version,
)
from deadweight.image.bytes import ByteRange
from deadweight.image.transports.destination import check_folder, new_file, writing
from deadweight.ledger.reach import Reach, reach_notes
from deadweight.ledger.record import record_hash, rewrite_record

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and the bytes done and to be done."""
_METADATA_LIMIT: Final = 64 << 20


class SlimWheel(msgspec.Struct, frozen=True):
    """What became of a wheel. Sizes are bytes."""

    source: str
    wheel: str | None
    """The new wheel; null where nothing was to be dropped and none was written."""
    version: str
    """The new version."""
    gpus: list[str]
    """As sm_90; empty for machines without a GPU."""
    before_bytes: int
    """Of the wheel as a file."""
    after_bytes: int
    installed_before_bytes: int
    """Of all its members, unpacked."""
    installed_after_bytes: int
    gpu_code_bytes: int
    symbols_bytes: int
    files: list[PrunedFile]
    """What lost weight, most first."""
    left: list[LeftFile]
    notes: list[str]
    leftovers_bytes: int = 0


@dataclass
class _Found:
    """What the look at the members gave."""

    record: bytes
    metadata: bytes
    contents: dict[str, ByteRange] = field(default_factory=dict)
    """New contents of members, in a temporary file."""
    digests: dict[str, str] = field(default_factory=dict)
    """The sha256 of these, as RECORD has it."""
    files: list[PrunedFile] = field(default_factory=list)
    left: list[LeftFile] = field(default_factory=list)
    reach: dict[str, Reach] = field(default_factory=dict)
    """What declaring GPUs does not change, by member."""


def slim_wheel(
    path: Path,
    target: Target,
    directory: Path,
    *,
    symbols: bool = True,
    same_version: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> SlimWheel:
    """Writes a smaller wheel into `directory`, which is complete or absent; none where there is nothing to drop.

    Every member is read and held to RECORD on the way. `same_version` leaves the version and with it the file's name as
    they are; `force` replaces a wheel that is there.

    Raises BadInputError for what is no sound wheel, UsageError for a destination that cannot be meant and for GPUs that
    an earlier run has removed, EnvironmentFailure where the wheel cannot be written.
    """
    with ExitStack() as resources:
        archive = open_archive(path, resources)
        old = wheel_name(path.name, [member.name for member in archive.members])
        new = old if same_version else old.with_version(labelled(old.version, target.gpus))
        place = directory / new.file
        check_folder(place)
        if place.exists() and place.samefile(path):
            raise UsageError(f"{shown(str(place))} is an input, which never changes: choose another directory")
        if place.exists() and not force:  # new_file says the same, after all the work
            raise UsageError(f"{shown(str(place))} exists; remove it, choose another directory, or say --force")
        found = _Found(_read(archive, f"{old.info}/RECORD"), _read(archive, f"{old.info}/METADATA"))
        with writing(place):
            _look(archive, found, target, symbols, directory, resources, progress)
        signatures: list[str] = []
        if found.contents:
            members, signatures = _new_members(archive, old, new, found)
            with new_file(place, force=force) as file:
                write_archive(file, _told(members, progress), archive.comment)
                file.flush()
                _verify(file, members, found)
        return _result(path, place, new, target, archive, found, signatures)


def _read(archive: Archive, name: str) -> bytes:
    """A small member's content. BadInputError where there is none."""
    for member in archive.members:
        if member.name == name:
            if member.info.file_size > _METADATA_LIMIT:
                raise BadInputError(f"the wheel's {shown(name)} is larger than {_METADATA_LIMIT:,} bytes")
            return b"".join(archive.chunks(member))
    raise BadInputError(f"the wheel has no {shown(name)}")


# --- what leaves ---------------------------------------------------------------------------------------


def _look(
    archive: Archive,
    found: _Found,
    target: Target,
    symbols: bool,
    directory: Path,
    resources: ExitStack,
    progress: Progress | None,
) -> None:
    """Reads all members, holds them to RECORD, and keeps the new contents of those that lose weight."""
    hashes = record_hash(found.record)
    names = {member.name for member in archive.members}
    total, done = sum(member.info.file_size for member in archive.members), 0
    # Files without names: whatever happens, nothing of them stays.
    scratch = resources.enter_context(tempfile.TemporaryFile(dir=directory))
    contents = resources.enter_context(tempfile.TemporaryFile(dir=directory))
    for member in archive.members:
        name, size = member.name, member.info.file_size
        if name.endswith("/"):
            continue
        if _unpack(archive, member, hashes.get(name), scratch):
            fixed = fixed_reason(name, names.__contains__)
            if fixed is not None:
                found.left.append(LeftFile(name, size, "file", fixed))
            else:
                _shrink(name, ByteRange(scratch.fileno(), 0, size), contents, found, target, symbols)
        done += size
        if progress is not None:
            progress("reading", done, total)


def _unpack(archive: Archive, member: Member, stated: tuple[str, str, int] | None, scratch: IO[bytes]) -> bool:
    """Reads a member; whether it is a program or library, which is then in `scratch`.

    BadInputError where it is not what RECORD says it is.
    """
    algorithm, value, size = stated or ("", "", 0)
    digest = hashlib.new(algorithm) if algorithm in ALGORITHMS else None
    scratch.seek(0)
    scratch.truncate()
    program: bool | None = None
    done = 0
    for chunk in archive.chunks(member):
        if program is None:
            program = is_elf(chunk) and member.info.file_size >= HEADER.size
        if program:
            scratch.write(chunk)
        if digest is not None:
            digest.update(chunk)
        done += len(chunk)
    scratch.flush()
    if done != member.info.file_size or (digest is not None and (encode_hash(digest.digest()), done) != (value, size)):
        raise BadInputError(f"{shown(member.name)} is not what the wheel's RECORD says it is: get the wheel anew")
    return bool(program)


def _shrink(name: str, old: ByteRange, contents: IO[bytes], found: _Found, target: Target, symbols: bool) -> None:
    """Works out what a program or library loses, adds its new content to `contents`, and checks that."""
    smaller = make_smaller(old.read_at, old.size, target, symbols=symbols)
    found.left += [LeftFile(name, old.size, kept.what, kept.reason) for kept in smaller.kept]
    if smaller.reach is not None:
        found.reach[name] = smaller.reach
    content = smaller.content
    if content is None:
        return
    digest, start = hashlib.sha256(), contents.tell()
    for chunk in content.chunks(old):
        contents.write(chunk)
        digest.update(chunk)
    contents.flush()
    new = ByteRange(contents.fileno(), start, contents.tell() - start)
    try:
        check_rewritten(old.read_at, smaller, new.read_at, new.size, target)
    except CheckFailed as error:
        found.left.append(LeftFile(name, old.size, "file", str(error)))
        return
    found.contents[name] = new
    found.digests[name] = encode_hash(digest.digest())
    sizes = old.size, new.size, smaller.gpu_code, smaller.symbols
    found.files.append(PrunedFile(name, "", *sizes, [], leftovers_bytes=smaller.leftovers))


# --- the new wheel -------------------------------------------------------------------------------------


def _new_members(archive: Archive, old: WheelName, new: WheelName, found: _Found) -> tuple[list[NewMember], list[str]]:
    """The members of the new wheel, and the names of those that are left out: signatures of the old RECORD."""
    signatures = [m.name for m in archive.members if m.name in {f"{old.info}/{name}" for name in SIGNATURES}]
    small: dict[str, bytes] = {}
    changed = {renamed(name, old, new): (found.digests[name], found.contents[name].size) for name in found.contents}
    if new != old:
        metadata = small[f"{old.info}/METADATA"] = with_version(found.metadata, old.version, new.version)
        changed[f"{new.info}/METADATA"] = encode_hash(hashlib.sha256(metadata).digest()), len(metadata)
    record = rename_in_record(found.record, old, new)
    small[f"{old.info}/RECORD"] = rewrite_record(record, {renamed(name, old, new) for name in signatures}, changed)
    members = []
    for member in archive.members:
        name = member.name
        content: Callable[[], Iterable[bytes]] | None
        if name in signatures:
            continue
        if name in small:
            content, size = partial(iter, [small[name]]), len(small[name])
        elif name in found.contents:
            content, size = found.contents[name].chunks, found.contents[name].size
        else:
            content, size = None, member.info.file_size
        members.append(NewMember(member, renamed(name, old, new), content, size))
    check_names(each.name for each in members)
    return members, signatures


def _told(members: list[NewMember], progress: Progress | None) -> Iterator[NewMember]:
    """The members, and progress as they are taken."""
    total, done = sum(each.size for each in members), 0
    for each in members:
        yield each
        done += each.size
        if progress is not None:
            progress("writing", done, total)


def _verify(file: BinaryIO, members: list[NewMember], found: _Found) -> None:
    """Reads the new wheel as an installer would: the members that were to be there, with the contents they should have.

    EnvironmentFailure where it holds something else.
    """
    try:
        with zipfile.ZipFile(file) as written:
            same = written.namelist() == [each.name for each in members]
            for each in members:
                if each.member.name in found.digests:
                    with written.open(each.name) as content:
                        digest = hashlib.file_digest(content, "sha256").digest()  # type: ignore[arg-type]
                    same = same and encode_hash(digest) == found.digests[each.member.name]
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise EnvironmentFailure(f"the wheel that was written cannot be read: {error}; nothing stays of it") from None
    if not same:
        raise EnvironmentFailure("the wheel that was written holds something else than it should; nothing stays of it")


def _result(
    path: Path, place: Path, new: WheelName, target: Target, archive: Archive, found: _Found, signatures: list[str]
) -> SlimWheel:
    before = path.stat().st_size
    gpu_code = sum(file.gpu_code_bytes for file in found.files)
    gone = sum(file.symbols_bytes for file in found.files)
    leftovers = sum(file.leftovers_bytes for file in found.files)
    unpacked = sum(member.info.file_size for member in archive.members)
    return SlimWheel(
        str(path),
        str(place) if found.contents else None,
        str(new.version),
        list(gpu_names(target.gpus)),
        before,
        place.stat().st_size if found.contents else before,
        unpacked,
        unpacked - gpu_code - gone - leftovers,
        gpu_code,
        gone,
        sorted(found.files, key=lambda file: (file.after_bytes - file.before_bytes, file.path)),
        found.left,
        [
            *reach_notes(found.reach),
            *(f"{name} is left out: it is the signature of a RECORD that has changed" for name in signatures),
        ],
        leftovers,
    )
