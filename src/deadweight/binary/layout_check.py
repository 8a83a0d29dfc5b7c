"""Compares where things are in a file whose GPU code was shrunk with where they were: its headers, all of them.

What loaders read is held against the original's field by field, since a loader that maps the wrong page, or a page too
few, says nothing. Part of `shrink_check`, which compares the content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Final, NamedTuple

from deadweight.binary.dynamic import dynamic, dynamic_entries, hash_table, interpreter
from deadweight.binary.elf import (
    HEADER,
    PF_W,
    PF_X,
    PROGRAM_HEADER,
    PT_INTERP,
    PT_LOAD,
    PT_PHDR,
    SECTION_HEADER,
    SHF_EXECINSTR,
    SHT_NOBITS,
    SHT_NULL,
    Elf,
    ProgramHeader,
    Section,
    exactly,
    file_offset,
    parse,
)
from deadweight.binary.references import Range, Reference, references
from deadweight.binary.regions import Region, page_size
from deadweight.binary.room import ADDRESS_TAGS, MOVABLE
from deadweight.binary.segments import irregular
from deadweight.binary.shrink import CannotShrink, FatbinSection, fatbin_sections, pointers_to
from deadweight.image.content import Reader

CHUNK: Final = 1 << 20
_U64: Final = 1 << 64
_SHOFF, _PHNUM, _SHNUM = 6, 10, 12
"""The fields of the ELF header that say where the tables are, and how long: what may differ of it."""


class Shrunk(NamedTuple):
    """One of the two files."""

    read: Reader
    elf: Elf
    sections: list[FatbinSection]
    pointers: list[Reference]

    def at(self, address: int, length: int) -> bytes:
        """The bytes at an address, up to the end of the segment's content."""
        for load in self.elf.loads:
            if load.vaddr <= address < load.vaddr + load.filesz:
                skip = address - load.vaddr
                return exactly(self.read, load.offset + skip, min(length, load.filesz - skip))
        return b""

    def starts(self) -> list[int]:
        """The addresses of the fatbins."""
        return [start for section in self.sections for start in section.starts]


class Move(NamedTuple):
    """What has another address than before: old address, bytes, new address, and what that is to be a multiple of."""

    start: int
    size: int
    now: int
    align: int

    @property
    def end(self) -> int:
        return self.start + self.size


def opened(read: Reader, size: int) -> Shrunk:
    elf = parse(read, size)
    sections = fatbin_sections(read, elf)
    return Shrunk(read, elf, sections, pointers_to(read, elf, sections))


def same(one: object, two: object, what: str) -> None:
    """CannotShrink unless the two are equal."""
    if one != two:
        raise CannotShrink(f"self-check: {what}")


def check_layout(old: Shrunk, new: Shrunk, holes: Sequence[Region]) -> list[Move]:
    """What has moved. CannotShrink unless all headers are right, given the regions that are zeroed memory now."""
    _elf_header(old, new)
    same(irregular(new.elf), None, f"{irregular(new.elf)}")
    moved = sorted(set(_moves(old, new)))
    _segments(old, new, holes)
    _program_headers(old, new, moved)
    _moves_are_right(old, new, moved, holes)
    _dynamic_entries(old, new, moved)
    _sections(old, new, moved, holes)
    _end_of_file(old, new)
    return moved


def _elf_header(old: Shrunk, new: Shrunk) -> None:
    one, two = (list(HEADER.unpack(exactly(file.read, 0, HEADER.size))) for file in (old, new))
    for field in (_SHOFF, _PHNUM, _SHNUM):
        one[field] = two[field] = 0
    same(one, two, "the ELF headers differ")


# --- segments ------------------------------------------------------------------------------------------


def _segments(old: Shrunk, new: Shrunk, holes: Sequence[Region]) -> None:
    """The new segments are the old ones, or parts of them; only GPU code is no longer in any."""
    unit = page_size(old.elf)
    zeroed = holes_in_memory(old.elf, holes)
    left = {load: load.vaddr for load in old.elf.loads}
    may_go = [(s.address, s.address + s.size) for s in old.sections]
    for load in new.elf.loads:
        if not load.memsz:
            same(any(p.vaddr == load.vaddr and not p.memsz for p in old.elf.loads), True, "a segment of nothing")
            continue
        whole = next((p for p in old.elf.loads if _within(load.vaddr, load.memsz, p.vaddr, p.memsz)), None)
        if whole is None:
            raise CannotShrink("self-check: memory that was not there before")
        _is_part(old.elf, load, whole, unit)
        _covered(left[whole], load.vaddr, may_go, "a part of a segment is gone")
        left[whole] = load.vaddr + load.memsz
        # What is zeroed was zero before, or a blob; never the rest of a page of a segment that cannot be written.
        content_end = whole.vaddr + whole.filesz
        zeros = load.vaddr + load.filesz, min(load.vaddr + load.memsz, content_end)
        same(load.filesz <= max(0, content_end - load.vaddr), True, "content where there was none")
        _covered(*zeros, zeroed, "a part of a segment is zeroed")
        if zeros[0] < zeros[1] and not load.flags & PF_W:
            same(zeros[0] % unit, 0, "zeroed memory that does not begin a page")
    for load, end in left.items():
        _covered(end, load.vaddr + load.memsz, may_go, "a part of a segment is gone")
    # What was a page of its own must not share one now: the later mapping would hide the earlier.
    for before, after in pairwise(load for load in new.elf.loads if load.memsz):
        shared = (before.vaddr + before.memsz - 1) // unit == after.vaddr // unit
        if shared and not any(p.vaddr == after.vaddr for p in old.elf.loads):
            raise CannotShrink("self-check: parts of a segment share a page")


def _is_part(elf: Elf, load: ProgramHeader, whole: ProgramHeader, unit: int) -> None:
    same((load.paddr - load.vaddr - whole.paddr + whole.vaddr) % _U64, 0, "a segment's physical address differs")
    same((load.offset - load.vaddr - whole.offset + whole.vaddr) % unit, 0, "a segment is not moved by whole pages")
    if load.align != whole.align:
        same(load.align, unit, "a segment's alignment differs")
    code = [s for s in elf.sections if s.allocated and s.flags & SHF_EXECINSTR]
    runs = any(s.addr < load.vaddr + load.memsz and load.vaddr < s.addr + s.size for s in code)
    if not elf.sections or runs or (load.vaddr, load.memsz) == (whole.vaddr, whole.memsz):
        same(load.flags, whole.flags, "a segment's permissions differ")
    same(load.flags in (whole.flags, whole.flags & ~PF_X), True, "a segment's permissions differ")


def _program_headers(old: Shrunk, new: Shrunk, moved: Sequence[Move]) -> None:
    """All but PT_LOAD are as they were, but for where the file has what they are about."""
    kinds, order = ([kind for kind, _ in groupby(p.type for p in f.elf.program_headers)] for f in (old, new))
    same(order, kinds, "the program headers differ")
    by = {move.start: move.now - move.start for move in moved}
    size = len(new.elf.program_headers) * PROGRAM_HEADER.size
    for before, after in zip(_others(old.elf), _others(new.elf), strict=True):
        shift = by.get(before.vaddr, 0) if before.filesz else 0
        wanted = before._replace(vaddr=before.vaddr + shift, paddr=(before.paddr + shift) % _U64, offset=after.offset)
        if before.type == PT_PHDR:
            wanted = wanted._replace(filesz=size, memsz=size)
        same(after, wanted, "the program headers differ")
        if after.filesz:
            same(file_offset(new.elf, after.vaddr, after.filesz), after.offset, "a segment is not where it is loaded")
        else:
            same(after.offset <= before.offset, True, "the program headers differ")
    for load in new.elf.loads:
        if _within(new.elf.phoff, size, load.offset, load.filesz):
            return
    raise CannotShrink("self-check: the program headers are not in memory")


def _others(elf: Elf) -> list[ProgramHeader]:
    return [p for p in elf.program_headers if p.type != PT_LOAD]


# --- what has moved ------------------------------------------------------------------------------------


def _moves(old: Shrunk, new: Shrunk) -> Iterator[Move]:
    for one, two in zip(old.elf.sections, new.elf.sections, strict=False):
        if one.allocated and one.file_size and one.addr != two.addr:
            yield Move(one.addr, one.file_size, two.addr, max(one.align, 1))
    for before, after in zip(_others(old.elf), _others(new.elf), strict=False):
        if before.filesz and before.vaddr != after.vaddr:
            yield Move(before.vaddr, before.filesz, after.vaddr, max(before.align, 1))
    table, now = (hash_table(f.read, f.elf, dynamic_entries(f.read, f.elf)) for f in (old, new))
    if table is not None and now is not None and table.address != now.address:
        yield Move(table.address, table.size, now.address, 8)


def _moves_are_right(old: Shrunk, new: Shrunk, moved: Sequence[Move], holes: Sequence[Region]) -> None:
    """What has moved did so as one, from behind the program headers to where GPU code was; nothing points at it."""
    same(len({move.now - move.start for move in moved}) <= 1, True, "what moved did so by different distances")
    table_end = old.elf.phoff + len(old.elf.program_headers) * PROGRAM_HEADER.size
    free = [*freed(old, new), *holes_in_memory(old.elf, holes)]
    for move in moved:
        offset = file_offset(old.elf, move.start, move.size)
        same(offset is not None and offset >= table_end, True, "what moved was not behind the program headers")
        same((move.now - move.start) % move.align, 0, "what moved is not aligned")
        inside = any(_within(move.now, move.size, start, end - start) for start, end in free)
        same(inside, True, "what moved is not where GPU code was")
    names = [(p.offset, p.filesz) for p in old.elf.program_headers if p.type == PT_INTERP]
    for section in old.elf.sections:
        if section.allocated and section.file_size and any(move.start <= section.addr < move.end for move in moved):
            by_tags = section.type in MOVABLE or (section.offset, section.size) in names
            same(by_tags, True, "what moved is not found by tags alone")
    pointers = references(new.read, new.elf, [Range(move.start, move.end) for move in moved], frozenset())
    same(pointers, [], "a pointer to what moved")
    # What the longer table took the place of has moved.
    longer = table_end, old.elf.phoff + len(new.elf.program_headers) * PROGRAM_HEADER.size
    known = [(s.offset, s.addr, s.size) for s in old.elf.sections if s.allocated and s.file_size]
    known += [(p.offset, p.vaddr, p.filesz) for p in _others(old.elf) if p.filesz]
    for offset, address, size in known:
        if offset < longer[1] and longer[0] < offset + size:
            there = any(_within(address, size, move.start, move.size) for move in moved)
            same(there, True, "the program headers lie over something")


def freed(old: Shrunk, new: Shrunk) -> Iterator[tuple[int, int]]:
    """The addresses that fatbins had and no longer have."""
    for one, two in zip(old.sections, new.sections, strict=True):
        yield one.address + two.size, one.address + one.size


def _dynamic_entries(old: Shrunk, new: Shrunk, moved: Sequence[Move]) -> None:
    for asked in (dynamic, interpreter):
        same(asked(old.read, old.elf), asked(new.read, new.elf), "the dynamic entries differ")
    wanted = []
    for tag, value, _ in dynamic_entries(old.read, old.elf):
        by = next((m.now - m.start for m in moved if m.start <= value < m.end), 0) if tag in ADDRESS_TAGS else 0
        wanted.append((tag, value + by))
    found = [(tag, value) for tag, value, _ in dynamic_entries(new.read, new.elf)]
    same(found, wanted, "the dynamic entries differ")


# --- section headers -----------------------------------------------------------------------------------


def _sections(old: Shrunk, new: Shrunk, moved: Sequence[Move], holes: Sequence[Region]) -> None:
    count = len(old.elf.sections)
    fatbins = {section.number: two.size for section, two in zip(old.sections, new.sections, strict=True)}
    split = {
        n for n, s in enumerate(old.elf.sections) if any(_within(h.start, 1, s.offset, s.file_size) for h in holes)
    }
    more = list(new.elf.sections[count:])
    same(len(new.elf.sections) - count in (range(2 * len(holes) + 1) if old.elf.sections else (0,)), True, "sections")
    by = {move.start: move.now - move.start for move in moved}
    for number, (one, two) in enumerate(zip(old.elf.sections, new.elf.sections, strict=False)):
        wanted = one._replace(offset=two.offset)
        if number in fatbins and old.elf.sections:
            wanted = wanted._replace(size=fatbins[number])
        elif number in split:
            more = list(_without_parts(two, one, more, new.elf))
            wanted = wanted._replace(size=two.size)
        elif one.allocated and one.file_size:
            wanted = wanted._replace(addr=one.addr + by.get(one.addr, 0))
        same(two, wanted, "the section headers differ")
        same(two.offset <= one.offset or one.addr in by, True, "a section is not in the file")
        _in_segment(new.elf, two)
        if one.type == SHT_NULL:
            same(two.offset, one.offset, "the section headers differ")
    same(more, [], "sections that were not there before")


def _in_segment(elf: Elf, section: Section) -> None:
    if section.allocated and section.file_size:
        same(file_offset(elf, section.addr, section.size), section.offset, "a section is not where its segment is")


def _without_parts(first: Section, whole: Section, more: Iterable[Section], elf: Elf) -> Iterator[Section]:
    """The rest of the sections, without those that continue the first one to what it was as a whole."""
    end = first.addr + first.size
    for section in more:
        kind = (section.name, section.flags, section.link, section.info, section.entsize)
        if (
            kind == (whole.name, *whole[2:3], *whole[6:8], whole.entsize)
            and section.addr == end != whole.addr + whole.size
        ):
            same((section.type in (whole.type, SHT_NOBITS), section.align), (True, 1), "the section headers differ")
            _in_segment(elf, section)
            end += section.size
        else:
            yield section
    same(end, whole.addr + whole.size, "a part of a section is gone")


def _end_of_file(old: Shrunk, new: Shrunk) -> None:
    """What is behind everything that headers know is there still. A longer table of sections comes behind that."""
    tail = old.elf.size - _known_end(old.elf, sections=True)
    end, slack = new.elf.size, 1
    if len(new.elf.sections) > len(old.elf.sections):
        end, slack = new.elf.shoff, 8  # the table is aligned
        same(_known_end(new.elf, sections=True), new.elf.size, "the file does not end where it should")
    else:
        same(end - tail, _known_end(new.elf, sections=True), "the file does not end where it should")
    ends = range(end, max(end - slack, _known_end(new.elf, sections=False) + tail - 1), -1)
    found = any(same_bytes(old, old.elf.size - tail, new, at - tail, tail) for at in ends)
    same(found, True, "what is at the end of the file differs")


def _known_end(elf: Elf, *, sections: bool) -> int:
    """Where the last of what headers know ends, with the table of sections or without."""
    ends = [s.end for s in elf.sections if s.file_size] + [p.offset + p.filesz for p in elf.program_headers if p.filesz]
    return max([*ends, elf.shoff + len(elf.sections) * SECTION_HEADER.size] if sections else ends)


def same_bytes(old: Shrunk, start: int, new: Shrunk, now: int, length: int) -> bool:
    """Whether the files have the same bytes at these offsets."""
    for at in range(0, length, CHUNK):
        size = min(CHUNK, length - at)
        if exactly(old.read, start + at, size) != exactly(new.read, now + at, size):
            return False
    return True


# --- ranges --------------------------------------------------------------------------------------------


def holes_in_memory(elf: Elf, holes: Iterable[Region]) -> list[tuple[int, int]]:
    """The addresses of regions of the old file."""
    found = []
    for hole in holes:
        load = next(p for p in elf.loads if p.offset <= hole.start < p.offset + p.filesz)
        found.append((hole.start - load.offset + load.vaddr, hole.end - load.offset + load.vaddr))
    return found


def _within(start: int, size: int, other: int, other_size: int) -> bool:
    return other <= start and start + size <= other + other_size


def without(start: int, end: int, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """What of a range is in none of the others."""
    for low, high in sorted(ranges):
        if high <= start or low >= end or low >= high:
            continue
        if start < low:
            yield start, low
        start = max(start, high)
    if start < end:
        yield start, end


def _covered(start: int, end: int, ranges: Iterable[tuple[int, int]], what: str) -> None:
    """CannotShrink unless all of a range is in the others."""
    same(list(without(start, end, ranges)), [], what)
