"""Cuts ranges out of a program or library without moving anything in its address space.

What has been cut is a gap between two segments: the file continues behind it, the addresses do not change, so machine
code and all other data stay as they are. That takes a longer table of program headers, which stays where it is, for
kernels, loaders and tools expect it at the beginning of the first segment; what lies behind it and is found by tags
alone (the interpreter's name, notes, hash tables, dynamic symbols and strings) moves into one of the gaps.

Moving whole pages is what makes it work: loaders want file offset and address equal modulo the page size.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from deadweight.binary.dynamic import dynamic_entries
from deadweight.binary.elf import (
    HEADER,
    PF_X,
    PROGRAM_HEADER,
    PT_INTERP,
    PT_LOAD,
    PT_PHDR,
    SECTION_HEADER,
    SHF_EXECINSTR,
    SHT_DYNSYM,
    SHT_NOBITS,
    SHT_NOTE,
    SHT_STRTAB,
    SHT_SYMTAB,
    SYMBOL,
    Elf,
    ElfError,
    ProgramHeader,
    Section,
    exactly,
)
from deadweight.binary.references import EM_X86_64, Range, references
from deadweight.image.content import Content, ContentPiece, Reader, joined, zeros

_MAX_ALIGN: Final = 1 << 21
_SMALL_PAGE, _LARGE_PAGE = 4096, 65536
_SHT_HASH, _SHT_GNU_HASH, _SHT_VERDEF, _SHT_VERNEED, _SHT_VERSYM = 5, 0x6FFFFFF6, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
_MOVABLE: Final = frozenset(
    {SHT_NOTE, SHT_DYNSYM, SHT_STRTAB, _SHT_HASH, _SHT_GNU_HASH, _SHT_VERDEF, _SHT_VERNEED, _SHT_VERSYM}
)
ADDRESS_TAGS: Final = frozenset({4, 5, 6, 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFE})
"""DT_HASH, DT_STRTAB, DT_SYMTAB, DT_GNU_HASH, DT_VERSYM, DT_VERDEF, DT_VERNEED: where movable sections are."""


class Region(NamedTuple):
    """A range of the file, inside one segment, whose content becomes shorter. What follows keeps its address.

    The freed pages are unmapped, or zeroed memory where the region is `zeroed`: whole pages and without content, then.
    """

    start: int
    """Offset in the old file."""
    end: int
    pieces: tuple[ContentPiece, ...]
    size: int
    """Of the pieces together."""
    zeroed: bool = False


class _Change(NamedTuple):
    """What comes in place of a range of the old file."""

    start: int
    end: int
    pieces: tuple[ContentPiece, ...]


class _Block(NamedTuple):
    """Sections behind the program headers that move as one: their old range of addresses, and by how much."""

    start: int
    end: int
    offset: int
    by: int


def page_size(elf: Elf) -> int:
    """What addresses and offsets have to agree modulo: the largest page, or a section's alignment above it."""
    unit = _SMALL_PAGE if elf.machine == EM_X86_64 else _LARGE_PAGE
    aligns = [s.align for s in elf.sections if s.allocated] if elf.sections else [p.align for p in elf.loads]
    unit = max([unit, *aligns])
    if unit > _MAX_ALIGN or unit & (unit - 1):
        raise ElfError("an alignment that is not supported")
    return unit


def cut(read: Reader, elf: Elf, regions: Sequence[Region], patches: Iterable[tuple[int, bytes]]) -> Content:
    """The file with shorter regions, and with bytes changed in place at offsets of the old file.

    Raises ElfError, with the reason, where that cannot be done safely.
    """
    unit = page_size(elf)
    regions = sorted(regions)
    gaps = [_gap(elf, region, unit) for region in regions]
    sizes = {region.start: region.size for region in regions}
    block = _block(elf, _splits(elf, regions, gaps))
    changes: list[_Change] = [_Change(at, at + len(data), (data,)) for at, data in patches]
    if block is not None:
        regions, gaps, block, more = _housed(read, elf, regions, block, unit)
        changes += more
    for region, gap in zip(regions, gaps, strict=True):
        padding = region.end - region.start - gap - region.size
        changes.append(_Change(region.start, region.end, (*region.pieces, *zeros(padding))))
    place = _Places([(region.end, gap) for region, gap in zip(regions, gaps, strict=True)])
    headers = _program_headers(elf, regions, gaps, block, place, unit)
    table = b"".join(PROGRAM_HEADER.pack(*header) for header in headers)
    table_end = elf.phoff + len(elf.program_headers) * PROGRAM_HEADER.size
    if block is not None:
        table_end = block.offset + block.end - block.start
    table = table.ljust(table_end - elf.phoff, b"\0")
    changes.append(_Change(elf.phoff, elf.phoff + len(table), (table,)))
    shoff, sections = place(elf.shoff), list(elf.sections)
    if elf.sections:
        sections = _section_headers(elf, regions, sizes, block, place)
        at, more = _new_table(read, elf, sections, place(elf.size))
        shoff = at or shoff
        changes += more
    fields = list(HEADER.unpack(exactly(read, 0, HEADER.size)))
    fields[6], fields[10], fields[12] = shoff, len(headers), len(sections)
    changes.append(_Change(0, HEADER.size, (HEADER.pack(*fields),)))
    return _assemble(elf.size, changes)


# --- what is cut ---------------------------------------------------------------------------------------


def _load_of(elf: Elf, region: Region) -> ProgramHeader:
    found = [p for p in elf.loads if p.offset < region.end and region.start < p.offset + p.filesz]
    if len(found) != 1 or region.start < found[0].offset or found[0].offset + found[0].filesz < region.end:
        raise ElfError("fatbins that are not in exactly one segment")
    return found[0]


def _gap(elf: Elf, region: Region, unit: int) -> int:
    """How many bytes of a region can go: whole pages."""
    load = _load_of(elf, region)
    if region.zeroed and (region.size or any((a - load.offset + load.vaddr) % unit for a in region[:2])):
        raise ElfError("zeroed memory that is not of whole pages")
    for header in elf.program_headers:
        inside = header.offset < region.end and region.start < header.offset + header.filesz
        if inside and header.type != PT_LOAD:
            raise ElfError("a segment that is about a part of the fatbins")
    if region.end == load.offset + load.filesz and load.memsz > load.filesz and not region.zeroed:
        raise ElfError("zeroed memory right behind the fatbins")
    return (region.end - region.start - region.size) // unit * unit


def _splits(elf: Elf, regions: Sequence[Region], gaps: Sequence[int]) -> int:
    """How many segments become two."""
    ends = {p.offset + p.filesz for p in elf.loads}
    return sum(1 for region, gap in zip(regions, gaps, strict=True) if gap and region.end not in ends)


# --- room for more program headers ---------------------------------------------------------------------


def _block(elf: Elf, splits: int) -> _Block | None:
    """What has to make room for so many more program headers; None where there is room."""
    end = elf.phoff + len(elf.program_headers) * PROGRAM_HEADER.size
    need = end + splits * PROGRAM_HEADER.size
    load = next((p for p in elf.loads if p.offset <= elf.phoff and end <= p.offset + p.filesz), None)
    if load is None:
        raise ElfError("program headers outside all segments")
    if not splits:
        return None
    behind = sorted((s for s in _occupied(elf) if s.end > elf.phoff), key=lambda s: (s.offset, s.end))
    if behind and behind[0].offset < end:
        raise ElfError("something that overlaps the program headers")
    if load.offset + load.filesz < need:
        raise ElfError("no room for more program headers")
    stop = start = 0
    for number, section in enumerate(behind):
        if section.offset >= max(need, stop):
            break
        if not _movable(elf, section) or section.end > load.offset + load.filesz:
            raise ElfError(f"no room for more program headers: {section.name!a} is in the way")
        if not number:
            start = section.offset
        stop = max(stop, section.end)
    for header in elf.program_headers:
        inside = end < header.offset + header.filesz and header.offset < need and header.type != PT_LOAD
        if inside and not (start <= header.offset and header.offset + header.filesz <= stop):
            raise ElfError("no room for more program headers: a segment is in the way")
    if not stop:
        return None
    shift = load.vaddr - load.offset
    return _Block(start + shift, stop + shift, start, 0)


def _occupied(elf: Elf) -> list[Section]:
    """What has bytes of the file in memory: allocated sections. ElfError for files without section headers."""
    if not elf.sections:
        raise ElfError("no section headers to tell what lies behind the program headers")
    return [s for s in elf.sections if s.allocated and s.file_size]


def _movable(elf: Elf, section: Section) -> bool:
    if section.type in _MOVABLE:
        return True
    return any(
        p.type == PT_INTERP and (p.offset, p.filesz) == (section.offset, section.size) for p in elf.program_headers
    )


def _housed(
    read: Reader, elf: Elf, regions: Sequence[Region], block: _Block, unit: int
) -> tuple[list[Region], list[int], _Block, list[_Change]]:
    """The regions with the block behind the content of one, their gaps, where the block is then, and what follows."""
    length = block.end - block.start
    align = max(8, *(s.align for s in elf.sections if block.start <= s.addr < block.end))
    if any(_overlaps(p, block) for p in elf.program_headers if p.type != PT_LOAD):
        raise ElfError("a segment that is about a part of what is behind the program headers")
    if references(read, elf, [Range(block.start, block.end)], frozenset()):
        raise ElfError("pointers to what is behind the program headers")
    before = [_gap(elf, region, unit) for region in regions]
    for number, region in enumerate(regions):
        load = _load_of(elf, region)
        end = region.start + region.size - load.offset + load.vaddr
        new = -(-end // align) * align + block.start % align
        pieces = (*region.pieces, *zeros(new - end), (block.offset, length))
        housed = region._replace(pieces=pieces, size=region.size + new - end + length)
        if region.zeroed or housed.size > region.end - region.start or (gap := _gap(elf, housed, unit)) == 0:
            continue
        gaps = [*before[:number], gap, *before[number + 1 :]]
        moved = block._replace(by=new - block.start)
        tags = [e for e in dynamic_entries(read, elf) if e.tag in ADDRESS_TAGS and block.start <= e.value < block.end]
        patches = [_Change(e.offset, e.offset + 8, ((e.value + moved.by).to_bytes(8, "little"),)) for e in tags]
        patches += _moved_symbols(read, elf, moved)
        return [*regions[:number], housed, *regions[number + 1 :]], gaps, moved, patches
    raise ElfError("no room for more program headers: what is in the way fits nowhere else")


def _moved_symbols(read: Reader, elf: Elf, block: _Block) -> Iterator[_Change]:
    """Debuggers' symbols for what is in the block: those of its sections, as a rule."""
    inside = {i for i, s in enumerate(elf.sections) if s.allocated and s.size and block.start <= s.addr < block.end}
    for table in elf.sections:
        if table.type == SHT_SYMTAB and table.size % SYMBOL.size == 0:
            rows = SYMBOL.iter_unpack(exactly(read, table.offset, table.size))
            for number, (name, info, other, index, value, size) in enumerate(rows):
                if index in inside:
                    at = table.offset + number * SYMBOL.size
                    yield _Change(
                        at, at + SYMBOL.size, (SYMBOL.pack(name, info, other, index, value + block.by, size),)
                    )


def _overlaps(header: ProgramHeader, block: _Block) -> bool:
    """Whether a segment lies partly in the block and partly not."""
    start, end = header.vaddr, header.vaddr + header.memsz
    return start < block.end and block.start < end and not (block.start <= start and end <= block.end)


# --- the new headers -----------------------------------------------------------------------------------


class _Places:
    """New offsets for old ones, given where how many bytes go: (old end of a region, its gap), rising."""

    def __init__(self, gaps: Sequence[tuple[int, int]]) -> None:
        self._ends = [end for end, _ in gaps]
        self._total = [0]
        for _, gap in gaps:
            self._total.append(self._total[-1] + gap)

    def __call__(self, offset: int) -> int:
        return offset - self._total[bisect_right(self._ends, offset)]


def _program_headers(
    elf: Elf, regions: Sequence[Region], gaps: Sequence[int], block: _Block | None, place: _Places, unit: int
) -> list[ProgramHeader]:
    new: list[ProgramHeader] = []
    for header in elf.program_headers:
        if header.type == PT_LOAD:
            new += _pieces_of(elf, header, [r for r, gap in zip(regions, gaps, strict=True) if gap], place, unit)
        elif block is not None and header.memsz and block.start <= header.vaddr < block.end:
            offset = _offset_of_block(elf, regions, block, place) + header.vaddr - block.start
            by = block.by
            new.append(header._replace(offset=offset, vaddr=header.vaddr + by, paddr=header.paddr + by))
        else:
            new.append(header._replace(offset=place(header.offset)))
    size = len(new) * PROGRAM_HEADER.size
    return [h._replace(filesz=size, memsz=size) if h.type == PT_PHDR else h for h in new]


def _pieces_of(
    elf: Elf, load: ProgramHeader, regions: Sequence[Region], place: _Places, unit: int
) -> list[ProgramHeader]:
    """A segment without its gaps, as one segment or several."""
    end = load.offset + load.filesz
    inside = [r for r in regions if load.offset <= r.start and r.end <= end]
    starts = [load.offset, *(r.end for r in inside if r.end < end)]
    stops = [*((r.start + r.size, r.end if r.zeroed else r.start + r.size) for r in inside), (end, end)]
    found = []
    for start, (stop, zeroed) in zip(starts, stops, strict=False):
        skip = start - load.offset
        # The last piece has what is zeroed behind the file's content.
        memsz = load.memsz - skip if zeroed == end else zeroed - start
        offset = place(start)
        align = load.align if (offset - load.vaddr - skip) % max(load.align, 1) == 0 else unit
        flags = load.flags
        if inside and elf.sections and not _has_code(elf, load.vaddr + skip, load.vaddr + skip + memsz):
            flags &= ~PF_X
        found.append(
            ProgramHeader(PT_LOAD, flags, offset, load.vaddr + skip, load.paddr + skip, stop - start, memsz, align)
        )
    return found


def _has_code(elf: Elf, start: int, end: int) -> bool:
    return any(s.allocated and s.flags & SHF_EXECINSTR and start <= s.addr < end for s in elf.sections)


def _offset_of_block(elf: Elf, regions: Sequence[Region], block: _Block, place: _Places) -> int:
    """The new offset of the block, which lies at the end of a region's content."""
    for region in regions:
        load = _load_of(elf, region)
        start = block.start + block.by - load.vaddr + load.offset
        if region.start <= start < region.end:
            return place(region.start) + start - region.start
    raise AssertionError("a block that is in no region")


def _section_headers(
    elf: Elf, regions: Sequence[Region], sizes: Mapping[int, int], block: _Block | None, place: _Places
) -> list[Section]:
    """The sections as they are now; what is behind zeroed memory in a section is one of its own, at the end."""
    rows: list[Section] = []
    more: list[Section] = []
    for section in elf.sections:
        row = section._replace(offset=place(section.offset))
        if section.allocated and section.file_size:
            if section.offset in sizes:
                row = row._replace(size=sizes[section.offset])
            elif block is not None and block.start <= section.addr < block.end:
                offset = _offset_of_block(elf, regions, block, place) + section.addr - block.start
                row = row._replace(addr=section.addr + block.by, offset=offset)
            else:
                zeroed = [r for r in regions if r.zeroed and section.offset <= r.start and r.end <= section.end]
                row, *others = _around(row, section, zeroed, place)
                more += others
        rows.append(row)
    return rows + more


def _around(row: Section, section: Section, zeroed: Sequence[Region], place: _Places) -> list[Section]:
    parts: list[Section] = []
    for start, end in pairwise([section.offset, *(at for region in zeroed for at in region[:2]), section.end]):
        part = row._replace(addr=section.addr + start - section.offset, offset=place(start), size=end - start)
        if len(parts) % 2:
            part = part._replace(type=SHT_NOBITS)
        parts.append(part._replace(align=1) if parts else part)
    return parts


def _new_table(read: Reader, elf: Elf, sections: Sequence[Section], end: int) -> tuple[int | None, list[_Change]]:
    """The section header table: in its old place, or where it grew, behind everything else, and where that is then.

    `end` is the size of the file without it.
    """
    size = len(elf.sections) * SECTION_HEADER.size
    names = [row[0] for row in SECTION_HEADER.iter_unpack(exactly(read, elf.shoff, size))]
    by_name = {section.name: name for section, name in zip(elf.sections, names, strict=True)}
    names += [by_name[section.name] for section in sections[len(names) :]]
    table = b"".join(SECTION_HEADER.pack(name, *row[1:]) for name, row in zip(names, sections, strict=True))
    if len(table) == size:
        return None, [_Change(elf.shoff, elf.shoff + size, (table,))]
    padding = bytes(-end % 8)
    return end + len(padding), [
        _Change(elf.shoff, elf.shoff + size, (bytes(size),)),
        _Change(elf.size, elf.size, (padding, table)),
    ]


def _assemble(size: int, changes: Iterable[_Change]) -> Content:
    pieces: list[ContentPiece] = []
    at = 0
    for change in sorted(changes, key=lambda c: (c.start, c.end)):
        if change.start < at or change.end > size:
            raise ElfError("parts of the file that overlap")
        pieces += [(at, change.start - at), *change.pieces]
        at = change.end
    pieces.append((at, size - at))
    return joined(pieces)
