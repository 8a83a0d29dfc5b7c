"""ELF files for tests: compiled by gcc, edited the way patchelf and others do, and judged by readelf."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deadweight.binary import elf
from deadweight.binary.dynamic import DT_STRTAB
from deadweight.image.content import Reader

LIBRARY = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct pair { int one; long other; char name[32]; };
static struct pair table[64] = { { 20, 22, "twenty" } };
static char zeros[70000];
__thread int per_thread = 7;
__thread int per_thread_zero;
static const char *words[] = { "alpha", "beta", "gamma", 0 };
int exported = 5;
static int compare(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }
__attribute__((constructor)) static void begin(void) { zeros[69999] = 1; }
int answer(void) {
    qsort(words, 3, sizeof *words, compare);
    return (int)(table[0].one + table[0].other) + zeros[69999] - 1 + per_thread - 7 + per_thread_zero
        + exported - 5 + (int)strlen(words[2]) - 5;
}
"""
PROGRAM = (
    LIBRARY
    + r"""
int main(void) { printf("%d\n", answer()); return 0; }
"""
)


def read_from(data: bytes) -> Reader:
    """A positional reader of bytes at hand."""
    return lambda offset, length: data[offset : offset + length]


def gcc(directory: Path, name: str, source: str, *options: str) -> Path:
    """Compiles C source with debug information, which makes the symbols worth stripping."""
    path = directory / name
    (directory / f"{name}.c").write_text(source)
    subprocess.run(["gcc", "-g3", "-O1", "-o", path, f"{path}.c", *options], check=True, capture_output=True)
    return path


def library(directory: Path, *options: str, source: str = LIBRARY) -> bytes:
    """A shared library with the function `answer`."""
    return gcc(
        directory, "libfixture.so", source, "-shared", "-fPIC", "-Wl,-soname,libfixture.so.1", *options
    ).read_bytes()


def program(directory: Path, *options: str) -> bytes:
    """A program that prints 42."""
    return gcc(directory, "fixture", PROGRAM, *options).read_bytes()


def patched_library(directory: Path) -> bytes:
    """A library whose long string table patchelf moved; what it left behind also keeps segments from moving up."""
    names = "".join(f"int a_name_that_is_long_{'x' * 60}{n}(void) {{ return {n}; }}\n" for n in range(600))
    data = library(directory, "-Wl,-z,max-page-size=0x10000", source=LIBRARY + names)
    return like_patchelf(data, page=0x10000)


def answer_of_library(path: Path) -> int:
    """What `answer` returns in a fresh process."""
    code = f"import ctypes; print(ctypes.CDLL({str(path)!r}).answer())"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)


def readelf(path: Path, *options: str) -> tuple[str, str]:
    """What binutils' readelf says, and what it warns of."""
    done = subprocess.run(["readelf", *options, path], check=True, capture_output=True, text=True)
    return done.stdout, done.stderr.replace(str(path), "FILE")


def _spare(parsed: elf.Elf) -> int:
    """The index of a program header that a library works without, behind all PT_LOADs."""
    headers = enumerate(parsed.program_headers)
    return next(i for i, p in headers if p.type in (elf.PT_NOTE, elf.PT_GNU_EH_FRAME))


def with_spare_segment(data: bytes, header: elf.ProgramHeader) -> bytes:
    """The file with a program header that it can do without replaced."""
    parsed = elf.parse(read_from(data), len(data))
    at = parsed.phoff + _spare(parsed) * elf.PROGRAM_HEADER.size
    return data[:at] + elf.PROGRAM_HEADER.pack(*header) + data[at + elf.PROGRAM_HEADER.size :]


def like_patchelf(data: bytes, *, move_headers: bool = False, page: int = 4096) -> bytes:
    """Moves .dynstr into a new segment behind everything, symbols included, as patchelf does when it grows.

    The program header of a note, or of the unwinder's table, becomes the new PT_LOAD. With `move_headers`, the
    table of program headers goes there too, as newer versions of patchelf do.
    """
    old = elf.parse(read_from(data), len(data))
    out = bytearray(data)
    strings = next(i for i, s in enumerate(old.sections) if s.name == ".dynstr")
    section = old.sections[strings]
    content = data[section.offset : section.end]
    content += bytes(-len(content) % 8)
    address = -(-max(p.vaddr + p.memsz for p in old.loads) // page) * page
    offset = -(-len(out) // page) * page
    out += bytes(offset - len(out))
    headers = list(old.program_headers)
    spare = _spare(old)
    size = len(content) + (len(headers) * elf.PROGRAM_HEADER.size if move_headers else 0)
    headers[spare] = elf.ProgramHeader(elf.PT_LOAD, elf.PF_R | elf.PF_W, offset, address, address, size, size, page)
    phoff = offset + len(content) if move_headers else old.phoff
    for i, header in enumerate(headers):
        if header.type == elf.PT_PHDR:
            at = address + len(content) if move_headers else header.vaddr
            headers[i] = header._replace(offset=phoff, vaddr=at, paddr=at)
    out += content + bytes(size - len(content))
    table = b"".join(elf.PROGRAM_HEADER.pack(*p) for p in headers)
    out[phoff : phoff + len(table)] = table
    out[32:40] = phoff.to_bytes(8, "little")
    dynamic = next(p for p in headers if p.type == elf.PT_DYNAMIC)
    for at in range(dynamic.offset, dynamic.offset + dynamic.filesz, 16):
        if int.from_bytes(out[at : at + 8], "little") == DT_STRTAB:
            out[at + 8 : at + 16] = address.to_bytes(8, "little")
    at = old.shoff + strings * elf.SECTION_HEADER.size
    out[at + 16 : at + 32] = address.to_bytes(8, "little") + offset.to_bytes(8, "little")
    out[section.offset : section.end] = b"X" * section.size  # patchelf's own mark for what it has left behind
    return bytes(out)
