"""Zip archives, read with distrust and written member by member; what is not changed is copied as it is stored.

The format is PKWARE's APPNOTE.TXT, of which wheels use two methods: stored and deflated. The standard library reads
the directory and unpacks; it cannot copy a member without packing it again, so writing is done here.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from deadweight.errors import BadInputError, shown
from deadweight.image.bytes import CHUNK, ByteRange, open_file

MAX_MEMBERS: Final = 1 << 20
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64: Final = struct.Struct("<4sIQI")
_DESCRIPTOR, _UTF8 = 0x8, 0x800
_ZIP64: Final = 1
_MOST32: int = 0xFFFFFFFF
_MOST16: int = 0xFFFF
_SLACK: Final = 1 << 16  # what deflating may add to what does not get smaller, at the sizes where it matters
_DRIVE: Final = re.compile(r"[A-Za-z]:")


class Member(NamedTuple):
    """One member of an archive."""

    info: zipfile.ZipInfo
    name: str
    stored: ByteRange
    """Its bytes in the archive, deflated or not."""
    local_extra: bytes
    """The extra fields in front of its content, less those about sizes; `info.extra` has the directory's."""


@dataclass(frozen=True)
class Archive:
    """An archive that was read."""

    members: tuple[Member, ...]
    comment: bytes
    _file: zipfile.ZipFile

    def chunks(self, member: Member) -> Iterator[bytes]:
        """A member's content. BadInputError where it is damaged."""
        with _refusing(member.name), self._file.open(member.info) as file:
            while data := file.read(CHUNK):
                yield data


class NewMember(NamedTuple):
    """A member to be written."""

    member: Member
    """What it was: all but name and content stay."""
    name: str
    content: Callable[[], Iterable[bytes]] | None
    """Its new content; None: the old one."""
    size: int
    """Bytes of the new content."""


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turns what the standard library says of damaged archives into a BadInputError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BadInputError(f"{shown(name)} is damaged: {error}") from None


def open_archive(path: Path, resources: ExitStack) -> Archive:
    """Reads the directory of an archive, which `resources` closes.

    BadInputError for what is none, and for members that lie about their places or that no unpacker should unpack:
    names that lead elsewhere, two of one name, methods that wheels do not have.
    """
    source = open_file(path, resources)
    with _refusing(str(path)):
        file = resources.enter_context(zipfile.ZipFile(BufferedReader(source.raw(), CHUNK)))
    infos = file.infolist()
    if len(infos) > MAX_MEMBERS:
        raise BadInputError(f"{shown(str(path))} has {len(infos):,} members, more than {MAX_MEMBERS:,}")
    members = [_member(info, source) for info in infos]
    check_names([member.name for member in members])
    ranges = sorted((m.info.header_offset, m.stored.start + m.stored.size) for m in members)
    for one, other in pairwise(ranges):
        if one[1] > other[0]:
            raise BadInputError(f"{shown(str(path))} has members that overlap")
    return Archive(tuple(members), file.comment, file)


def _member(info: zipfile.ZipInfo, source: ByteRange) -> Member:
    where = shown(info.orig_filename)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadInputError(f"the member {where} is compressed by method {info.compress_type}; wheels are deflated")
    header = source.read_at(info.header_offset, _LOCAL.size)
    if len(header) < _LOCAL.size:
        raise BadInputError(f"the member {where} lies outside the archive")
    *_, name_length, extra_length = _LOCAL.unpack(header)
    behind = info.header_offset + _LOCAL.size + name_length
    extra = source.read_at(behind, extra_length)
    stored = source.window(behind + extra_length, info.compress_size)
    return Member(info, info.orig_filename, stored, _without_sizes(extra))


def check_names(names: Iterable[str]) -> None:
    """BadInputError unless all names lie below where the archive is unpacked, and differ."""
    seen = set()
    for name in names:
        plain = name.removesuffix("/")
        parts = plain.split("/")
        if "\\" in name or "\0" in name or _DRIVE.match(name) or any(part in ("", ".", "..") for part in parts):
            raise BadInputError(f"the member {shown(name)} has a name that no wheel should have")
        if plain in seen:
            raise BadInputError(f"there are two members {shown(plain)}")
        seen.add(plain)


def _without_sizes(extra: bytes) -> bytes:
    """Extra fields less those of zip64; what is no extra field ends them."""
    kept = b""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind != _ZIP64 and 4 + length <= len(extra):
            kept += extra[: 4 + length]
        extra = extra[4 + length :]
    return kept


# --- writing -------------------------------------------------------------------------------------------


def write_archive(file: BinaryIO, members: Iterable[NewMember], comment: bytes) -> None:
    """Writes an archive; the same members give the same bytes."""
    directory = []
    for new in members:
        offset = file.tell()
        crc, stored, size = _write_member(file, new)
        directory.append(_central(new, offset, crc, stored, size))
    start = file.tell()
    file.writelines(directory)
    _write_end(file, start, len(directory), comment)


def _write_member(file: BinaryIO, new: NewMember) -> tuple[int, int, int]:
    """Writes a member; gives its CRC, and its bytes stored and unpacked."""
    info = new.member.info
    if new.content is None:
        crc, stored, size = info.CRC, info.compress_size, info.file_size
        file.write(_local(new, crc, stored, size, max(stored, size) >= _MOST32))
        file.writelines(new.member.stored.chunks())
        return crc, stored, size
    # Its sizes are known behind it; the place for them must be as long as they can become.
    large = new.size + _SLACK >= _MOST32
    offset = file.tell()
    file.write(_local(new, 0, 0, 0, large))
    begin = file.tell()
    deflate = zlib.compressobj(wbits=-15) if info.compress_type == zipfile.ZIP_DEFLATED else None
    crc = size = 0
    for chunk in new.content():
        crc = zlib.crc32(chunk, crc)
        size += len(chunk)
        file.write(chunk if deflate is None else deflate.compress(chunk))
    if deflate is not None:
        file.write(deflate.flush())
    end = file.tell()
    file.seek(offset)
    file.write(_local(new, crc, end - begin, size, large))
    file.seek(end)
    return crc, end - begin, size


def _local(new: NewMember, crc: int, stored: int, size: int, large: bool) -> bytes:
    name, flags = _name(new)
    extra = new.member.local_extra
    if large:
        extra = struct.pack("<2H2Q", _ZIP64, 16, size, stored) + extra
        stored = size = 0xFFFFFFFF
    info = new.member.info
    head = (b"PK\3\4", 45 if large else 20, flags, info.compress_type, *_time(info), crc, stored, size)
    return _LOCAL.pack(*head, len(name), len(extra)) + name + extra


def _central(new: NewMember, offset: int, crc: int, stored: int, size: int) -> bytes:
    name, flags = _name(new)
    info, extra = new.member.info, _without_sizes(new.member.info.extra)
    large = b"".join(struct.pack("<Q", value) for value in (size, stored, offset) if value >= _MOST32)
    if large:
        extra = struct.pack("<2H", _ZIP64, len(large)) + large + extra
        size, stored, offset = (0xFFFFFFFF if value >= _MOST32 else value for value in (size, stored, offset))
    made_by = info.create_version | info.create_system << 8
    head = (b"PK\1\2", made_by, 45 if large else 20, flags, info.compress_type, *_time(info), crc, stored, size)
    lengths = len(name), len(extra), len(info.comment)
    return (
        _CENTRAL.pack(*head, *lengths, 0, info.internal_attr, info.external_attr, offset) + name + extra + info.comment
    )


def _name(new: NewMember) -> tuple[bytes, int]:
    """The name as it is stored, and the flags, of which one says how."""
    flags = new.member.info.flag_bits & ~_DESCRIPTOR
    return new.name.encode("utf-8" if flags & _UTF8 else "cp437"), flags


def _time(info: zipfile.ZipInfo) -> tuple[int, int]:
    """Time and date as MS-DOS has them."""
    year, month, day, hour, minute, second = info.date_time
    return hour << 11 | minute << 5 | second // 2, (year - 1980) << 9 | month << 5 | day


def _write_end(file: BinaryIO, start: int, count: int, comment: bytes) -> None:
    end = file.tell()
    if count >= _MOST16 or end >= _MOST32:
        size = _END64.size - 12  # of what follows this field
        file.write(_END64.pack(b"PK\6\6", size, 45, 45, 0, 0, count, count, end - start, start))
        file.write(_LOCATOR64.pack(b"PK\6\7", 0, end, 1))
    few, length, place = min(count, 0xFFFF), min(end - start, 0xFFFFFFFF), min(start, 0xFFFFFFFF)
    if count >= _MOST16 or end >= _MOST32:
        few, length, place = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
    file.write(_END.pack(b"PK\5\6", 0, 0, few, few, length, place, len(comment)) + comment)
