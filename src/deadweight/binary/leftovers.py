"""Takes out of programs and libraries what patchelf leaves behind when it moves sections: ranges filled with X or Z.

patchelf writes a longer .dynstr, .dynsym or .gnu.hash behind everything else, and marks where it was; the file goes on
carrying that, and loaders go on mapping it. Wheels that auditwheel has repaired have such ranges, of megabytes in all.
Whole pages of them leave the file, nothing moves in its address space (`relayout`), and a file for which that is not
certain stays as it is: `CannotCut` says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from deadweight.binary.elf import (
    ET_DYN,
    ET_EXEC,
    HEADER,
    PROGRAM_HEADER,
    PT_LOAD,
    SECTION_HEADER,
    Elf,
    ElfError,
    exactly,
    parse,
)
from deadweight.binary.layout_check import Shrunk, check_layout
from deadweight.binary.regions import Region, load_of, page_size
from deadweight.binary.relayout import cut
from deadweight.binary.segments import irregular
from deadweight.binary.shrink import CannotShrink, FatbinSection
from deadweight.binary.shrink_check import check_content
from deadweight.image.content import Content, Reader

NOTHING: Final = "nothing is left behind"
MIN_LEFTOVER: Final = 1 << 14
"""Bytes: fewer are not worth a mapping, each of which makes loading a library slower."""
MAX_LEFTOVERS: Final = 16
_PADDING: Final = 128  # zeros that alignment leaves around what was moved
_MARKS: Final = b"XZ"
_MAX_GAPS: Final = 64 << 20  # bytes that are read
_CHUNK: Final = 1 << 20


class CannotCut(ValueError):
    """The file stays as it is; the message is the reason, in one line."""


def drop_leftovers(read: Reader, size: int, machine: int) -> Content:
    """The file without what was left behind, for an image of that e_machine. CannotCut where it must stay as it is.

    Deterministic, and there is nothing left to do for a second time.
    """
    try:
        elf = parse(read, size)
        if elf.elf_type not in (ET_EXEC, ET_DYN) or not elf.sections:
            raise CannotCut(NOTHING)
        regions = leftovers(read, elf) if elf.machine == machine and irregular(elf) is None else []
        if not regions:
            raise CannotCut(NOTHING)
        dropped = cut(read, elf, regions, ())
        check_dropped(read, size, dropped.reader(read), dropped.size)
    except ElfError as error:
        raise CannotCut(str(error)) from error
    return dropped


def check_dropped(read_old: Reader, old_size: int, read_new: Reader, new_size: int) -> None:
    """CannotCut unless the new file is the old one without what was left behind: all other content at its addresses."""
    try:
        old, new = parse(read_old, old_size), parse(read_new, new_size)
        regions = leftovers(read_old, old)
        places = [load.vaddr - load.offset + region.start for region in regions for load in [load_of(old, region)]]
        # As sections that became empty.
        full = [
            FatbinSection("", -1, region.start, place, region.end - region.start, ())
            for region, place in zip(regions, places, strict=True)
        ]
        before = Shrunk(read_old, old, full, [])
        after = Shrunk(read_new, new, [one._replace(size=0) for one in full], [])
        check_content(before, after, check_layout(before, after, ()), ())
    except (ElfError, CannotShrink) as error:
        raise CannotCut(str(error)) from error


def leftovers(read: Reader, elf: Elf) -> list[Region]:
    """The ranges that were left behind, each inside one segment, of as many whole pages as are worth it.

    None has a byte of a section, a table of headers, or anything that a segment other than PT_LOAD is about.
    """
    unit = page_size(elf)
    # Each range can make one segment two, and the table of segments longer.
    known = [(0, HEADER.size), _table(elf.phoff, len(elf.program_headers) + MAX_LEFTOVERS, PROGRAM_HEADER.size)]
    known += [_table(elf.shoff, len(elf.sections), SECTION_HEADER.size)]
    known += [(section.offset, section.end) for section in elf.sections if section.file_size]
    known += [(p.offset, p.offset + p.filesz) for p in elf.program_headers if p.type != PT_LOAD and p.filesz]
    known.sort()
    found = []
    for load in elf.loads:
        for start, end in _between(known, load.offset, load.offset + load.filesz):
            if start == load.offset:
                start += 1  # noqa: PLW2901  (a segment keeps a byte, and so its place)
            if end == load.offset + load.filesz and load.memsz > load.filesz:
                continue  # what is zeroed behind it would begin elsewhere
            if (end - start) // unit * unit >= MIN_LEFTOVER and _is_marked(read, start, end):
                found.append(Region(start, end, (), 0))
    return found[:MAX_LEFTOVERS]


def _table(offset: int, count: int, size: int) -> tuple[int, int]:
    return offset, offset + count * size


def _between(known: Sequence[tuple[int, int]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a range that are in none of the others, which are sorted."""
    at = start
    for low, high in known:
        if low >= end:
            break
        if low > at:
            yield at, low
        at = max(at, high)
    if at < end:
        yield at, end


def _is_marked(read: Reader, start: int, end: int) -> bool:
    """Whether a range is filled with patchelf's marks, but for zeros of alignment at its ends."""
    if end - start > _MAX_GAPS:
        return False
    marks = 0
    for at in range(start, end, _CHUNK):
        data = exactly(read, at, min(_CHUNK, end - at))
        if data.translate(None, _MARKS + b"\0"):
            return False
        marks += len(data) - data.count(0)
    return end - start - marks <= _PADDING
