"""Takes GPU code out of programs and libraries that no declared GPU runs, and makes the files really smaller.

The sections of fatbins close up, the pointers to the fatbins follow, and the freed pages leave the file while every
address outside those sections stays what it was. A file for which that is not certain stays as it is: `CannotShrink`
says why. Among those are files in which a fatbin would move that is not pointed at exactly once, by a wrapper.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from deadweight.binary.blobs import find_fatbins, foreign_runs
from deadweight.binary.compact import Compacted, compact
from deadweight.binary.elf import (
    ET_DYN,
    ET_EXEC,
    PT_INTERP,
    SHT_NOBITS,
    SHT_REL,
    SHT_RELA,
    SYMBOL,
    Elf,
    ElfError,
    file_offset,
    parse,
    symbols,
)
from deadweight.binary.fatbin import Entry, Fatbin, FatbinError, parse_section
from deadweight.binary.gpu import Target, select, service
from deadweight.binary.recompress import recompress
from deadweight.binary.references import Range, Reference, references
from deadweight.binary.regions import Region, page_size
from deadweight.binary.relayout import cut
from deadweight.binary.segments import irregular
from deadweight.image.content import Content, Reader

NOTHING: Final = "nothing to drop"
SECTIONS: Final = ("__nv_relfatbin", ".nv_fatbin")
"""Sections that hold fatbins and nothing else."""
MIN_SAVING: Final = 4096
"""Bytes: a file that would shrink by less stays as it is."""
MIN_HOLE: Final = 1 << 18
"""Bytes: less of blobs in data is not worth a mapping, each of which makes loading a library slower."""
_MAX_SECTIONS: Final = 64  # of fatbins; linkers make two at most, and only files without section headers have more
_MAX_SYMBOLS: Final = 1 << 18


class CannotShrink(ValueError):
    """The file stays as it is; the message is the reason, in one line."""


class FatbinSection(NamedTuple):
    """A section of fatbins; their offsets count from the file's beginning."""

    name: str
    number: int
    offset: int
    address: int
    size: int
    fatbins: tuple[Fatbin, ...]

    def address_of(self, fatbin: Fatbin) -> int:
        """Where one of its fatbins is in memory."""
        return fatbin.offset - self.offset + self.address

    @property
    def starts(self) -> list[int]:
        """The addresses of its fatbins."""
        return [self.address_of(fatbin) for fatbin in self.fatbins]


def shrink_gpu_code(read: Reader, size: int, target: Target) -> Content:
    """The file with the GPU code of the target alone. CannotShrink where it must stay as it is.

    Deterministic; a second time there is nothing to drop.
    """
    try:
        elf = parse(read, size)
        if elf.elf_type not in (ET_EXEC, ET_DYN):
            raise CannotShrink(NOTHING)
        sections = fatbin_sections(read, elf)
        blobs = blob_regions(read, elf, target) if target.raw_blobs else []
        if not sections and not blobs:
            raise CannotShrink(NOTHING)
        _refuse(elf)
        pointers = pointers_to(read, elf, sections)
        smaller = recompress(read, kept_entries(sections, target)) if target.recompress else None
        compacted = [compact(section.fatbins, target, smaller) for section in sections]
        saved = sum(section.size for section in sections) - sum(new.size for new in compacted)
        if saved < MIN_SAVING and not blobs:
            raise CannotShrink(NOTHING)
        if saved >= MIN_SAVING:
            _refuse_foreign(sections, pointers, target)
        patches = list(_patches(read, elf, sections, compacted, pointers))
        regions = [
            Region(section.offset, section.offset + section.size, new.pieces, new.size)
            for section, new in zip(sections, compacted, strict=True)
            if new.size < section.size
        ]
        content = cut(read, elf, [*regions, *blobs], patches)
    except (ElfError, FatbinError) as error:
        raise CannotShrink(str(error)) from error
    if size - content.size < MIN_SAVING:
        raise CannotShrink(NOTHING)
    return content


def kept_entries(sections: Sequence[FatbinSection], target: Target) -> Iterator[Entry]:
    """The entries that stay."""
    for section in sections:
        for fatbin in section.fatbins:
            for index in sorted(select(fatbin.entries, target)):
                yield fatbin.entries[index]


def fatbin_sections(read: Reader, elf: Elf) -> list[FatbinSection]:
    """The sections of fatbins of a file, parsed to the last byte. FatbinError where one holds anything else.

    In a file without section headers, the runs of fatbins in its segments that wrappers point into: others are data.
    """
    if not elf.sections:
        return _registered(read, elf, list(islice(_runs(read, elf), _MAX_SECTIONS + 1)))
    sizes = [section.file_size for section in elf.sections if section.name in SECTIONS]
    if sum(sizes) > elf.size or len(sizes) > _MAX_SECTIONS:
        raise FatbinError("sections that overlap, or too many of them")
    found = []
    for index, section in enumerate(elf.sections):
        if section.name in SECTIONS and section.allocated and section.type != SHT_NOBITS and section.size:
            fatbins = tuple(parse_section(read, section.offset, section.size))
            found.append(FatbinSection(section.name, index, section.offset, section.addr, section.size, fatbins))
    return found


def _runs(read: Reader, elf: Elf) -> Iterator[FatbinSection]:
    """Fatbins that lie back to back, as linkers put them."""
    for load in elf.loads if irregular(elf) is None else ():
        run: list[Fatbin] = []
        for fatbin in [*find_fatbins(read, load.offset, load.offset + load.filesz), None]:
            if run and (fatbin is None or fatbin.offset != run[-1].end):
                start, end = run[0].offset, run[-1].end
                address = start - load.offset + load.vaddr
                yield FatbinSection("", 0, start, address, end - start, tuple(run))
                run = []
            if fatbin is not None:
                run.append(fatbin)


def _registered(read: Reader, elf: Elf, runs: Sequence[FatbinSection]) -> list[FatbinSection]:
    """The runs of which the CUDA runtime has something; from others, libraries pick by themselves (see blobs.py)."""
    if len(runs) > _MAX_SECTIONS:
        raise FatbinError("fatbins in too many places")
    known = {pointer.address for pointer in pointers_to(read, elf, runs) if pointer.wrapper}
    found = [run for run in runs if not known.isdisjoint(run.starts)]
    return [run._replace(number=number) for number, run in enumerate(found)]


def blob_regions(read: Reader, elf: Elf, target: Target) -> list[Region]:
    """The pages of blobs in data that no declared GPU runs, as far as they lie together: a run is one more mapping."""
    if any(header.type == PT_INTERP for header in elf.program_headers) or elf.elf_type != ET_DYN:
        return []  # kernels differ in what they make of zeroed memory between segments of a program
    unit = page_size(elf)
    found = []
    for start, end in foreign_runs(read, elf, target, frozenset(SECTIONS)):
        if end - start < MIN_HOLE:
            continue
        load = next((p for p in elf.loads if p.offset <= start and end <= p.offset + p.filesz), None)
        if load is None:
            continue
        shift = load.vaddr - load.offset
        low, high = -(-(start + shift) // unit) * unit - shift, (end + shift) // unit * unit - shift
        if high - low >= MIN_HOLE:
            found.append(Region(low, high, (), 0, zeroed=True))
    return found


# --- what is refused -----------------------------------------------------------------------------------


def _refuse(elf: Elf) -> None:
    reason = irregular(elf)
    if reason is not None:
        raise CannotShrink(reason)
    for section in elf.sections:
        if section.type in (SHT_RELA, SHT_REL) and not section.allocated:
            raise CannotShrink("relocations kept for linkers (--emit-relocs)")
        if section.allocated and section.file_size and file_offset(elf, section.addr, section.size) != section.offset:
            raise CannotShrink("a section that is not where its segment is")
        if not section.allocated and section.file_size:
            for load in elf.loads:
                if load.offset < section.end and section.offset < load.offset + load.filesz:
                    raise CannotShrink("a section that is in a segment but not in memory")


def _refuse_foreign(sections: Sequence[FatbinSection], pointers: Sequence[Reference], target: Target) -> None:
    """Refuses a file that no declared GPU can use: it would not run there before or after.

    One for newer GPUs alone is no sign of a mistake, however: the rest of the image serves the declared ones.
    """
    # nvcc 13 adds a wrapper of version 2, over an entry for sm_75, to whatever it links: that says nothing.
    linked = {pointer.address for pointer in pointers if pointer.wrapper == 2}
    entries = [
        entry
        for section in sections
        for fatbin in section.fatbins
        if section.address_of(fatbin) not in linked
        for entry in fatbin.entries
    ]
    if not entries or not target.gpus or any(service(entries, gpu) != "nothing" for gpu in target.gpus):
        return
    if min(entry.sm for entry in entries) <= max(target.gpus):
        raise CannotShrink(f"nothing in it for {', '.join(f'sm_{gpu}' for gpu in target.gpus)}")


# --- what points at fatbins ----------------------------------------------------------------------------


def pointers_to(read: Reader, elf: Elf, sections: Sequence[FatbinSection]) -> list[Reference]:
    """All pointers to what is in these sections. ElfError where the file is damaged."""
    ranges = [Range(section.address, section.address + section.size) for section in sections]
    return references(read, elf, ranges, frozenset(start for section in sections for start in section.starts))


def _patches(
    read: Reader,
    elf: Elf,
    sections: Sequence[FatbinSection],
    compacted: Sequence[Compacted],
    pointers: Sequence[Reference],
) -> Iterator[tuple[int, bytes]]:
    """What has to change in the rest of the file: pointers to fatbins that move, and symbols.

    CannotShrink where a fatbin that moves is not pointed at exactly once, or something points into one.
    """
    new: dict[int, int] = {}
    for section, compact_section in zip(sections, compacted, strict=True):
        for moved in compact_section.fatbins:
            new[section.address_of(moved.fatbin)] = section.address + moved.new
    count = Counter(pointer.address for pointer in pointers)
    for pointer in pointers:
        if pointer.address not in new:
            raise CannotShrink("a pointer into the middle of a fatbin")
    for old, now in new.items():
        if old != now and count[old] != 1:
            raise CannotShrink(f"a fatbin that would move and is pointed at {count[old]} times")
    for pointer in pointers:
        if new[pointer.address] != pointer.address:
            if pointer.wrapper not in (1, 2) or not pointer.words:
                raise CannotShrink("a fatbin that would move and is pointed at by something else than a wrapper")
            for word in pointer.words:
                yield word, new[pointer.address].to_bytes(8, "little")
    yield from _symbols(read, elf, sections, compacted)


def _symbols(
    read: Reader, elf: Elf, sections: Sequence[FatbinSection], compacted: Sequence[Compacted]
) -> Iterator[tuple[int, bytes]]:
    """New symbols for those, of the table that debuggers use, that are about fatbins or what is in them."""
    places: dict[int, dict[int, tuple[int, int]]] = {}
    for section, compact_section in zip(sections, compacted, strict=True):
        places[section.number] = {
            section.address_of(moved.fatbin): (section.address + moved.new, moved.size)
            for moved in compact_section.fatbins
        }
    by_number = {section.number: section for section in sections if elf.sections}
    changed = 0
    for at, (name, info, other, index, value, size) in symbols(read, elf):
        inside = by_number.get(index)
        if inside is None or not 0 <= value - inside.address <= inside.size:
            continue
        now, length = places[index].get(value, (inside.address, 0))
        if (value, size) != (now, min(size, length)):
            yield at, SYMBOL.pack(name, info, other, index, now, min(size, length))
            changed += 1
            if changed > _MAX_SYMBOLS:
                raise CannotShrink("too many symbols for fatbins")
