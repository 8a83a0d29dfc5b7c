"""Compares a file whose GPU code was shrunk with its original, content and all, before it takes its place.

It shares the readers with `shrink`, not what that worked out: both files are read whole, as they are. What is not known
to be allowed to change has to be as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from deadweight.binary.compact import tombstone
from deadweight.binary.dynamic import dynamic_entries
from deadweight.binary.elf import (
    HEADER,
    PROGRAM_HEADER,
    SECTION_HEADER,
    SHT_SYMTAB,
    SYMBOL,
    ElfError,
    exactly,
    file_offset,
)
from deadweight.binary.fatbin import ENTRY, FLAG_LZ4, Entry, Fatbin, FatbinError
from deadweight.binary.gpu import Target, select
from deadweight.binary.layout_check import (
    CHUNK,
    Move,
    Shrunk,
    check_layout,
    freed,
    holes_in_memory,
    opened,
    same,
    same_bytes,
    without,
)
from deadweight.binary.recompress import plain
from deadweight.binary.regions import Region
from deadweight.binary.room import ADDRESS_TAGS
from deadweight.binary.shrink import CannotShrink, blob_regions
from deadweight.image.content import Reader


def check_shrunk(read_old: Reader, old_size: int, read_new: Reader, new_size: int, target: Target) -> None:
    """CannotShrink, with the reason, unless the new file is the old one with the GPU code of the target alone.

    The same fatbins in the same order, each pointed at from the same wrapper, with the entries of the target byte for
    byte or a tombstone; all other content of the segments the same at the same addresses; headers that say so.
    """
    try:
        old, new = opened(read_old, old_size), opened(read_new, new_size)
        same([s.number for s in new.sections], [s.number for s in old.sections], "the sections of fatbins differ")
        holes = blob_regions(read_old, old.elf, target) if target.raw_blobs else []
        moved = check_layout(old, new, holes)
        _same_fatbins(old, new, target)
        _same_pointers(old, new)
        check_content(old, new, moved, holes)
    except (ElfError, FatbinError) as error:
        raise CannotShrink(f"self-check: {error}") from error


def check_content(old: Shrunk, new: Shrunk, moved: Sequence[Move], holes: Sequence[Region]) -> None:
    """CannotShrink unless all content is the same at the same addresses, but for what left, moved, or follows that."""
    _same_memory(old, new, moved, holes)
    _same_sections(old, new)
    _same_symbols(old, new, moved)


def _same_fatbins(old: Shrunk, new: Shrunk, target: Target) -> None:
    for one, two in zip(old.sections, new.sections, strict=True):
        same((two.name, two.address), (one.name, one.address), "the sections of fatbins differ")
        same(file_offset(new.elf, two.address, two.size), two.offset, "fatbins are not where their segment is")
        same(len(two.fatbins), len(one.fatbins), "the number of fatbins differs")
        for before, after in zip(one.fatbins, two.fatbins, strict=True):
            _same_fatbin(old, before, new, after, target)


def _same_fatbin(old: Shrunk, before: Fatbin, new: Shrunk, after: Fatbin, target: Target) -> None:
    keep = sorted(select(before.entries, target))
    if keep or not before.entries:
        same(len(after.entries), len(keep), "the number of entries differs")
        for index, entry in zip(keep, after.entries, strict=True):
            original = before.entries[index]
            equal = _digest(new, entry) == _digest(old, original)
            same(equal or (target.recompress and _same_code(old, original, new, entry)), True, "a kept entry differs")
        return
    same(len(after.entries), 1, "a fatbin without a tombstone")
    (entry,) = after.entries
    if select([entry], target):
        raise CannotShrink("self-check: a tombstone that a declared GPU would pick")
    if exactly(new.read, entry.offset, entry.length) != tombstone(before.entries):
        originals = {_digest(old, each) for each in before.entries if each.length == entry.length}
        same(_digest(new, entry) in originals, True, "a tombstone that is none")


def _digest(file: Shrunk, entry: Entry) -> bytes:
    digest = hashlib.sha256(exactly(file.read, entry.offset, ENTRY.size))
    for at in range(entry.offset + ENTRY.size, entry.end, CHUNK):
        digest.update(exactly(file.read, at, min(CHUNK, entry.end - at)))
    return digest.digest()


def _same_code(old: Shrunk, before: Entry, new: Shrunk, after: Entry) -> bool:
    """Whether an entry differs in how it is compressed alone."""
    headers = [bytearray(exactly(f.read, e.offset, e.header_size)) for f, e in ((old, before), (new, after))]
    for header in headers:
        fields = list(ENTRY.unpack_from(header))
        fields[3:5], fields[11], fields[13] = (0, 0), fields[11] & ~FLAG_LZ4, 0
        ENTRY.pack_into(header, 0, *fields)
    one = plain(before, exactly(old.read, before.payload, before.payload_size))
    return headers[0] == headers[1] and one == plain(after, exactly(new.read, after.payload, after.payload_size))


def _same_pointers(old: Shrunk, new: Shrunk) -> None:
    """The n-th fatbin is pointed at from the same places as before, in as many words."""

    def places(file: Shrunk) -> list[tuple[int, int, int, int]]:
        number = {start: n for n, start in enumerate(file.starts())}
        if any(pointer.address not in number for pointer in file.pointers):
            raise CannotShrink("self-check: a pointer to something else than a fatbin")
        return sorted((number[p.address], p.place, p.wrapper, len(p.words)) for p in file.pointers)

    same(places(new), places(old), "the pointers to fatbins differ")


def _same_memory(old: Shrunk, new: Shrunk, moved: Sequence[Move], holes: Sequence[Region]) -> None:
    """Every byte of the old segments is in the new ones, but for those that may change."""
    free = [*_free(old, new, moved), *holes_in_memory(old.elf, holes)]
    for load in old.elf.loads:
        for start, end in without(load.vaddr, load.vaddr + load.filesz, free):
            for at in range(start, end, CHUNK):
                length = min(CHUNK, end - at)
                same(new.at(at, length), old.at(at, length), "the content of a segment differs")
    for move in moved:
        same(new.at(move.now, move.size), old.at(move.start, move.size), "what moved differs")
    # What is left of the pages that fatbins had.
    there = [(move.now, move.now + move.size) for move in moved]
    for start, end in [*freed(old, new), *holes_in_memory(old.elf, holes)]:
        for load in new.elf.loads:
            low, high = max(start, load.vaddr), min(end, load.vaddr + load.filesz)
            for at, stop in without(low, high, there):
                for here in range(at, stop, CHUNK):
                    length = min(CHUNK, stop - here)
                    same(new.at(here, length), bytes(length), "something where GPU code was")


def _free(old: Shrunk, new: Shrunk, moved: Sequence[Move]) -> Iterator[tuple[int, int]]:
    """Addresses whose content may change: fatbins, headers and what moves from behind them, pointers that follow."""
    for section in old.sections:
        yield section.address, section.address + section.size
    for move in moved:
        yield move.start, move.end
    table = new.elf.phoff, new.elf.phoff + len(new.elf.program_headers) * PROGRAM_HEADER.size
    # patchelf leaves the section headers inside a segment.
    sections = old.elf.shoff, old.elf.shoff + len(old.elf.sections) * SECTION_HEADER.size
    following = dict(zip(old.starts(), new.starts(), strict=True))
    words = [
        word for pointer in old.pointers if following[pointer.address] != pointer.address for word in pointer.words
    ]
    words += [
        entry.offset
        for entry in dynamic_entries(old.read, old.elf)
        if entry.tag in ADDRESS_TAGS and any(move.start <= entry.value < move.end for move in moved)
    ]
    in_file = [(0, HEADER.size), table, sections, *((word, word + 8) for word in words)]
    for load in old.elf.loads:
        for start, end in in_file:
            if start < load.offset + load.filesz and load.offset < end:
                skip = load.vaddr - load.offset
                yield max(start, load.offset) + skip, min(end, load.offset + load.filesz) + skip


def _same_sections(old: Shrunk, new: Shrunk) -> None:
    """What is in the file but not in memory, symbols aside."""
    for one, two in zip(old.elf.sections, new.elf.sections, strict=False):
        if one.file_size and not one.allocated and one.type != SHT_SYMTAB:
            equal = same_bytes(old, one.offset, new, two.offset, one.size)
            same(equal, True, "the content of a section differs")


def _same_symbols(old: Shrunk, new: Shrunk, moved: Sequence[Move]) -> None:
    """Debuggers' symbols are the same, or follow what they are about."""
    shifts = {move.start: move.now - move.start for move in moved}
    by = {number: shifts[s.addr] for number, s in enumerate(old.elf.sections) if s.file_size and s.addr in shifts}
    fatbins = {section.number: section for section in old.sections}
    now = dict(zip(old.starts(), new.starts(), strict=True))
    step = CHUNK // SYMBOL.size * SYMBOL.size
    for one, two in zip(old.elf.sections, new.elf.sections, strict=False):
        if one.type != SHT_SYMTAB or one.size % SYMBOL.size:
            continue
        for at in range(0, one.size, step):
            rows = (exactly(f.read, s.offset + at, min(step, one.size - at)) for f, s in ((old, one), (new, two)))
            for symbol, found in zip(*map(SYMBOL.iter_unpack, rows), strict=True):
                *fields, index, value, size = symbol
                wanted = (value + by.get(index, 0)) % (1 << 64)
                section = fatbins.get(index)
                if section is not None and 0 <= value - section.address <= section.size:
                    wanted, size = now.get(value, section.address), min(size, found[5])
                same(found, (*fields, index, wanted, size), "symbols differ")
