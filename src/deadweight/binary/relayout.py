"""Cuts ranges out of a program or library without moving anything in its address space.

What has been cut is a gap between two segments: the file continues behind it, the addresses do not change, so machine
code and all other data stay as they are. That takes a longer table of program headers, which stays where it is, for
kernels, loaders and tools expect it at the beginning of the first segment; what lies behind it and is found by tags
alone (the interpreter's name, notes, hash tables, dynamic symbols and strings) moves into one of the gaps.

Moving whole pages is what makes it work: loaders want file offset and address equal modulo the page size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deadweight.binary.elf import HEADER, PROGRAM_HEADER, Elf, ElfError, exactly
from deadweight.binary.headers import program_headers, section_headers, section_table
from deadweight.binary.regions import Change, Places, Region, gap_of, page_size, splits
from deadweight.binary.room import block_behind, housed
from deadweight.image.content import Content, ContentPiece, Reader, joined, zeros


def cut(read: Reader, elf: Elf, regions: Sequence[Region], patches: Iterable[tuple[int, bytes]]) -> Content:
    """The file with shorter regions, and with bytes changed in place at offsets of the old file.

    Raises ElfError, with the reason, where that cannot be done safely.
    """
    unit = page_size(elf)
    regions = sorted(regions)
    gaps = [gap_of(elf, region, unit) for region in regions]
    sizes = {region.start: region.size for region in regions}
    block = block_behind(read, elf, splits(elf, regions, gaps))
    changes: list[Change] = [Change(at, at + len(data), (data,)) for at, data in patches]
    if block is not None:
        regions, block, more = housed(read, elf, regions, block, unit)
        gaps = [gap_of(elf, region, unit) for region in regions]
        changes += more
    for region, gap in zip(regions, gaps, strict=True):
        padding = region.end - region.start - gap - region.size
        changes.append(Change(region.start, region.end, (*region.pieces, *zeros(padding))))
    place = Places([(region.end, gap) for region, gap in zip(regions, gaps, strict=True)])
    headers = program_headers(elf, regions, gaps, block, place, unit)
    table = b"".join(PROGRAM_HEADER.pack(*header) for header in headers)
    table_end = elf.phoff + len(elf.program_headers) * PROGRAM_HEADER.size
    if block is not None:
        table_end = block.offset + block.end - block.start
    table = table.ljust(table_end - elf.phoff, b"\0")
    changes.append(Change(elf.phoff, elf.phoff + len(table), (table,)))
    shoff, sections = place(elf.shoff), list(elf.sections)
    if elf.sections:
        sections = section_headers(elf, regions, sizes, block, place)
        at, more = section_table(read, elf, sections, place(elf.size))
        shoff = at or shoff
        changes += more
    fields = list(HEADER.unpack(exactly(read, 0, HEADER.size)))
    fields[6], fields[10], fields[12] = shoff, len(headers), len(sections)
    changes.append(Change(0, HEADER.size, (HEADER.pack(*fields),)))
    return _assemble(elf.size, changes)


def _assemble(size: int, changes: Iterable[Change]) -> Content:
    pieces: list[ContentPiece] = []
    at = 0
    for change in sorted(changes, key=lambda c: (c.start, c.end)):
        if change.start < at or change.end > size:
            raise ElfError("parts of the file that overlap")
        pieces += [(at, change.start - at), *change.pieces]
        at = change.end
    pieces.append((at, size - at))
    return joined(pieces)
