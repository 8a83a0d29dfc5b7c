"""Makes room for a longer table of program headers: what lies behind it moves, if it is found by tags alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from deadweight.binary.dynamic import dynamic_entries, hash_table
from deadweight.binary.elf import (
    PROGRAM_HEADER,
    PT_INTERP,
    PT_LOAD,
    PT_NOTE,
    PT_PHDR,
    SHF_ALLOC,
    SHT_DYNSYM,
    SHT_NOTE,
    SHT_STRTAB,
    SYMBOL,
    Elf,
    ElfError,
    ProgramHeader,
    Section,
    file_offset,
    symbols,
)
from deadweight.binary.references import Range, references
from deadweight.binary.regions import Change, Region, gap_of, load_of
from deadweight.image.content import ContentPiece, Reader, zeros

_SHT_HASH, _SHT_GNU_HASH, _SHT_VERDEF, _SHT_VERNEED, _SHT_VERSYM = 5, 0x6FFFFFF6, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF
MOVABLE: Final = frozenset(
    {SHT_NOTE, SHT_DYNSYM, SHT_STRTAB, _SHT_HASH, _SHT_GNU_HASH, _SHT_VERDEF, _SHT_VERNEED, _SHT_VERSYM}
)
"""Types of sections that loaders find by tags and program headers alone."""
ADDRESS_TAGS: Final = frozenset({4, 5, 6, 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFE})
"""DT_HASH, DT_STRTAB, DT_SYMTAB, DT_GNU_HASH, DT_VERSYM, DT_VERDEF, DT_VERNEED: where movable sections are."""


_PADDING: Final = 15  # bytes that alignment may leave between two of them


class Block(NamedTuple):
    """Sections behind the program headers that move as one: their old range of addresses, and by how much."""

    start: int
    end: int
    offset: int
    """In the old file."""
    by: int = 0
    home: int = 0
    """The offset in the old file of what it takes the place of."""


def block_behind(read: Reader, elf: Elf, splits: int) -> Block | None:
    """What has to make room for so many more program headers; None where there is room."""
    end = elf.phoff + len(elf.program_headers) * PROGRAM_HEADER.size
    need = end + splits * PROGRAM_HEADER.size
    load = next((p for p in elf.loads if p.offset <= elf.phoff and end <= p.offset + p.filesz), None)
    if load is None:
        raise ElfError("program headers outside all segments")
    if not splits:
        return None
    behind = sorted((s for s in _occupied(read, elf, end, need) if s.end > elf.phoff), key=lambda s: (s.offset, s.end))
    if behind and behind[0].offset < end:
        raise ElfError("something that overlaps the program headers")
    if load.offset + load.filesz < need:
        raise ElfError("no room for more program headers")
    segments = [p for p in elf.program_headers if p.type not in (PT_LOAD, PT_PHDR) and p.filesz and p.offset >= end]
    stop = start = 0
    for number, section in enumerate(behind):
        # A segment moves as a whole: notes of several sections are one.
        wanted = max([need, stop, *(p.offset + p.filesz for p in segments if p.offset < max(need, stop))])
        if section.offset >= wanted:
            break
        if not _movable(elf, section) or section.end > load.offset + load.filesz:
            raise ElfError(f"no room for more program headers: {section.name!a} is in the way")
        if not number:
            start = section.offset
        stop = max(stop, section.end)
    if any(p.offset < need and p.offset + p.filesz > stop for p in segments):
        raise ElfError("no room for more program headers: a segment is in the way")
    if not stop:
        return None
    shift = load.vaddr - load.offset
    return Block(start + shift, stop + shift, start)


def _occupied(read: Reader, elf: Elf, end: int, need: int) -> list[Section]:
    """What has bytes of the file in memory: allocated sections.

    Where there are no section headers, what segments and dynamic entries tell of what lies right behind the program
    headers (from `end`), if that has no gaps as far as room is needed; ElfError otherwise.
    """
    if elf.sections:
        return [s for s in elf.sections if s.allocated and s.file_size]
    known = [
        Section("", SHT_NOTE, SHF_ALLOC, p.vaddr, p.offset, p.filesz, 0, 0, p.align, 0)
        for p in elf.program_headers
        if p.type in (PT_INTERP, PT_NOTE) and p.filesz
    ]
    table = hash_table(read, elf, dynamic_entries(read, elf))
    if table is not None:
        offset = file_offset(elf, table.address, table.size)
        if offset is None:
            raise ElfError("a hash table that is in no segment")
        known.append(Section("", _SHT_GNU_HASH, SHF_ALLOC, table.address, offset, table.size, 0, 0, 8, 0))
    at = end
    for section in sorted((s for s in known if s.offset >= end), key=lambda s: s.offset):
        if at >= need or section.offset - at > _PADDING:
            break
        at = max(at, section.end)
    if at < need:
        raise ElfError("no section headers to tell what lies behind the program headers")
    return [s for s in known if s.offset < at]


def _movable(elf: Elf, section: Section) -> bool:
    if section.type in MOVABLE:
        return True
    return any(
        p.type == PT_INTERP and (p.offset, p.filesz) == (section.offset, section.size) for p in elf.program_headers
    )


def housed(
    read: Reader, elf: Elf, regions: Sequence[Region], block: Block, unit: int
) -> tuple[list[Region], Block, list[Change]]:
    """The regions with the block in one of them, where the block is then, and what follows from that."""
    align = max([8, *(s.align for s in elf.sections if block.start <= s.addr < block.end)])
    if any(_overlaps(p, block) for p in elf.program_headers if p.type != PT_LOAD):
        raise ElfError("a segment that is about a part of what is behind the program headers")
    if references(read, elf, [Range(block.start, block.end)], frozenset()):
        raise ElfError("pointers to what is behind the program headers")
    # Zeroed memory only where there are no fatbins: it takes a page more.
    for number, region in sorted(enumerate(regions), key=lambda item: item[1].zeroed):
        skip = load_of(elf, region).vaddr - load_of(elf, region).offset
        end = region.start + region.size + skip
        new = -(-end // align) * align + block.start % align
        content: list[ContentPiece] = [*zeros(new - end), (block.offset, block.end - block.start)]
        length = new - end + block.end - block.start
        changes: list[Change] = []
        if region.zeroed:
            first = region.start + -(-length // unit) * unit
            changes.append(Change(region.start, first, (*content, *zeros(first - region.start - length))))
            home = region._replace(start=first)
        else:
            home = region._replace(pieces=(*region.pieces, *content), size=region.size + length)
        if home.start + home.size > home.end or gap_of(elf, home, unit) == 0:
            continue
        moved = block._replace(by=new - block.start, home=new - skip)
        tags = [e for e in dynamic_entries(read, elf) if e.tag in ADDRESS_TAGS and block.start <= e.value < block.end]
        changes += [Change(e.offset, e.offset + 8, ((e.value + moved.by).to_bytes(8, "little"),)) for e in tags]
        changes += _moved_symbols(read, elf, moved)
        return [*regions[:number], home, *regions[number + 1 :]], moved, changes
    raise ElfError("no room for more program headers: what is in the way fits nowhere else")


def _moved_symbols(read: Reader, elf: Elf, block: Block) -> Iterator[Change]:
    """Debuggers' symbols for what is in the block: those of its sections, as a rule."""
    inside = {i for i, s in enumerate(elf.sections) if s.allocated and s.size and block.start <= s.addr < block.end}
    for at, (name, info, other, index, value, size) in symbols(read, elf):
        if index in inside:
            row = SYMBOL.pack(name, info, other, index, (value + block.by) % (1 << 64), size)
            yield Change(at, at + SYMBOL.size, (row,))


def _overlaps(header: ProgramHeader, block: Block) -> bool:
    """Whether a segment lies partly in the block and partly not."""
    if not header.filesz:  # PT_GNU_STACK has the size of the stack
        return False
    start, end = header.vaddr, header.vaddr + header.memsz
    return start < block.end and block.start < end and not (block.start <= start and end <= block.end)
