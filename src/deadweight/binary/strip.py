"""Drops symbols and debug sections from programs and libraries, without touching what the loader sees.

The new file is what the PT_LOAD segments cover, byte for byte, and a small section header table behind it.
Nothing in the address space moves and p_align stays. GNU strip lays segments out afresh instead, which breaks
files that patchelf has edited, among them the libraries in the wheels of numpy and scipy.

Usually all that goes lies behind the last segment, and the file is cut there. patchelf puts a segment behind
the symbols; that one moves down in the file, by multiples of its page size, and the headers that hold file
offsets follow. A file that is in any way unusual is left alone: `CannotStrip` says why.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from deadweight.binary.dynamic import dynamic, interpreter
from deadweight.binary.elf import (
    ET_DYN,
    ET_EXEC,
    HEADER,
    PROGRAM_HEADER,
    PT_INTERP,
    PT_LOAD,
    PT_PHDR,
    SECTION_HEADER,
    SHF_EXECINSTR,
    SHF_INFO_LINK,
    SHT_NOBITS,
    SHT_NOTE,
    SHT_REL,
    SHT_RELA,
    SHT_STRTAB,
    Elf,
    ElfError,
    ProgramHeader,
    Section,
    exactly,
    file_offset,
    is_symbols,
    parse,
)
from deadweight.binary.segments import irregular, largest_page
from deadweight.image.content import Content, ContentPiece, Reader, joined, zeros

MIN_SAVING: Final = 4096
"""Bytes: a file that would shrink by less stays as it is."""

KEPT_NOTES: Final = frozenset({".note.stapsdt"})
"""Sections that are not allocated but wanted in production: the probes that tracers attach to."""

REFUSED_SECTIONS: Final = {
    ".modinfo": "a kernel module",
    ".gnu.linkonce.this_module": "a kernel module",
    ".note.fdo.integrity": "a library that checks its own file",  # libgcrypt in FIPS mode
    ".rodata1": "a library that may check its own file",  # Red Hat's fips.so keeps its checksum there
}
"""Sections whose presence says that the file must stay as it is, and what they say."""

_MAX_TAIL: Final = 64  # zero bytes that padding may leave behind all sections
_MAX_GAPS: Final = 8 << 20  # bytes that may have to be read to know that gaps are empty
_CHUNK: Final = 1 << 20


class CannotStrip(ValueError):
    """The file stays as it is; the message is the reason, in one line."""


class _Run(NamedTuple):
    """A range of the old file that stays, and where it begins in the new one."""

    start: int
    end: int
    new: int

    @property
    def moved(self) -> int:
        return self.new - self.start


def strip_symbols(read: Reader, size: int, machine: int) -> Content:
    """The file without symbols and debug sections, for an image of that e_machine (`elf.MACHINES`).

    Reads headers only, and gaps between them; the content of segments is named by range. Deterministic, and
    there is nothing left to do for a second time. CannotStrip where the file must stay as it is.
    """
    try:
        elf = parse(read, size)
        _refuse(read, elf, machine)
        runs = _runs(elf)
        _refuse_unknown_bytes(read, elf, runs)
        stripped = _rebuilt(read, elf, runs)
        if size - stripped.size < MIN_SAVING:
            raise CannotStrip("nothing to strip")
        _compare(elf, parse(stripped.reader(read), stripped.size))
    except ElfError as error:
        raise CannotStrip(str(error)) from error
    return stripped


# --- what is refused -----------------------------------------------------------------------------------


def _refuse(read: Reader, elf: Elf, machine: int) -> None:
    """Raises CannotStrip for all that the headers alone tell."""
    if elf.elf_type not in (ET_EXEC, ET_DYN):
        raise CannotStrip("neither a program nor a shared library")
    if elf.machine != machine:
        raise CannotStrip("built for another machine than the image")
    if elf.version != 1:
        raise CannotStrip("an unknown version of ELF")
    if not elf.sections:
        raise CannotStrip("no section headers")
    reason = irregular(elf)
    if reason is not None:
        raise CannotStrip(reason)
    for index, section in enumerate(elf.sections):
        if section.name in REFUSED_SECTIONS:
            raise CannotStrip(REFUSED_SECTIONS[section.name])
        if section.type == SHT_NOBITS and section.flags & SHF_EXECINSTR and section.size:
            raise CannotStrip("debug information kept apart from its program")
        if section.allocated:
            if index == elf.shstrndx:
                raise CannotStrip("section names inside a segment")
            if section.file_size and file_offset(elf, section.addr, section.size) != section.offset:
                raise CannotStrip("a section that is not where its segment is")
        elif not (is_symbols(section) or _is_kept_note(section) or index == elf.shstrndx) and section.file_size:
            raise CannotStrip(f"a section of unknown use, {section.name!a}")
    dynamic(read, elf)
    interpreter(read, elf)


def _refuse_unknown_bytes(read: Reader, elf: Elf, runs: Sequence[_Run]) -> None:
    """Raises CannotStrip if anything but zeros would go that no section and no table accounts for."""
    known = [(run.start, run.end) for run in runs]
    known += [(section.offset, section.end) for section in elf.sections if section.file_size]
    known.append((elf.shoff, elf.shoff + len(elf.sections) * SECTION_HEADER.size))
    known.sort()
    done, budget = 0, _MAX_GAPS
    for start, end in [*known, (elf.size, elf.size)]:
        if start > done:
            budget -= start - done
            if budget < 0:
                raise CannotStrip("large gaps between its sections")
            if start == elf.size and start - done > _MAX_TAIL:
                raise CannotStrip("bytes behind its last section")
            if exactly(read, done, start - done).count(0) != start - done:
                behind = "behind its last section" if start == elf.size else "between its sections"
                raise CannotStrip(f"bytes {behind}")
        done = max(done, end)


def _is_kept_note(section: Section) -> bool:
    return section.name in KEPT_NOTES and section.type == SHT_NOTE and not section.allocated


def _is_program(read: Reader, elf: Elf) -> bool:
    """Whether the kernel may start it: also static PIE, which only differs from a library in what it lacks."""
    return (
        elf.elf_type == ET_EXEC
        or any(header.type == PT_INTERP for header in elf.program_headers)
        or (elf.entry != 0 and not dynamic(read, elf).needed)
    )


# --- the new layout ------------------------------------------------------------------------------------


def _runs(elf: Elf) -> list[_Run]:
    """What stays of the file, in its order, each run as far down as the page size allows."""
    kept = sorted((load.offset, load.offset + load.filesz, load.align) for load in elf.loads if load.filesz)
    table_end = elf.phoff + len(elf.program_headers) * PROGRAM_HEADER.size
    if kept[0][0] > 0:  # some programs do not load their headers
        kept.insert(0, (0, table_end if elf.phoff == HEADER.size else HEADER.size, 1))
    if kept[0][1] < HEADER.size or (len(kept) > 1 and kept[0][1] > kept[1][0]):
        raise CannotStrip("a segment that begins inside the headers")
    if not any(start <= elf.phoff and table_end <= end for start, end, _ in kept):
        raise CannotStrip("program headers outside all segments")
    page = largest_page(elf.machine)
    runs: list[_Run] = []
    at = 0
    for start, end, align in kept:
        new = at + (start - at) % max(align, page)
        runs.append(_Run(start, end, new))
        at = new + end - start
    # Where two segments share a page of memory, the second brings the bytes of the first along.
    loads = [load for load in elf.loads if load.filesz]
    for before, after in pairwise(loads):
        unit = min(before.align, after.align)
        shared = (before.vaddr + before.memsz - 1) // unit == after.vaddr // unit
        if shared and _run_at(runs, before.offset).moved != _run_at(runs, after.offset).moved:
            raise CannotStrip("segments that share a page")
    return runs


def _run_at(runs: Sequence[_Run], offset: int) -> _Run:
    """The last run that begins at or before an old offset."""
    return runs[bisect_right(runs, offset, key=lambda run: run.start) - 1]


def _place(runs: Sequence[_Run], offset: int) -> int:
    """The new offset for an old one; for one in a gap, the end of the run before."""
    run = _run_at(runs, offset)
    return min(offset, run.end) + run.moved


def _rebuilt(read: Reader, elf: Elf, runs: Sequence[_Run]) -> Content:
    phoff = _place(runs, elf.phoff)
    if phoff != elf.phoff and _is_program(read, elf):
        # kernels before 5.18 compute AT_PHDR from the first segment, so it must stay in its place there
        raise CannotStrip("a program whose header table would move")
    program_headers = b"".join(PROGRAM_HEADER.pack(*_new_segment(p, runs)) for p in elf.program_headers)
    end = runs[-1].new + runs[-1].end - runs[-1].start
    notes, kept, names, end = _new_sections(elf, runs, end)
    shoff = -(-(end + len(names)) // 8) * 8
    fields = list(HEADER.unpack(exactly(read, 0, HEADER.size)))
    fields[5:7] = phoff, shoff
    fields[12:] = len(kept), len(kept) - 1
    patches = [(0, HEADER.pack(*fields)), (elf.phoff, program_headers)]

    pieces: list[ContentPiece] = []
    at = 0
    for run in runs:
        pieces += zeros(run.new - at)
        old = run.start
        for where, data in patches:
            if run.start <= where < run.end:
                pieces += [(old, where - old), data]
                old = where + len(data)
        pieces.append((old, run.end - old))
        at = run.new + run.end - run.start
    for note, where in notes:
        pieces += [*zeros(where - at), (note.offset, note.size)]
        at = where + note.size
    pieces += [names, *zeros(shoff - end - len(names))]
    pieces += [b"".join(SECTION_HEADER.pack(*row) for row in kept)]
    return joined(pieces)


def _new_segment(header: ProgramHeader, runs: Sequence[_Run]) -> ProgramHeader:
    offset = _place(runs, header.offset)
    if header.type == PT_LOAD and not header.filesz:
        offset -= offset % header.align  # it begins a page: see segments.irregular
    return header._replace(offset=offset)


def _new_sections(
    elf: Elf, runs: Sequence[_Run], end: int
) -> tuple[list[tuple[Section, int]], list[tuple[int, ...]], bytes, int]:
    """The notes to copy and where to, the section header table, the name table, and the latter's offset.

    Indices stay, since the dynamic symbols have them: what goes leaves an empty entry, but for the last ones.
    """
    stays = [i for i, section in enumerate(elf.sections) if section.allocated or _is_kept_note(section)]
    kept = set(stays)
    names, name_at = bytearray(b"\0"), {"": 0}

    def name(text: str) -> int:
        if text not in name_at:
            name_at[text] = len(names)
            names.extend(text.encode("utf-8", "surrogateescape") + b"\0")
        return name_at[text]

    rows: list[tuple[int, ...]] = [(0,) * 10] * (max(stays, default=0) + 1)
    notes: list[tuple[Section, int]] = []
    for i in stays:
        section = elf.sections[i]
        offset = _place(runs, section.offset)
        if not section.allocated:
            end = -(-end // 8) * 8
            notes.append((section, end))
            offset, end = end, end + section.size
        has_target = section.flags & SHF_INFO_LINK or section.type in (SHT_REL, SHT_RELA)
        row = section._replace(
            offset=offset,
            link=section.link if section.link in kept else 0,
            info=0 if has_target and section.info not in kept else section.info,
        )
        rows[i] = (name(section.name), *row[1:])
    own_name = name(".shstrtab")
    rows.append((own_name, SHT_STRTAB, 0, 0, end, len(names), 0, 0, 1, 0))
    return notes, rows, bytes(names), end


# --- the check -----------------------------------------------------------------------------------------


def check(read_old: Reader, old_size: int, read_new: Reader, new_size: int) -> None:
    """Compares a stripped file with its original, content and all; CannotStrip says how they differ.

    Same segments at the same addresses with the same bytes, but for the ELF header and the program headers;
    same dynamic entries and interpreter; same allocated sections. ElfError if either cannot be read.
    """
    old, new = parse(read_old, old_size), parse(read_new, new_size)
    _compare(old, new)
    for asked in (dynamic, interpreter):
        if asked(read_old, old) != asked(read_new, new):
            raise CannotStrip("self-check: the dynamic entries differ")
    table = len(old.program_headers) * PROGRAM_HEADER.size
    for before, after in zip(old.loads, new.loads, strict=True):
        for at in range(0, before.filesz, _CHUNK):
            length = min(_CHUNK, before.filesz - at)
            one = bytearray(exactly(read_old, before.offset + at, length))
            two = bytearray(exactly(read_new, after.offset + at, length))
            for start, end in ((0, HEADER.size), (old.phoff, old.phoff + table)):
                low = max(start - before.offset - at, 0)
                high = min(end - before.offset - at, length)
                if low < high:
                    one[low:high] = two[low:high] = bytes(high - low)
            if one != two:
                raise CannotStrip("self-check: the content of a segment differs")


def _compare(old: Elf, new: Elf) -> None:
    """CannotStrip unless the headers describe the same program, wherever in the file it is."""

    def same(one: object, two: object, what: str) -> None:
        if one != two:
            raise CannotStrip(f"self-check: the {what} differ")

    for field in ("elf_type", "machine", "version", "entry", "flags"):
        same(getattr(old, field), getattr(new, field), "ELF headers")
    same(_segments(old), _segments(new), "program headers")
    same(_allocated(old), _allocated(new), "sections")
    for header in new.program_headers:
        if header.type == PT_LOAD:
            same((header.offset - header.vaddr) % header.align, 0, "offsets and addresses")
        elif header.filesz:
            same(file_offset(new, header.vaddr, header.filesz), header.offset, "places of segments")
        if header.type == PT_PHDR:
            same(header.offset, new.phoff, "places of the program headers")
    for section in new.sections:
        if section.allocated and section.file_size:
            same(file_offset(new, section.addr, section.size), section.offset, "places of sections")


def _segments(elf: Elf) -> list[ProgramHeader]:
    return [header._replace(offset=0) for header in elf.program_headers]


def _allocated(elf: Elf) -> list[tuple[int, Section]]:
    """The allocated sections with their indices, without what may change."""
    return [(i, s._replace(offset=0, link=0, info=0)) for i, s in enumerate(elf.sections) if s.allocated]
