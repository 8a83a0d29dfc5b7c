"""Compares a file whose GPU code was shrunk with its original, content and all, before it takes its place.

It shares the readers with `shrink`, not what that worked out: both files are read whole, as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from deadweight.binary.compact import tombstone
from deadweight.binary.dynamic import dynamic, dynamic_entries, hash_table, interpreter
from deadweight.binary.elf import (
    PROGRAM_HEADER,
    PT_LOAD,
    PT_PHDR,
    SECTION_HEADER,
    SHT_SYMTAB,
    Elf,
    ElfError,
    exactly,
    parse,
)
from deadweight.binary.fatbin import ENTRY, FLAG_LZ4, Entry, Fatbin, FatbinError
from deadweight.binary.gpu import Target, select
from deadweight.binary.recompress import plain
from deadweight.binary.references import Range, Reference, references
from deadweight.binary.regions import Region, page_size
from deadweight.binary.room import ADDRESS_TAGS
from deadweight.binary.shrink import CannotShrink, FatbinSection, blob_regions, fatbin_sections
from deadweight.image.content import Reader

_CHUNK: Final = 1 << 20


class _File(NamedTuple):
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


def check_shrunk(read_old: Reader, old_size: int, read_new: Reader, new_size: int, target: Target) -> None:
    """CannotShrink, with the reason, unless the new file is the old one with the GPU code of the target alone.

    The same fatbins in the same order, each pointed at from the same wrapper, with the entries of the target byte for
    byte or a tombstone; all other content of the segments the same at the same addresses; nothing out of bounds.
    """
    try:
        old, new = _open(read_old, old_size), _open(read_new, new_size)
        _same_headers(old, new)
        _same_fatbins(old, new, target)
        _same_pointers(old, new)
        holes = blob_regions(read_old, old.elf, target) if target.raw_blobs else []
        _same_memory(old, new, holes)
        _same_sections(old, new, holes)
    except (ElfError, FatbinError) as error:
        raise CannotShrink(f"self-check: {error}") from error


def _open(read: Reader, size: int) -> _File:
    elf = parse(read, size)
    sections = fatbin_sections(read, elf)
    ranges = [Range(s.address, s.address + s.size) for s in sections]
    return _File(read, elf, sections, references(read, elf, ranges, frozenset(_starts(sections))))


def _starts(sections: Sequence[FatbinSection]) -> list[int]:
    return [f.offset - s.offset + s.address for s in sections for f in s.fatbins]


def _same(one: object, two: object, what: str) -> None:
    if one != two:
        raise CannotShrink(f"self-check: {what}")


def _same_headers(old: _File, new: _File) -> None:
    for field in ("elf_type", "machine", "version", "entry", "flags"):
        _same(getattr(old.elf, field), getattr(new.elf, field), "the ELF headers differ")
    for asked in (dynamic, interpreter):
        _same(asked(old.read, old.elf), asked(new.read, new.elf), "the dynamic entries differ")
    unit = page_size(new.elf)
    for before, after in pairwise(new.elf.loads):
        if before.vaddr + before.memsz > after.vaddr:
            raise CannotShrink("self-check: segments that overlap or are out of order")
    for header in new.elf.program_headers:
        if header.type == PT_LOAD:
            _same((header.offset - header.vaddr) % header.align, 0, "offset and address of a segment disagree")
            if header.filesz > header.memsz:
                raise CannotShrink("self-check: a segment that is larger in the file than in memory")
        elif header.type == PT_PHDR:
            _same(header.filesz, len(new.elf.program_headers) * PROGRAM_HEADER.size, "the program headers' own size")
            _same(header.offset, new.elf.phoff, "the program headers' place")
        elif header.filesz:
            _same(
                new.at(header.vaddr, header.filesz), exactly(new.read, header.offset, header.filesz), "a segment moved"
            )
    kinds = [p.type for p in old.elf.program_headers if p.type != PT_LOAD]
    _same([p.type for p in new.elf.program_headers if p.type != PT_LOAD], kinds, "the program headers differ")
    # What was a page of its own must not share one now: the later mapping would hide the earlier.
    for before, after in pairwise(p for p in new.elf.loads if p.memsz):
        shared = (before.vaddr + before.memsz - 1) // unit == after.vaddr // unit
        if shared and not any(p.vaddr == after.vaddr for p in old.elf.loads):
            raise CannotShrink("self-check: parts of a segment share a page")


def _same_fatbins(old: _File, new: _File, target: Target) -> None:
    _same([s.number for s in new.sections], [s.number for s in old.sections], "the sections of fatbins differ")
    for one, two in zip(old.sections, new.sections, strict=True):
        _same(len(two.fatbins), len(one.fatbins), "the number of fatbins differs")
        for before, after in zip(one.fatbins, two.fatbins, strict=True):
            _same_fatbin(old, before, new, after, target)


def _same_fatbin(old: _File, before: Fatbin, new: _File, after: Fatbin, target: Target) -> None:
    keep = sorted(select(before.entries, target))
    if keep or not before.entries:
        _same(len(after.entries), len(keep), "the number of entries differs")
        for index, entry in zip(keep, after.entries, strict=True):
            original = before.entries[index]
            same = _digest(new, entry) == _digest(old, original)
            _same(same or (target.recompress and _same_code(old, original, new, entry)), True, "a kept entry differs")
        return
    _same(len(after.entries), 1, "a fatbin without a tombstone")
    (entry,) = after.entries
    if select([entry], target):
        raise CannotShrink("self-check: a tombstone that a declared GPU would pick")
    if exactly(new.read, entry.offset, entry.length) != tombstone(before.entries):
        originals = {_digest(old, each) for each in before.entries if each.length == entry.length}
        _same(_digest(new, entry) in originals, True, "a tombstone that is none")


def _digest(file: _File, entry: Entry) -> bytes:
    digest = hashlib.sha256(exactly(file.read, entry.offset, ENTRY.size))
    for at in range(entry.offset + ENTRY.size, entry.end, _CHUNK):
        digest.update(exactly(file.read, at, min(_CHUNK, entry.end - at)))
    return digest.digest()


def _same_code(old: _File, before: Entry, new: _File, after: Entry) -> bool:
    """Whether an entry differs in how it is compressed alone."""
    headers = [bytearray(exactly(f.read, e.offset, e.header_size)) for f, e in ((old, before), (new, after))]
    for header in headers:
        fields = list(ENTRY.unpack_from(header))
        fields[3:5], fields[11], fields[13] = (0, 0), fields[11] & ~FLAG_LZ4, 0
        ENTRY.pack_into(header, 0, *fields)
    one = plain(before, exactly(old.read, before.payload, before.payload_size))
    return headers[0] == headers[1] and one == plain(after, exactly(new.read, after.payload, after.payload_size))


def _same_pointers(old: _File, new: _File) -> None:
    """The n-th fatbin is pointed at from the same places as before."""

    def places(file: _File) -> list[tuple[int, int, int]]:
        number = {start: n for n, start in enumerate(_starts(file.sections))}
        if any(pointer.address not in number for pointer in file.pointers):
            raise CannotShrink("self-check: a pointer to something else than a fatbin")
        return sorted((number[p.address], p.place, p.wrapper) for p in file.pointers)

    _same(places(new), places(old), "the pointers to fatbins differ")


def _same_memory(old: _File, new: _File, holes: Sequence[Region]) -> None:
    """Every byte of the old segments is in the new ones, but for those that may change."""
    free = sorted([*_free(old, new), *_zeroed(old, new, holes)])
    for load in old.elf.loads:
        for start, end in _without(load.vaddr, load.vaddr + load.filesz, free):
            for at in range(start, end, _CHUNK):
                length = min(_CHUNK, end - at)
                if old.at(at, length) != new.at(at, length):
                    raise CannotShrink("self-check: the content of a segment differs")
    for start, length, now in _relocated(old, new):
        _same(new.at(now, length), old.at(start, length), "what moved differs")
    if sum(p.memsz for p in new.elf.loads) > sum(p.memsz for p in old.elf.loads):
        raise CannotShrink("self-check: more memory than before")


def _free(old: _File, new: _File) -> Iterator[tuple[int, int]]:
    """Addresses whose content may change: fatbins, headers and what moves from behind them, pointers that follow."""
    for section in old.sections:
        yield section.address, section.address + section.size
    table_end = new.elf.phoff + len(new.elf.program_headers) * PROGRAM_HEADER.size
    behind = [start + length for start, length, _ in _relocated(old, new)]
    # patchelf leaves the section headers inside a segment.
    sections = old.elf.shoff, old.elf.shoff + len(old.elf.sections) * SECTION_HEADER.size
    for load in old.elf.loads:
        skip = load.vaddr - load.offset
        for start, end in ((0, 64), (old.elf.phoff, max([table_end, *(end - skip for end in behind)])), sections):
            if start < load.offset + load.filesz and load.offset < end:
                yield max(start, load.offset) + skip, min(end, load.offset + load.filesz) + skip
    moved = {o: n for o, n in zip(_starts(old.sections), _starts(new.sections), strict=True) if o != n}
    words = [word for pointer in old.pointers if pointer.address in moved for word in pointer.words]
    words += [entry.offset for entry in dynamic_entries(old.read, old.elf) if entry.tag in ADDRESS_TAGS]
    for word in words:
        for load in old.elf.loads:
            if load.offset <= word < load.offset + load.filesz:
                yield word - load.offset + load.vaddr, word - load.offset + load.vaddr + 8


def _zeroed(old: _File, new: _File, holes: Sequence[Region]) -> Iterator[tuple[int, int]]:
    """The addresses of blobs that were taken out, which are zeroed memory now."""
    for hole in holes:
        load = next(p for p in old.elf.loads if p.offset <= hole.start < p.offset + p.filesz)
        start, end = (at - load.offset + load.vaddr for at in (hole.start, hole.end))
        # What had to make room for the program headers may lie in the first pages.
        if not any(start <= p.vaddr + p.filesz < end <= p.vaddr + p.memsz for p in new.elf.loads):
            raise CannotShrink("self-check: a blob that was taken out is no zeroed memory")
        yield start, end


def _without(start: int, end: int, free: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for low, high in free:
        if high <= start or low >= end:
            continue
        if start < low:
            yield start, low
        start = max(start, high)
    if start < end:
        yield start, end


def _relocated(old: _File, new: _File) -> Iterator[tuple[int, int, int]]:
    """What has another address than before: old address, bytes, new address."""
    for one, two in zip(old.elf.sections, new.elf.sections, strict=False):
        if one.allocated and one.addr != two.addr:
            yield one.addr, one.file_size, two.addr
    headers = ([p for p in f.elf.program_headers if p.type != PT_LOAD] for f in (old, new))
    for before, after in zip(*headers, strict=True):
        if before.vaddr != after.vaddr:
            yield before.vaddr, before.filesz, after.vaddr
    table, now = (hash_table(f.read, f.elf, dynamic_entries(f.read, f.elf)) for f in (old, new))
    if table is not None and now is not None and table.address != now.address:
        yield table.address, table.size, now.address


def _same_sections(old: _File, new: _File, holes: Sequence[Region]) -> None:
    fatbins = {section.number for section in old.sections}
    if len(new.elf.sections) != len(old.elf.sections) and not holes:
        raise CannotShrink("self-check: the number of sections differs")
    split = {number for number, s in enumerate(old.elf.sections) for h in holes if s.offset <= h.start < s.end}
    for number, (one, two) in enumerate(zip(old.elf.sections, new.elf.sections, strict=False)):
        _same(two._replace(addr=0, offset=0, size=0), one._replace(addr=0, offset=0, size=0), "the sections differ")
        if number in fatbins | split or not one.file_size:
            continue
        _same(two.size, one.size, "the sections differ in size")
        if two.allocated:
            _same(new.at(two.addr, 1), exactly(new.read, two.offset, 1), "a section is not where its segment is")
        if one.addr != two.addr or not (one.allocated or one.type == SHT_SYMTAB):
            for at in range(0, one.size, _CHUNK):
                length = min(_CHUNK, one.size - at)
                before, after = exactly(old.read, one.offset + at, length), exactly(new.read, two.offset + at, length)
                _same(after, before, "the content of a section differs")
    now = {start: at for start, _, at in _relocated(old, new)}
    tags = {entry.tag: entry.value for entry in dynamic_entries(new.read, new.elf)}
    for entry in dynamic_entries(old.read, old.elf):
        if entry.tag in ADDRESS_TAGS:
            _same(tags.get(entry.tag), now.get(entry.value, entry.value), "a dynamic entry points elsewhere")
