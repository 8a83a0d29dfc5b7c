"""Programs and libraries with fatbins inside, laid out in every way that was seen, made by gcc and three linkers.

Each exports `gpu_checksum`, which walks its wrappers in memory as the CUDA runtime does, and `answer`, which needs
relocations, thread-local storage and a constructor; programs print both. So a shrunk file can show that it works.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from deadweight.binary import elf
from deadweight.binary.fatbin import MAGIC_BYTES, WRAPPER_MAGIC, FatbinError, parse_fatbin
from support import elf as fixtures
from support.fatbins import assorted, checksum

CHECKSUM: Final = r"""
struct wrapper { unsigned magic, version; const unsigned char *fatbin; long *more; };
extern struct wrapper wrappers[], wrappers_end[] __attribute__((visibility("hidden")));
long registered = 4711;
/* Adler-32 over all fatbins that wrappers point at, or the negative number of the first bad wrapper. */
long gpu_checksum(void) {
    unsigned long low = 1, high = 0;
    for (struct wrapper *each = wrappers; each < wrappers_end; each++) {
        unsigned long size = 0;
        memcpy(&size, each->fatbin + 8, 8);
        if (each->magic != WRAPPER_MAGIC || memcmp(each->fatbin, "\x50\xed\x55\xba\1\0\20\0", 8)
            || each->version != (each->more ? 2 : 1) || (each->more && *each->more != 4711))
            return wrappers - each - 1;
        for (const unsigned char *at = each->fatbin, *end = at + 16 + size; at < end; at++) {
            low = (low + *at) % 65521;
            high = (high + low) % 65521;
        }
    }
    return (long)(high << 16 | low);
}
"""
MAIN: Final = 'int main(void) { printf("%ld %d\\n", gpu_checksum(), answer()); return 0; }\n'


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a host file has its fatbins."""

    options: tuple[str, ...] = ("-shared", "-fPIC")
    """gcc's. Without -shared it is a program."""
    script: str = ""
    """A linker script on top of GNU ld's own."""
    flags: str = "a"
    """Of the sections with fatbins: "aw" is writable."""
    relocatable: frozenset[int] = frozenset()
    """Fatbins that lie in `__nv_relfatbin`."""
    unreferenced: frozenset[int] = frozenset()
    """Fatbins that no wrapper points at."""
    version_2: frozenset[int] = frozenset()
    """Fatbins with a wrapper of version 2, which points at data as well."""
    symbols: str = ".L"
    """How the symbols at fatbins begin; such with .L are the assembler's only."""
    more: str = ""
    """Assembly at the end, in which {0}, {1}... are the symbols of the fatbins."""
    edit: Callable[[bytes], bytes] | None = None
    """What is done to the finished file."""
    needs: str = "gcc"
    """The command that makes it."""
    refusal: str | None = None
    """A regular expression for the reason why it cannot be shrunk; None: it can."""

    @property
    def program(self) -> bool:
        return "-shared" not in self.options


def _shared(*options: str) -> tuple[str, ...]:
    return ("-shared", "-fPIC", *options)


def _placed(where: str, first: str = "") -> str:
    """A linker script that puts the device code somewhere else, as nvcc's --host-linker-script does."""
    sections = "__nv_relfatbin : { *(__nv_relfatbin) } .nv_fatbin : { *(.nv_fatbin) }"
    return f"SECTIONS {{ {first} {sections} }} INSERT {where};"


def without_sections(data: bytes) -> bytes:
    """The file as sstrip leaves it: what segments hold, and no section headers."""
    parsed = elf.parse(fixtures.read_from(data), len(data))
    out = bytearray(data[: max(load.offset + load.filesz for load in parsed.loads)])
    out[40:48] = bytes(8)
    out[60:64] = bytes(4)
    return bytes(out)


LAYOUTS: Final[dict[str, Layout]] = {
    "library": Layout(),
    "stripped": Layout(_shared("-s")),
    "symbols": Layout(symbols="fatbinData"),
    "code and data in one segment": Layout(_shared("-Wl,-z,noseparate-code")),
    "behind .dynsym": Layout(script=_placed("AFTER .dynsym")),
    "a segment of its own": Layout(script=_placed("AFTER .bss", ". = ALIGN(CONSTANT(MAXPAGESIZE));")),
    "writable behind .bss": Layout(
        script="SECTIONS { .nvFatBinSegment : { *(.nvFatBinSegment) } .nv_fatbin : { *(.nv_fatbin) } } "
        "INSERT AFTER .bss;",
        flags="aw",
    ),
    "writable": Layout(flags="aw"),
    "2 MiB pages": Layout(_shared("-Wl,-z,max-page-size=0x200000,-z,noseparate-code")),
    "segments that share a page": Layout(_shared("-Wl,-z,max-page-size=0x8000,-z,noseparate-code")),
    "64 KiB pages": Layout(_shared("-Wl,-z,max-page-size=0x10000")),
    "relocatable fatbins": Layout(relocatable=frozenset({1, 4, 6})),
    "relocatable fatbins alone": Layout(relocatable=frozenset(range(8))),
    "wrapper of version 2": Layout(version_2=frozenset({2})),
    "old hash table": Layout(_shared("-Wl,-z,norelro,--build-id=none,--hash-style=sysv")),
    "RELR": Layout(_shared("-Wl,-z,pack-relative-relocs")),
    "program": Layout(("-pie", "-fPIE")),
    "program, RELR": Layout(("-pie", "-fPIE", "-Wl,-z,pack-relative-relocs")),
    "program at a fixed address": Layout(("-no-pie", "-fno-pie")),
    "program at a fixed address, one segment": Layout(("-no-pie", "-fno-pie", "-Wl,-z,noseparate-code")),
    "program at a fixed address, relocatable fatbins": Layout(
        ("-no-pie", "-fno-pie"), relocatable=frozenset({1, 4, 6})
    ),
    "static program": Layout(("-static", "-fno-pie", "-no-pie")),
    "static program at any address": Layout(("-static-pie", "-fPIE")),
    "gold": Layout(_shared("-fuse-ld=gold"), needs="ld.gold"),
    "gold, program": Layout(("-pie", "-fPIE", "-fuse-ld=gold"), needs="ld.gold"),
    "lld": Layout(_shared("-fuse-ld=lld"), needs="ld.lld"),
    "lld, program": Layout(("-pie", "-fPIE", "-fuse-ld=lld"), needs="ld.lld"),
    "lld, program at a fixed address": Layout(("-no-pie", "-fno-pie", "-fuse-ld=lld"), needs="ld.lld"),
    "no section headers": Layout(edit=without_sections),
    "first fatbin without a reference": Layout(unreferenced=frozenset({0})),
    "later fatbin without a reference": Layout(unreferenced=frozenset({3}), refusal="pointed at 0 times"),
    "two references to a fatbin": Layout(more=".section .data\n.balign 8\n.quad {2}\n", refusal="pointed at 2 times"),
    "a reference into a fatbin": Layout(
        more=".section .data\n.balign 8\n.quad {2} + 16\n", refusal="middle of a fatbin"
    ),
    "exported fatbin": Layout(
        more=".globl kernels\n.type kernels, %object\n.set kernels, {5}\n", refusal="pointed at 2 times"
    ),
}
"""The layouts of files for this machine, by name."""

ARM64: Final[dict[str, Layout]] = {
    name: dataclasses.replace(layout, options=("-shared",), needs="aarch64-linux-gnu-ld")
    for name, layout in LAYOUTS.items()
    if name in ("library", "behind .dynsym", "writable", "relocatable fatbins", "wrapper of version 2")
} | {
    "lld": Layout(("-shared", "-m", "aarch64linux"), needs="ld.lld"),
    "lld, RELR": Layout(("-shared", "-m", "aarch64linux", "--pack-dyn-relocs=relr"), needs="ld.lld"),
}
"""Layouts of libraries for arm64 by name, for `build_arm64`; options are the linker's."""


def build(layout: Layout, folder: Path, fatbins: Sequence[bytes] = ()) -> Path:
    """The host file, in the folder, with these fatbins or else the assorted ones."""
    _need(layout)
    source = "#define WRAPPER_MAGIC 0x466243B1\n" + fixtures.LIBRARY + CHECKSUM + (MAIN if layout.program else "")
    assembly = _assembly(layout, folder, fatbins or assorted())
    options = [*layout.options, *_script(layout, folder), "-x", "assembler", str(assembly)]
    path = fixtures.gcc(folder, "program" if layout.program else "libgpu.so", source, *options)
    if layout.edit:
        path.write_bytes(layout.edit(path.read_bytes()))
    return path


def build_arm64(layout: Layout, folder: Path, fatbins: Sequence[bytes] = ()) -> Path:
    """The same library for arm64, with pages of up to 64 KiB and no code to speak of: to look at, not to run."""
    _need(layout)
    assembly = _assembly(layout, folder, fatbins or assorted())
    with assembly.open("a") as file:
        file.write(".text\n.globl answer\n.type answer, %function\nanswer: mov w0, #42\nret\n")
        file.write(".bss\n.globl registered\nregistered: .zero 70000\n")
    path, thing = folder / "libgpu.so", folder / "fatbins.o"
    script = _script(layout, folder)
    link = [layout.needs, *layout.options, "-z", "max-page-size=65536", *script, "-o", str(path), str(thing)]
    for command in (["aarch64-linux-gnu-as", "-o", str(thing), str(assembly)], link):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return path


def contents(data: bytes, layout: Layout) -> list[tuple[int, bytes]]:
    """The fatbins of a host file with their addresses, in the order in which `build` was given them."""
    parsed = elf.parse(fixtures.read_from(data), len(data))
    names = (".nv_fatbin", "__nv_relfatbin")
    parts = {s.name: (s.addr, s.offset, s.size) for s in parsed.sections if s.name in names}
    if not parsed.sections:  # anywhere, that is
        whole = [(p.vaddr, p.offset, p.filesz) for p in parsed.loads]
        parts = {".nv_fatbin": next(part for part in whole if _fatbins(data, part))}
    found = {name: _fatbins(data, part) for name, part in parts.items()}
    count = sum(map(len, found.values()))
    return [found["__nv_relfatbin" if i in layout.relocatable else ".nv_fatbin"].pop(0) for i in range(count)]


def expected(data: bytes, layout: Layout) -> tuple[int, int]:
    """What `run` finds if all is well."""
    pointed_at = [each for i, (_, each) in enumerate(contents(data, layout)) if i not in layout.unreferenced]
    return checksum(pointed_at), 42


def _fatbins(data: bytes, part: tuple[int, int, int]) -> list[tuple[int, bytes]]:
    """Fatbins and their addresses in a part of the file: address, offset, size."""
    address, start, size = part
    found = []
    at = start
    while (at := data.find(MAGIC_BYTES, at, start + size)) >= 0:
        try:
            fatbin = parse_fatbin(fixtures.read_from(data), at, start + size)
        except FatbinError:  # `gpu_checksum` has the magic in its machine code
            at += 1
            continue
        found.append((at - start + address, data[at : fatbin.end]))
        at = fatbin.end
    return found


def _need(layout: Layout) -> None:
    if shutil.which(layout.needs) is None:
        pytest.fail(f"no {layout.needs} here: run scripts/setup.sh test")


def _script(layout: Layout, folder: Path) -> list[str]:
    if not layout.script:
        return []
    (folder / "more.ld").write_text(layout.script)
    return ["-T", str(folder / "more.ld")]


def _assembly(layout: Layout, folder: Path, fatbins: Sequence[bytes]) -> Path:
    """Assembly with the fatbins and their wrappers, that any GNU assembler takes."""
    names = [f"{layout.symbols}{i}" for i in range(len(fatbins))]
    lines: list[str] = []
    for i, data in enumerate(fatbins):
        (folder / f"{i}.fatbin").write_bytes(data)
        section = "__nv_relfatbin" if i in layout.relocatable else ".nv_fatbin"
        lines += [f'.section {section}, "{layout.flags}", %progbits', ".balign 8", f"{names[i]}:"]
        lines += [f'.incbin "{folder / f"{i}.fatbin"}"']
    lines += ['.section .nvFatBinSegment, "aw", %progbits', ".balign 8"]
    lines += [".globl wrappers, wrappers_end", ".hidden wrappers, wrappers_end", "wrappers:"]
    for i, name in enumerate(names):
        if i not in layout.unreferenced:
            version, more = (2, "registered") if i in layout.version_2 else (1, "0")
            lines += [f".long {WRAPPER_MAGIC:#x}, {version}", f".quad {name}, {more}"]
    lines += ["wrappers_end:", layout.more.format(*names), '.section .note.GNU-stack, "", %progbits\n']
    path = folder / "fatbins.s"
    path.write_text("\n".join(lines))
    return path


RUN: Final = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.gpu_checksum.restype = ctypes.c_long
print(library.gpu_checksum(), library.answer())
"""


def run(path: Path, layout: Layout) -> tuple[int, int]:
    """What `gpu_checksum` and `answer` return in a fresh process."""
    path.chmod(0o755)
    command = [str(path)] if layout.program else [sys.executable, "-I", "-c", RUN, str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={"PATH": os.defpath})
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    one, two = map(int, done.stdout.split())
    return one, two
