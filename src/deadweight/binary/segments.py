"""What the segments of a program or library have to be like before anything in the file may move."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from deadweight.binary.elf import MACHINES, PT_PHDR, Elf, file_offset

_MIN_PAGE: Final = 4096
_SMALL_PAGES: Final = frozenset({MACHINES["386"], MACHINES["amd64"]})
_MAX_PAIRS: Final = 1 << 20  # of a segment and a section: callers go through all of them
_MAX_ALIGN: Final = 16 << 20  # far above every page size; 2 MiB is the largest in use


def largest_page(machine: int) -> int:
    """The bytes of the largest page that systems for an e_machine have: 64 KiB but on x86."""
    return 4096 if machine in _SMALL_PAGES else 65536


def irregular(elf: Elf) -> str | None:
    """The reason to leave a file alone that its segments give, in a line; None where they are as linkers make them."""
    loads = elf.loads
    if len(elf.program_headers) * len(elf.sections) > _MAX_PAIRS:
        return "too many segments and sections"
    if not any(load.filesz for load in loads):
        return "no segments with content"
    for load in loads:
        if load.align < _MIN_PAGE or load.align > _MAX_ALIGN or load.align & (load.align - 1):
            return "a segment with an unusual alignment"
        if (load.offset - load.vaddr) % load.align:
            return "a segment whose offset and address disagree"
        if load.filesz > load.memsz:
            return "a segment that is larger in the file than in memory"
        if not load.filesz and load.vaddr % load.align:
            # loaders map the page of the file that it begins in, so the place in the file would matter
            return "an empty segment that does not begin a page"
    for before, after in pairwise(loads):
        if before.vaddr + before.memsz > after.vaddr:
            return "segments that overlap or are out of order"
    in_file = sorted((load.offset, load.offset + load.filesz) for load in loads if load.filesz)
    for one, other in pairwise(in_file):
        if one[1] > other[0]:
            return "segments that share bytes of the file"
    for header in elf.program_headers:
        if header.type == PT_PHDR and header.offset != elf.phoff:
            return "two tables of program headers"
        if header.filesz and file_offset(elf, header.vaddr, header.filesz) != header.offset:
            return "a segment that is not loaded but has content"
    return None
