"""Finds what points at fatbins: the one place that must change when a fatbin moves, and whatever else there is.

The CUDA runtime reaches a fatbin through a wrapper, a 24-byte structure that holds its address. In position-independent
files the loader writes that address, by a relocation (R_*_RELATIVE with the address as addend, or RELR with the address
in place); in others the linker has written it. Numbers are those of the x86-64 and AArch64 psABIs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple

from deadweight.binary.dynamic import DT_SYMTAB, dynamic_entries, hash_table
from deadweight.binary.elf import (
    ET_EXEC,
    PF_X,
    PROGRAM_HEADER,
    SHT_DYNSYM,
    SYMBOL,
    Elf,
    ElfError,
    ProgramHeader,
    exactly,
    file_offset,
)
from deadweight.binary.fatbin import WRAPPER, WRAPPER_MAGIC
from deadweight.image.content import Reader

EM_X86_64, EM_AARCH64 = 62, 183
RELATIVE: Final = {EM_X86_64: 8, EM_AARCH64: 1027}
"""The relocation that adds the load address to its addend, by e_machine."""
_OFFSETS_IN_TLS: Final = {
    EM_X86_64: frozenset({16, 17, 18, 36}),  # DTPMOD64, DTPOFF64, TPOFF64, TLSDESC
    EM_AARCH64: frozenset({1028, 1029, 1030, 1031}),
}
"""Relocations whose addend is no address."""

DT_PLTRELSZ, DT_RELA, DT_RELASZ, DT_REL, DT_JMPREL, DT_RELRSZ, DT_RELR = 2, 7, 8, 17, 23, 35, 36

_RELA: Final = struct.Struct("<QIIQ")  # offset, type, symbol, addend
_WORD: Final = struct.Struct("<Q")
_CHUNK: Final = _RELA.size << 16
_MAX_TABLE: Final = 1 << 30  # bytes of relocations; the most that was seen are 11 MB
_MAX_RELR: Final = 1 << 21  # places that RELR tells, which is dense: 8 bytes for 63 of them
_MAX_POINTERS: Final = 1 << 18  # into fatbins: each should have one


class Range(NamedTuple):
    """Addresses from `start` up to `end`."""

    start: int
    end: int


class Reference(NamedTuple):
    """A pointer to `address`. To change it, write the new one at each of `words`, offsets in the file."""

    address: int
    words: tuple[int, ...]
    wrapper: int
    """The version of the wrapper that it is in; 0 where it is in none."""
    place: int
    """Its own address; 0 where that is not known."""


def references(read: Reader, elf: Elf, ranges: Sequence[Range], starts: frozenset[int]) -> list[Reference]:
    """All pointers into the ranges that a file has, as far as linkers make them known. ElfError where it is damaged.

    A pointer without `words` is one of a kind that is not understood. Not seen are offsets inside machine code; nor, in
    files that are loaded where they were linked to, numbers that are none of `starts`.
    """
    if elf.machine not in RELATIVE:
        raise ElfError("a machine whose relocations are not known here")
    if not ranges:
        return []
    tags = {entry.tag: entry.value for entry in dynamic_entries(read, elf)}
    if DT_REL in tags:
        raise ElfError("relocations without addends")
    by_word = _by_word(read, elf, ranges, starts) if elf.elf_type == ET_EXEC else ()
    pointers = chain(
        _by_rela(read, elf, tags, ranges), _by_relr(read, elf, tags, ranges), by_word, _by_symbol(read, elf, ranges)
    )
    found = list(islice(pointers, _MAX_POINTERS + 1))
    if len(found) > _MAX_POINTERS:
        raise ElfError("too many pointers")
    return found


def _in(ranges: Sequence[Range], address: int) -> bool:
    return any(r.start <= address < r.end for r in ranges)


def _pointer(read: Reader, elf: Elf, ranges: Sequence[Range], address: int, place: int, word: int | None) -> Reference:
    """The reference that the word at the address `place` is; `word` is where a relocation has its addend."""
    at = file_offset(elf, place, _WORD.size)
    words = [] if word is None else [word]
    if at is not None and (word is None or exactly(read, at, _WORD.size) == _WORD.pack(address)):
        words.append(at)
    version = 0
    begin = file_offset(elf, place - 8, WRAPPER.size)
    if begin is not None and not _in(ranges, place):
        magic, number, _, _ = WRAPPER.unpack(exactly(read, begin, WRAPPER.size))
        version = number if magic == WRAPPER_MAGIC else 0
    return Reference(address, tuple(words), version, place)


def _by_rela(read: Reader, elf: Elf, tags: dict[int, int], ranges: Sequence[Range]) -> Iterator[Reference]:
    low, high = min(r.start for r in ranges), max(r.end for r in ranges)
    relative, no_address = RELATIVE[elf.machine], _OFFSETS_IN_TLS[elf.machine]
    tables = [(tags.get(DT_RELA), tags.get(DT_RELASZ)), (tags.get(DT_JMPREL), tags.get(DT_PLTRELSZ))]
    for start, size in tables:
        if not start or not size:
            continue
        offset = file_offset(elf, start, size)
        if offset is None or size % _RELA.size or size > _MAX_TABLE:
            raise ElfError("a relocation table that is in no segment")
        for at in range(offset, offset + size, _CHUNK):
            rows = exactly(read, at, min(_CHUNK, offset + size - at))
            for number, (place, kind, symbol, addend) in enumerate(_RELA.iter_unpack(rows)):
                if low <= place < high and _in(ranges, place):
                    raise ElfError("a relocation of what may move")
                if not low <= addend < high or not _in(ranges, addend):
                    continue
                if kind == relative and not symbol:
                    yield _pointer(read, elf, ranges, addend, place, at + number * _RELA.size + 16)
                elif not symbol and kind not in no_address:
                    yield Reference(addend, (), 0, place)


def _by_relr(read: Reader, elf: Elf, tags: dict[int, int], ranges: Sequence[Range]) -> Iterator[Reference]:
    """RELR: an even word is an address to relocate; an odd one is a bitmap of which of the next 63 words follow."""
    start, size = tags.get(DT_RELR), tags.get(DT_RELRSZ)
    if not start or not size:
        return
    offset = file_offset(elf, start, size)
    if offset is None or size % _WORD.size or size > _MAX_TABLE:
        raise ElfError("a relocation table that is in no segment")
    words = _Words(read, elf)
    place = count = 0
    for (row,) in _WORD.iter_unpack(exactly(read, offset, size)):
        if not row & 1 and row < place:
            raise ElfError("relocations out of order")
        places = [row] if not row & 1 else [place + 8 * i for i in range(63) if row >> (i + 1) & 1]
        place = row + 8 if not row & 1 else place + 63 * 8
        count += len(places)
        if count > _MAX_RELR:
            raise ElfError("too many relocations")
        for one in places:
            if _in(ranges, one):
                raise ElfError("a relocation of what may move")
            address = words.at(one)
            if _in(ranges, address):
                yield _pointer(read, elf, ranges, address, one, None)


class _Words:
    """Reads 8-byte words by rising addresses, a chunk at a time."""

    def __init__(self, read: Reader, elf: Elf) -> None:
        self._read, self._elf = read, elf
        self._start, self._data = 0, b""

    def at(self, address: int) -> int:
        index = address - self._start
        if not 0 <= index <= len(self._data) - _WORD.size:
            offset = file_offset(self._elf, address, _WORD.size)
            if offset is None:
                raise ElfError("a relocation of what is in no segment")
            end = next(p.offset + p.filesz for p in self._elf.loads if p.offset <= offset < p.offset + p.filesz)
            self._start, self._data, index = address, exactly(self._read, offset, min(1 << 16, end - offset)), 0
        value: int = _WORD.unpack_from(self._data, index)[0]
        return value


def _by_word(read: Reader, elf: Elf, ranges: Sequence[Range], starts: frozenset[int]) -> Iterator[Reference]:
    """In a file that is loaded where it was linked to: words of data, and 32-bit operands of code."""
    table = len(elf.program_headers) * PROGRAM_HEADER.size
    for load in elf.loads:
        # A segment may begin with a fatbin: its header says so, and points at nothing.
        headers = Range(load.vaddr + elf.phoff - load.offset, load.vaddr + elf.phoff - load.offset + table)
        for start, end in _outside(load, [*ranges, headers]):
            offset = start - load.vaddr + load.offset
            if load.flags & PF_X:
                yield from _operands(read, offset, end - start, starts)
            first = -start % _WORD.size
            for at in range(first, end - start - 7, _CHUNK):
                data = exactly(read, offset + at, min(_CHUNK, (end - start - at) // 8 * 8))
                for number, value in enumerate(memoryview(data).cast("Q")):
                    if value in starts:
                        yield _pointer(read, elf, ranges, value, start + at + number * 8, None)


def _operands(read: Reader, offset: int, size: int, starts: frozenset[int]) -> Iterator[Reference]:
    """Numbers that an instruction may hold as an address, in code: of a kind that is not changed here."""
    for at in range(0, size, _CHUNK):
        data = exactly(read, offset + at, min(_CHUNK + 7, size - at))
        for shift in range(4):
            part = memoryview(data)[shift : shift + (len(data) - shift) // 4 * 4].cast("I")
            for value in starts.intersection(part):
                yield Reference(value, (), 0, 0)


def _by_symbol(read: Reader, elf: Elf, ranges: Sequence[Range]) -> Iterator[Reference]:
    """Symbols that other files can see."""
    tables = [(section.offset, section.size) for section in elf.sections if section.type == SHT_DYNSYM]
    if not elf.sections:
        entries = dynamic_entries(read, elf)
        start = next((entry.value for entry in entries if entry.tag == DT_SYMTAB), None)
        table = hash_table(read, elf, entries)
        if start is not None and table is not None:
            tables = [(file_offset(elf, start, table.symbols * SYMBOL.size) or 0, table.symbols * SYMBOL.size)]
    if sum(size for _, size in tables) > min(elf.size, _MAX_TABLE):
        raise ElfError("symbol tables that overlap")
    for offset, size in tables:
        if size % SYMBOL.size:
            raise ElfError("a symbol table of an odd size")
        for at in range(offset, offset + size, _CHUNK):  # a multiple of a symbol's size, which is that of a relocation
            for _, _, _, index, value, _ in SYMBOL.iter_unpack(exactly(read, at, min(_CHUNK, offset + size - at))):
                if index and _in(ranges, value):
                    yield Reference(value, (), 0, 0)


def _outside(load: ProgramHeader, ranges: Sequence[Range]) -> Iterator[Range]:
    """The addresses of a segment's content that are not in the ranges."""
    at, stop = load.vaddr, load.vaddr + load.filesz
    for one in sorted(ranges):
        if one.end <= at or one.start >= stop:
            continue
        if at < one.start:
            yield Range(at, one.start)
        at = max(at, one.end)
    if at < stop:
        yield Range(at, stop)
