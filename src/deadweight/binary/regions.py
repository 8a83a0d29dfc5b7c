"""Parts of a file that become shorter, and where everything else is then."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

from deadweight.binary.elf import PT_LOAD, Elf, ElfError, ProgramHeader
from deadweight.binary.segments import largest_page
from deadweight.image.content import ContentPiece

_MAX_ALIGN: Final = 1 << 21


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


class Change(NamedTuple):
    """What comes in place of a range of the old file."""

    start: int
    end: int
    pieces: tuple[ContentPiece, ...]


class Places:
    """New offsets for old ones, given where how many bytes go: (old end of a region, its gap), rising."""

    def __init__(self, gaps: Sequence[tuple[int, int]]) -> None:
        self._ends = [end for end, _ in gaps]
        self._total = [0]
        for _, gap in gaps:
            self._total.append(self._total[-1] + gap)

    def __call__(self, offset: int) -> int:
        return offset - self._total[bisect_right(self._ends, offset)]


def page_size(elf: Elf) -> int:
    """What addresses and offsets have to agree modulo: the largest page, or a section's alignment above it."""
    unit = largest_page(elf.machine)
    aligns = [s.align for s in elf.sections if s.allocated] if elf.sections else [p.align for p in elf.loads]
    unit = max([unit, *aligns])
    if unit > _MAX_ALIGN or unit & (unit - 1):
        raise ElfError("an alignment that is not supported")
    return unit


def load_of(elf: Elf, region: Region) -> ProgramHeader:
    found = [p for p in elf.loads if p.offset < region.end and region.start < p.offset + p.filesz]
    if len(found) != 1 or region.start < found[0].offset or found[0].offset + found[0].filesz < region.end:
        raise ElfError("fatbins that are not in exactly one segment")
    return found[0]


def gap_of(elf: Elf, region: Region, unit: int) -> int:
    """How many bytes of a region can go: whole pages."""
    load = load_of(elf, region)
    if region.zeroed and (region.size or any((a - load.offset + load.vaddr) % unit for a in region[:2])):
        raise ElfError("zeroed memory that is not of whole pages")
    for header in elf.program_headers:
        inside = header.offset < region.end and region.start < header.offset + header.filesz
        if inside and header.type != PT_LOAD:
            raise ElfError("a segment that is about a part of the fatbins")
    if region.end == load.offset + load.filesz and load.memsz > load.filesz and not region.zeroed:
        raise ElfError("zeroed memory right behind the fatbins")
    return (region.end - region.start - region.size) // unit * unit


def splits(elf: Elf, regions: Sequence[Region], gaps: Sequence[int]) -> int:
    """How many segments become two."""
    ends = {p.offset + p.filesz for p in elf.loads}
    return sum(1 for region, gap in zip(regions, gaps, strict=True) if gap and region.end not in ends)
