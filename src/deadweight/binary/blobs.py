"""Finds GPU code outside the sections for it: fatbins and cubins in data that libraries of NVIDIA pick from themselves.

cublasLt and cusparseLt keep fatbins of zstd in a FlatBuffer (`.cask_resource`), cublasLt cubins without any container,
each a zstd frame (`.ldata`), cufft thousands of tiny fatbins (`.ldata`), others plain cubins in `.rodata`. Nothing
points at them in a way that could be followed: they are found by how they begin, and believed only if all of it fits.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from deadweight.binary import elf as elf_format
from deadweight.binary.elf import SHF_EXECINSTR, Elf, ElfError, Section, exactly
from deadweight.binary.fatbin import (
    CUBIN,
    FLAG_A,
    FLAG_ZSTD,
    MAGIC_BYTES,
    MAX_SECTION_ENTRIES,
    Entry,
    Fatbin,
    FatbinError,
    parse_fatbin,
)
from deadweight.binary.gpu import Target, select
from deadweight.image.content import Reader

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_CUBIN_MAGIC: Final = b"\x7fELF\x02\x01\x01"
_ABI_OLD, _ABI_NEW = 0x33, 0x41  # EI_OSABI of cubins; from sm_100 on the second
_ACCELERATED: Final = {_ABI_OLD: 0x800, _ABI_NEW: 0x8}  # in e_flags: the `a` of sm_90a
_WINDOW: Final = 1 << 20
_LONGEST_MAGIC: Final = max(map(len, (MAGIC_BYTES, _ZSTD_MAGIC, _CUBIN_MAGIC)))
_Parser = Callable[[Reader, int, int], Fatbin | None]
"""(reader, offset, end of the section) -> the blob that begins there, if one does."""
_HEAD: Final = 64 << 10  # of a zstd frame: enough for the ELF header inside
_MAX_CUBIN: Final = 256 << 20
_BETWEEN: Final = 64  # bytes of lengths and padding between two blobs
_MAX_BLOCKS: Final = 4096  # of a zstd frame: each but the last has 128 KiB
_MAX_MISSES: Final = 30  # of a file: beginnings that turned out to be none, after 0.1 s each at worst; one was seen
_MAX_BLOBS: Final = 1 << 18  # of a file; the most that was seen are 23,531
MIN_SECTION: Final = 4096
"""Bytes: smaller sections are not searched."""


def foreign_runs(read: Reader, elf: Elf, target: Target, besides: frozenset[str]) -> list[tuple[int, int]]:
    """Ranges of the file, rising, that hold nothing but blobs for GPUs that are not declared.

    With the few bytes between them, which say how long the next one is. ElfError where the file is damaged.
    """
    runs: list[tuple[int, int]] = []
    last: str | None = None  # the section of the blob before, if that was foreign
    for section, blob in find_blobs(read, elf, besides):
        foreign = not select(blob.entries, target)
        if foreign and last == section.name and blob.offset - runs[-1][1] <= _BETWEEN:
            runs[-1] = runs[-1][0], blob.end
        elif foreign:
            runs.append((blob.offset, blob.end))
        last = section.name if foreign else None
    return runs


def find_blobs(read: Reader, elf: Elf, besides: frozenset[str]) -> Iterator[tuple[Section, Fatbin]]:
    """GPU code in allocated data sections, but for those named in `besides`, rising in each section.

    Cubins without container come as fatbins of one entry, without headers. A file that is full of what looks like GPU
    code and is none is not searched to its end. ElfError where the file is damaged.
    """
    if sum(section.file_size for section in elf.sections if section.allocated) > elf.size:
        raise ElfError("sections that overlap")
    misses = blobs = 0
    for section in elf.sections:
        if not section.allocated or section.flags & SHF_EXECINSTR or section.file_size < MIN_SECTION:
            continue
        if section.name not in besides:
            for fatbin in _search(read, section.offset, section.end, _PARSERS):
                if fatbin is not None:
                    yield section, fatbin
                    blobs += 1
                else:
                    misses += 1
                if misses > _MAX_MISSES or blobs > _MAX_BLOBS:
                    return


def find_fatbins(read: Reader, start: int, end: int) -> Iterator[Fatbin]:
    """The fatbins in a range of a file, rising. ElfError where too much of it only begins like one."""
    misses = entries = 0
    for fatbin in _search(read, start, end, _PARSERS[:1]):
        if fatbin is not None:
            yield fatbin
            entries += len(fatbin.entries)
        else:
            misses += 1
        if misses > _MAX_MISSES or entries > MAX_SECTION_ENTRIES:
            raise ElfError("too much that begins like a fatbin")


def _search(read: Reader, start: int, end: int, parsers: Sequence[tuple[bytes, _Parser]]) -> Iterator[Fatbin | None]:
    """What begins like GPU code in a range: that code, or None where it is none."""
    at = start
    likely = 0  # what was found last: mostly more of it follows, and the others are not searched for beyond that
    while at < end:
        window = exactly(read, at, min(_WINDOW + _LONGEST_MAGIC - 1, end - at))
        limit = min(_WINDOW, len(window))
        done = 0
        free = [0] * len(parsers)  # no byte is searched twice for one magic: up to here there is none, or it is here
        while done < limit:
            index, number = limit, -1
            for each in (likely, *range(likely), *range(likely + 1, len(parsers))):
                magic = parsers[each][0]
                first = max(done, free[each])
                found = window.find(magic, first, index + len(magic) - 1) if first < index else -1
                free[each] = max(first, index) if found < 0 else found
                if found >= 0:
                    index, number = found, each
            if number < 0:
                break
            likely = number
            blob = parsers[number][1](read, at + index, end)
            yield blob
            done = index + 1 if blob is None else blob.end - at
        at += max(_WINDOW, done)


def _fatbin(read: Reader, at: int, end: int) -> Fatbin | None:
    try:
        fatbin = parse_fatbin(read, at, end)
    except FatbinError:
        return None
    return fatbin if fatbin.entries else None


def _frame(read: Reader, at: int, end: int) -> Fatbin | None:
    """A zstd frame with a cubin in it."""
    size = _frame_size(read, at, end)
    if size is None:
        return None
    data = exactly(read, at, min(_HEAD, size))
    try:
        inside = zstd.ZstdDecompressor().decompress(data, max_length=elf_format.HEADER.size)
    except zstd.ZstdError:
        return None
    known = architecture(inside)
    if known is None:
        return None
    return _alone(at, size, known[0], known[1] | FLAG_ZSTD, compressed=size)


def _cubin(read: Reader, at: int, end: int) -> Fatbin | None:
    """A plain cubin; it ends with its headers' tables, or with the last section."""
    known = architecture(exactly(read, at, min(elf_format.HEADER.size, end - at)))
    if known is None:
        return None
    try:
        inside = elf_format.parse(lambda offset, length: read(at + offset, min(length, end - at - offset)), end - at)
    except elf_format.ElfError:
        return None
    ends = [section.end for section in inside.sections if section.file_size]
    ends.append(inside.shoff + len(inside.sections) * elf_format.SECTION_HEADER.size)
    ends.append(inside.phoff + len(inside.program_headers) * elf_format.PROGRAM_HEADER.size)
    return _alone(at, max(ends), *known, compressed=0)


def _alone(at: int, size: int, sm: int, flags: int, compressed: int) -> Fatbin | None:
    if size > _MAX_CUBIN:
        return None
    return Fatbin(at, size, (Entry(at, CUBIN, sm, flags, 0, size, compressed, 0),))


def architecture(head: bytes) -> tuple[int, int] | None:
    """A cubin's sm number and variant flag, given its ELF header; None for anything else."""
    if len(head) < elf_format.HEADER.size or not head.startswith(_CUBIN_MAGIC):
        return None
    (abi,) = head[7:8]
    machine, flags = struct.unpack_from("<18xH28xI", head)
    if machine != elf_format.EM_CUDA or abi not in _ACCELERATED:
        return None
    sm = flags & 0xFF if abi == _ABI_OLD else flags >> 8 & 0xFF
    return sm, FLAG_A if flags & _ACCELERATED[abi] else 0


def _frame_size(read: Reader, at: int, end: int) -> int | None:
    """The bytes of a zstd frame, by its blocks' headers (RFC 8878, section 3.1.1)."""
    descriptor = exactly(read, at + 4, 1)[0]
    single = descriptor >> 5 & 1
    content = (single, 2, 4, 8)[descriptor >> 6]
    here = at + 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3] + content
    for _ in range(_MAX_BLOCKS):
        if here + 3 > end:
            return None
        header = int.from_bytes(exactly(read, here, 3), "little")
        kind, length = header >> 1 & 3, header >> 3
        if kind == 3:
            return None
        here += 3 + (1 if kind == 1 else length)
        if header & 1:
            here += 4 if descriptor & 4 else 0
            return here - at if here <= end else None
    return None


_PARSERS: Final = ((MAGIC_BYTES, _fatbin), (_ZSTD_MAGIC, _frame), (_CUBIN_MAGIC, _cubin))
