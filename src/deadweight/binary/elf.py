"""Reads ELF files: headers, and where the bytes are.

Everything goes through a `Reader`, a positional read; no file is mapped or read whole. A parse takes three
preads and some tens of microseconds. Files are hostile: every count and length is bounded, and whatever does
not fit raises `ElfError`. Only 64-bit little-endian files are supported.

The format is that of the System V gABI, chapters 4 and 5; numbers it leaves to vendors are glibc's elf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

import msgspec

from deadweight.image.content import Reader

MACHINES: Final = {
    "386": 3,
    "ppc64le": 21,
    "s390x": 22,
    "arm": 40,
    "amd64": 62,
    "arm64": 183,
    "riscv64": 243,
}
"""The e_machine of programs for each of OCI's architecture names."""

EM_CUDA, EM_AMDGPU = 190, 224
GPU_MACHINES: Final = frozenset({EM_CUDA, EM_AMDGPU})
"""e_machine of files that are device code as a whole: `.cubin` files and AMD's code objects."""

ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_PHDR, PT_TLS = 1, 2, 3, 4, 6, 7
PT_GNU_EH_FRAME, PT_GNU_STACK, PT_GNU_RELRO = 0x6474E550, 0x6474E551, 0x6474E552
PF_X, PF_W, PF_R = 1, 2, 4
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_RELA = 0, 1, 2, 3, 4
SHT_NOTE, SHT_NOBITS, SHT_REL, SHT_DYNSYM, SHT_GROUP, SHT_SYMTAB_SHNDX = 7, 8, 9, 11, 17, 18
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_INFO_LINK = 1, 2, 4, 0x40

HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
SECTION_HEADER: Final = struct.Struct("<IIQQQQIIQQ")
SYMBOL: Final = struct.Struct("<IBBHQQ")
"""Name, info, other, section index, value, size (`Elf64_Sym`)."""

MAX_PROGRAM_HEADERS: Final = 4096
MAX_SECTIONS: Final = 0xFEFF  # from SHN_LORESERVE on the count is kept elsewhere, which no library needs
MAX_NAMES: Final = 16 << 20  # bytes: of the name table, and of all names together
_FIRST_READ: Final = HEADER.size + 16 * PROGRAM_HEADER.size
_SYMBOLS: Final = SYMBOL.size << 16  # bytes of symbols that are read at once
_U64: Final = 1 << 64

GPU_SECTIONS: Final = frozenset(
    {".nv_fatbin", "__nv_relfatbin", ".nvFatBinSegment", ".hip_fatbin", ".hipFatBinSegment"}
)
"""Sections of host files that hold device code and the tables pointing at it (CUDA and HIP)."""

SYMBOL_TYPES: Final = frozenset({SHT_SYMTAB, SHT_RELA, SHT_REL, SHT_GROUP, SHT_SYMTAB_SHNDX})
"""Types of sections that, not being allocated, serve linkers and debuggers alone (RELA: --emit-relocs)."""

SYMBOL_NAMES: Final = frozenset(
    {
        ".symtab",
        ".strtab",
        ".symtab_shndx",
        ".comment",
        ".gdb_index",
        ".gnu_debuglink",
        ".gnu_debugaltlink",
        ".gnu_debugdata",  # Fedora's mini symbol table, xz inside
        ".GCC.command.line",
        ".note.gnu.gold-version",
        ".llvm_addrsig",
        ".llvm.call-graph-profile",
        ".llvm_bb_addr_map",
        ".deplibs",
        ".debug",
        ".line",
        ".mdebug",
        ".stabstr",
    }
)
SYMBOL_PREFIXES: Final = (
    ".debug_",
    ".zdebug_",
    ".stab",
    ".gnu.build.attributes",
    ".annobin",
    ".gnu.lto_",
    ".gnu.debuglto_",
    ".gnu.warning.",  # glibc's warnings for the linker to print
)
"""Names of sections that, not being allocated, hold symbols, debug information or the tools' own notes."""


Label = Literal["host code", "gpu code", "symbols", "data"]
"""What bytes of a file are."""


class ElfError(ValueError):
    """The bytes are no ELF file that this module reads; the message is the reason, in one line."""


class ProgramHeader(NamedTuple):
    """One entry of the program header table, the loader's view (`Elf64_Phdr`); bytes and addresses."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


class Section(NamedTuple):
    """One entry of the section header table, the linker's view (`Elf64_Shdr`); bytes and addresses."""

    name: str
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entsize: int

    @property
    def file_size(self) -> int:
        """The bytes it has in the file: none for NOBITS and NULL, whatever `size` says."""
        return 0 if self.type in (SHT_NOBITS, SHT_NULL) else self.size

    @property
    def end(self) -> int:
        """The offset behind its last byte in the file."""
        return self.offset + self.file_size

    @property
    def allocated(self) -> bool:
        """Whether the running program has it in memory."""
        return bool(self.flags & SHF_ALLOC)


class Part(NamedTuple):
    """A range of the file and what it is."""

    start: int
    end: int
    label: Label
    section: Section | None
    """None: it is a segment of a file without section headers."""


class Elf(msgspec.Struct, frozen=True):
    """The headers of one file. Sections keep their table's order, so index `i` is the file's section `i`."""

    machine: int
    elf_type: int
    version: int
    entry: int
    flags: int
    size: int
    phoff: int
    shoff: int
    shstrndx: int
    program_headers: tuple[ProgramHeader, ...]
    sections: tuple[Section, ...]

    @property
    def loads(self) -> tuple[ProgramHeader, ...]:
        """The PT_LOAD segments, in the table's order."""
        return tuple(p for p in self.program_headers if p.type == PT_LOAD)


def is_elf(head: bytes) -> bool:
    """Whether a file that begins with `head` says that it is ELF, of whatever class."""
    return head[:4] == b"\x7fELF"


def parse(read: Reader, size: int) -> Elf:
    """The headers of a file of `size` bytes; ElfError where it is damaged, hostile or not supported."""
    first = read(0, min(_FIRST_READ, size))
    if not is_elf(first):
        raise ElfError("not an ELF file")
    if len(first) < HEADER.size:
        raise ElfError("the file ends inside the ELF header")
    ident, elf_type, machine, version, entry, phoff, shoff, flags, *counts = HEADER.unpack_from(first)
    if ident[4] != 2:
        raise ElfError("not a 64-bit ELF file")
    if ident[5] != 1:
        raise ElfError("not a little-endian ELF file")
    ehsize, phentsize, phnum, shentsize, shnum, shstrndx = counts  # the header's last fields
    if ident[6] != 1 or ehsize != HEADER.size:
        raise ElfError("an ELF header of an unknown version")
    return Elf(
        machine=machine,
        elf_type=elf_type,
        version=version,
        entry=entry,
        flags=flags,
        size=size,
        phoff=phoff,
        shoff=shoff,
        shstrndx=shstrndx,
        program_headers=_program_headers(read, size, first, (phoff, phentsize, phnum)),
        sections=_sections(read, size, (shoff, shentsize, shnum), shstrndx),
    )


def _program_headers(
    read: Reader, size: int, first: bytes, table_at: tuple[int, int, int]
) -> tuple[ProgramHeader, ...]:
    phoff, phentsize, phnum = table_at
    if phnum == 0:
        return ()
    if phnum > MAX_PROGRAM_HEADERS:
        raise ElfError(f"{phnum} program headers are more than {MAX_PROGRAM_HEADERS}")
    if phentsize != PROGRAM_HEADER.size:
        raise ElfError(f"program headers of {phentsize} bytes")
    length = phnum * PROGRAM_HEADER.size
    if phoff < HEADER.size or phoff + length > size:
        raise ElfError("the program header table is not inside the file")
    inside = phoff + length <= len(first)
    table = first[phoff : phoff + length] if inside else exactly(read, phoff, length)
    headers = tuple(map(ProgramHeader._make, PROGRAM_HEADER.iter_unpack(table)))
    for header in headers:
        if header.filesz and header.offset + header.filesz > size:
            raise ElfError("a segment points outside the file")
        if header.vaddr + header.memsz > _U64:
            raise ElfError("a segment wraps around the address space")
    return headers


def _sections(read: Reader, size: int, table_at: tuple[int, int, int], shstrndx: int) -> tuple[Section, ...]:
    shoff, shentsize, shnum = table_at
    if shoff == 0:
        if shnum:
            raise ElfError("sections without a section header table")
        return ()
    if shnum == 0 or shnum > MAX_SECTIONS or shstrndx == 0xFFFF:
        raise ElfError("a number of sections that is not supported")
    if shentsize != SECTION_HEADER.size:
        raise ElfError(f"section headers of {shentsize} bytes")
    if shoff < HEADER.size or shoff + shnum * SECTION_HEADER.size > size:
        raise ElfError("the section header table is not inside the file")
    if shstrndx >= shnum:
        raise ElfError("the section name table is not among the sections")
    rows = list(SECTION_HEADER.iter_unpack(exactly(read, shoff, shnum * SECTION_HEADER.size)))
    for row in rows:
        if row[4] + row[5] > size and row[1] not in (SHT_NULL, SHT_NOBITS):
            raise ElfError("a section points outside the file")
    names = b""
    if shstrndx:  # 0, SHN_UNDEF: sections have no names
        if rows[shstrndx][1] != SHT_STRTAB:
            raise ElfError("the section name table is not a string table")
        if rows[shstrndx][5] > MAX_NAMES:
            raise ElfError("the section name table is too long")
        names = exactly(read, rows[shstrndx][4], rows[shstrndx][5])
    sections = []
    left = MAX_NAMES  # of all names together: hostile names may share one long tail
    for row in rows:
        name = ""
        if shstrndx:
            start = row[0]
            end = names.find(b"\0", start, start + left)
            if end < 0:
                if row[1] != SHT_NULL:
                    raise ElfError("a section's name does not end inside the name table")
                start = end = 0
            left -= end - start
            name = names[start:end].decode("utf-8", "surrogateescape")
        sections.append(Section(name, *row[1:]))
    return tuple(sections)


def exactly(read: Reader, offset: int, length: int) -> bytes:
    """`length` bytes at `offset`; ElfError where the file is shorter."""
    data = read(offset, length)
    if len(data) != length:
        raise ElfError("the file is shorter than it was said to be")
    return data


def file_offset(elf: Elf, address: int, length: int = 1) -> int | None:
    """Where the file has the `length` bytes at a virtual address; None unless one segment has them all."""
    for load in elf.program_headers:
        if load.type == PT_LOAD and load.vaddr <= address and address + length <= load.vaddr + load.filesz:
            return load.offset + address - load.vaddr
    return None


def symbols(read: Reader, elf: Elf) -> Iterator[tuple[int, tuple[int, int, int, int, int, int]]]:
    """The symbols that debuggers use, with their offsets in the file: the fields of `SYMBOL`."""
    tables = [section for section in elf.sections if section.type == SHT_SYMTAB and not section.size % SYMBOL.size]
    if len(tables) > 1:
        raise ElfError("more than one table of symbols")  # each could be as long as the file
    for table in tables:
        for start in range(table.offset, table.end, _SYMBOLS):
            rows = exactly(read, start, min(_SYMBOLS, table.end - start))
            for number, row in enumerate(SYMBOL.iter_unpack(rows)):
                yield start + number * SYMBOL.size, row


def is_symbols(section: Section) -> bool:
    """Whether a section is there for linkers, debuggers and other tools alone: programs run without it."""
    return not section.allocated and (
        section.type in SYMBOL_TYPES or section.name in SYMBOL_NAMES or section.name.startswith(SYMBOL_PREFIXES)
    )


def parts(elf: Elf) -> list[Part]:
    """What the sections are, or without section headers the segments, by where they begin; of equals the first in
    the table comes first. They may overlap, and leave gaps, which are what `rest` says.
    """
    other = rest(elf)
    found: list[Part] = []
    for section in elf.sections:
        if section.file_size:
            found.append(Part(section.offset, section.end, _label(section, other), section))
    if not elf.sections:
        for load in elf.loads:
            label: Label = "host code" if load.flags & PF_X and other == "data" else other
            found.append(Part(load.offset, load.offset + load.filesz, label, None))
    return sorted(found, key=lambda part: part.start)


def rest(elf: Elf) -> Label:
    """What bytes are that no section or segment has, headers among them; and those of sections like any other."""
    return "gpu code" if elf.machine in GPU_MACHINES else "data"


def _label(section: Section, other: Label) -> Label:
    if is_symbols(section):
        return "symbols"
    if section.name in GPU_SECTIONS:
        return "gpu code"
    if other == "data" and section.allocated and section.flags & SHF_EXECINSTR:
        return "host code"
    return other
