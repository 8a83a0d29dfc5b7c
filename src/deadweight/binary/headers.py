"""Program headers and section headers of a file in which regions became shorter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from deadweight.binary.elf import (
    PF_X,
    PROGRAM_HEADER,
    PT_LOAD,
    PT_PHDR,
    SECTION_HEADER,
    SHF_EXECINSTR,
    SHT_NOBITS,
    Elf,
    ProgramHeader,
    Section,
    exactly,
)
from deadweight.binary.regions import Change, Places, Region
from deadweight.binary.room import Block
from deadweight.image.content import Reader

_U64: Final = 1 << 64


def program_headers(
    elf: Elf, regions: Sequence[Region], gaps: Sequence[int], block: Block | None, place: Places, unit: int
) -> list[ProgramHeader]:
    new: list[ProgramHeader] = []
    for header in elf.program_headers:
        if header.type == PT_LOAD:
            new += _pieces_of(elf, header, [r for r, gap in zip(regions, gaps, strict=True) if gap], place, unit)
        elif block is not None and header.memsz and block.start <= header.vaddr < block.end:
            offset = place(block.home) + header.vaddr - block.start
            by = block.by
            # Physical addresses mean nothing, and may be anything.
            new.append(header._replace(offset=offset, vaddr=header.vaddr + by, paddr=(header.paddr + by) % _U64))
        else:
            new.append(header._replace(offset=place(header.offset)))
    size = len(new) * PROGRAM_HEADER.size
    return [h._replace(filesz=size, memsz=size) if h.type == PT_PHDR else h for h in new]


def _pieces_of(
    elf: Elf, load: ProgramHeader, regions: Sequence[Region], place: Places, unit: int
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
            ProgramHeader(
                PT_LOAD, flags, offset, load.vaddr + skip, (load.paddr + skip) % _U64, stop - start, memsz, align
            )
        )
    return found


def _has_code(elf: Elf, start: int, end: int) -> bool:
    return any(s.allocated and s.flags & SHF_EXECINSTR and start <= s.addr < end for s in elf.sections)


def section_headers(
    elf: Elf, regions: Sequence[Region], sizes: Mapping[int, int], block: Block | None, place: Places
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
                offset = place(block.home) + section.addr - block.start
                row = row._replace(addr=section.addr + block.by, offset=offset)
            else:
                zeroed = [r for r in regions if r.zeroed and section.offset <= r.start and r.end <= section.end]
                row, *others = _around(row, section, zeroed, place)
                more += others
        rows.append(row)
    return rows + more


def _around(row: Section, section: Section, zeroed: Sequence[Region], place: Places) -> list[Section]:
    parts: list[Section] = []
    for start, end in pairwise([section.offset, *(at for region in zeroed for at in region[:2]), section.end]):
        part = row._replace(addr=section.addr + start - section.offset, offset=place(start), size=end - start)
        if len(parts) % 2:
            part = part._replace(type=SHT_NOBITS)
        parts.append(part._replace(align=1) if parts else part)
    return parts


def section_table(read: Reader, elf: Elf, sections: Sequence[Section], end: int) -> tuple[int | None, list[Change]]:
    """The section header table: in its old place, or where it grew, behind everything else, and where that is then.

    `end` is the size of the file without it.
    """
    size = len(elf.sections) * SECTION_HEADER.size
    names = [row[0] for row in SECTION_HEADER.iter_unpack(exactly(read, elf.shoff, size))]
    by_name = {section.name: name for section, name in zip(elf.sections, names, strict=True)}
    names += [by_name[section.name] for section in sections[len(names) :]]
    table = b"".join(SECTION_HEADER.pack(name, *row[1:]) for name, row in zip(names, sections, strict=True))
    if len(table) == size:
        return None, [Change(elf.shoff, elf.shoff + size, (table,))]
    padding = bytes(-end % 8)
    return end + len(padding), [
        Change(elf.shoff, elf.shoff + size, (bytes(size),)),
        Change(elf.size, elf.size, (padding, table)),
    ]
