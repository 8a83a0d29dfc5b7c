"""What an ELF file asks of the dynamic loader: PT_INTERP and the entries of PT_DYNAMIC.

Works from segments as the loader does, so a file without section headers is read as well. The format is that of the
System V gABI, chapter 5. Files are hostile: what does not fit raises `ElfError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from deadweight.binary.elf import PT_DYNAMIC, PT_INTERP, Elf, ElfError, exactly, file_offset
from deadweight.image.content import Reader

DT_NULL, DT_NEEDED, DT_STRTAB, DT_STRSZ, DT_SONAME, DT_RPATH, DT_RUNPATH = 0, 1, 5, 10, 14, 15, 29
DT_HASH, DT_SYMTAB, DT_GNU_HASH = 4, 6, 0x6FFFFEF5

ENTRY: Final = struct.Struct("<qQ")
MAX_ENTRIES: Final = 16384
MAX_STRING: Final = 4096  # PATH_MAX; also the longest DT_NEEDED that the loader could open
MAX_RUN_PATH: Final = 65536
_MAX_STRINGS: Final = 256 << 20  # bytes; the largest library's table has 30 million
_MAX_BUCKETS: Final = 1 << 22  # of a hash table; those of the largest library have 1 << 17
_CHAIN_CHUNK: Final = 4096  # bytes: nearly all chains are shorter


class Dynamic(msgspec.Struct, frozen=True):
    """What a file asks of the dynamic loader. Paths are split at colons and not expanded ($ORIGIN stays)."""

    needed: tuple[str, ...] = ()
    soname: str | None = None
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()


class HashTable(NamedTuple):
    """Where the hash table over the dynamic symbols is: address and bytes, and how many symbols there are."""

    address: int
    size: int
    symbols: int


class DynamicEntry(NamedTuple):
    """One entry of the dynamic section; `offset` is where the file has its value."""

    tag: int
    value: int
    offset: int


def interpreter(read: Reader, elf: Elf) -> str | None:
    """The dynamic loader that a program asks for (PT_INTERP); None for a library or a static program."""
    for header in elf.program_headers:
        if header.type == PT_INTERP:
            if not 0 < header.filesz <= MAX_STRING:
                raise ElfError("the name of the interpreter is too long")
            raw = exactly(read, header.offset, header.filesz)
            return _text(raw, "the name of the interpreter")
    return None


def dynamic_entries(read: Reader, elf: Elf) -> list[DynamicEntry]:
    """The entries of the dynamic section up to DT_NULL; none for a static file."""
    segments = [p for p in elf.program_headers if p.type == PT_DYNAMIC]
    if not segments or not segments[-1].filesz:
        return []
    segment = segments[-1]  # glibc's loop over the table lets the last one win
    offset = file_offset(elf, segment.vaddr, ENTRY.size)
    if offset is None:
        raise ElfError("the dynamic section is in no segment")
    length = min(segment.filesz // ENTRY.size, MAX_ENTRIES + 1) * ENTRY.size
    if offset + length > elf.size:
        raise ElfError("the dynamic section points outside the file")
    found: list[DynamicEntry] = []
    for number, (tag, value) in enumerate(ENTRY.iter_unpack(exactly(read, offset, length))):
        if tag == DT_NULL:
            break
        if number == MAX_ENTRIES:
            raise ElfError(f"more than {MAX_ENTRIES} dynamic entries")
        found.append(DynamicEntry(tag, value, offset + number * ENTRY.size + 8))
    return found


def dynamic(read: Reader, elf: Elf) -> Dynamic:
    """The libraries the file needs, its own name and its search paths; all empty for a static file."""
    single: dict[int, int] = {}
    needed: list[int] = []
    for tag, value, _ in dynamic_entries(read, elf):
        if tag == DT_NEEDED:
            needed.append(value)
        else:
            single[tag] = value

    if not needed and not {DT_SONAME, DT_RPATH, DT_RUNPATH} & single.keys():
        return Dynamic()
    start, total = single.get(DT_STRTAB, 0), single.get(DT_STRSZ, 0)
    strings = file_offset(elf, start, total)
    if not total or strings is None:
        raise ElfError("the dynamic string table is in no segment")

    def string(at: int, limit: int = MAX_STRING) -> str:
        if at >= total:
            raise ElfError("a dynamic string lies outside its table")
        return _text(exactly(read, strings + at, min(limit, total - at)), "a dynamic string")

    def paths(tag: int) -> tuple[str, ...]:
        text = string(single[tag], MAX_RUN_PATH) if tag in single else ""
        return tuple(text.split(":")) if text else ()

    return Dynamic(
        needed=tuple(string(at) for at in needed),
        soname=string(single[DT_SONAME]) if DT_SONAME in single else None,
        rpath=paths(DT_RPATH),
        runpath=paths(DT_RUNPATH),
    )


def dynamic_strings(read: Reader, elf: Elf) -> bytes:
    """The table with the names of all dynamic symbols and libraries; empty for a static file."""
    tags = {entry.tag: entry.value for entry in dynamic_entries(read, elf)}
    start, total = tags.get(DT_STRTAB, 0), tags.get(DT_STRSZ, 0)
    if not total:
        return b""
    if total > _MAX_STRINGS:
        raise ElfError("the dynamic string table is too long")
    strings = file_offset(elf, start, total)
    if strings is None:
        raise ElfError("the dynamic string table is in no segment")
    return exactly(read, strings, total)


def _text(raw: bytes, what: str) -> str:
    text, nul, _ = raw.partition(b"\0")
    if not nul:
        raise ElfError(f"{what} does not end")
    return text.decode("utf-8", "surrogateescape")


def hash_table(read: Reader, elf: Elf, entries: Iterable[DynamicEntry]) -> HashTable | None:
    """The hash table over the dynamic symbols, GNU's if there is one. ElfError where it does not add up."""
    tags = {entry.tag: entry.value for entry in entries}
    if DT_GNU_HASH in tags:
        return _gnu_hash(read, elf, tags[DT_GNU_HASH])
    if DT_HASH in tags:
        address = tags[DT_HASH]
        buckets, chains = struct.unpack("<II", _at(read, elf, address, 8))
        size = 8 + 4 * (buckets + chains)
        if file_offset(elf, address, size) is None:
            raise ElfError("a hash table that is in no segment")
        return HashTable(address, size, chains)
    return None


def _gnu_hash(read: Reader, elf: Elf, address: int) -> HashTable:
    """GNU's hash table: four counts, a Bloom filter, buckets, and chains whose last member is odd."""
    buckets, first, bloom, _ = struct.unpack("<4I", _at(read, elf, address, 16))
    if buckets > _MAX_BUCKETS:
        raise ElfError("a hash table of too many buckets")
    start = address + 16 + 8 * bloom
    last = max(memoryview(_at(read, elf, start, 4 * buckets)).cast("I"), default=0)
    chains = start + 4 * buckets
    if last < first:  # no symbols in it, but for those below the first
        return HashTable(address, chains - address, first)
    last += _steps(read, elf, chains + 4 * (last - first))
    return HashTable(address, chains + 4 * (last + 1 - first) - address, last + 1)


def _steps(read: Reader, elf: Elf, address: int) -> int:
    """How many members of a chain come before its last, counted from the one at an address."""
    offset = file_offset(elf, address, 4)
    if offset is None:
        raise ElfError("a hash table that is in no segment")
    end = next(p.offset + p.filesz for p in elf.loads if p.offset <= offset < p.offset + p.filesz)
    length = _CHAIN_CHUNK
    for at in range(offset, end - 3, length):
        low_bytes = exactly(read, at, min(length, (end - at) // 4 * 4))[::4]
        odd = next((number for number, byte in enumerate(low_bytes) if byte & 1), None)
        if odd is not None:
            return (at - offset) // 4 + odd
    raise ElfError("a hash table that does not end in its segment")


def _at(read: Reader, elf: Elf, address: int, length: int) -> bytes:
    offset = file_offset(elf, address, length)
    if offset is None:
        raise ElfError("a hash table that is in no segment")
    return exactly(read, offset, length)
