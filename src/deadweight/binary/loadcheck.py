"""Loads a file with GPU code in a process of its own and looks at its fatbins as the CUDA runtime would.

A library can load without an error while the pointers to its GPU code are wrong: nothing reads them before the first
kernel runs. So every wrapper is followed to its fatbin, first in the file, at the addresses that segments and
relocations tell, then in the memory of a process that has loaded it. Only the dynamic loader, and what it runs of the
library itself (constructors), touches that process; what is wrong ends it, not the caller.

Programs and files for other machines cannot be loaded: of those the file alone is looked at.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from deadweight.binary.dynamic import dynamic_entries
from deadweight.binary.elf import ET_DYN, MACHINES, PF_W, Elf, ElfError, exactly, file_offset, parse
from deadweight.binary.fatbin import WRAPPER, WRAPPER_MAGIC, FatbinError, parse_fatbin
from deadweight.binary.references import DT_RELA, DT_RELASZ, RELATIVE
from deadweight.decoding import from_json
from deadweight.image.content import Reader

_WRAPPERS: Final = ".nvFatBinSegment"
_VERSIONS: Final = (1, 2)
_RELA: Final = struct.Struct("<QIIQ")  # place, type, symbol, addend
_DT_FLAGS_1, _DF_1_PIE = 0x6FFFFFFB, 0x08000000
_MAX_TABLE: Final = 1 << 30
_MACHINE: Final = MACHINES.get({"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, ""))
_RTLD_DI_LINKMAP: Final = 2  # of dlinfo, in glibc and musl
_CHILD: Final = (
    "import sys; sys.path.append(sys.argv[1]); import deadweight.binary.loadcheck as c; c.child(sys.argv[2])"
)

_MemoryReader = Callable[[int, int], bytes]
"""Reads at an address of the file's own address space; short where its segment ends."""


class LoadError(ValueError):
    """The file does not load, or has wrappers that lead nowhere; the message is the reason, in one line."""


class _Report(msgspec.Struct):
    """What the process says: first how loading went, then, if it did, how the wrappers are."""

    failure: str = ""
    """The loader's message."""
    fault: str = ""
    """What is wrong with a wrapper."""
    wrappers: int = -1
    """How many were followed to the end."""


def check_load(path: Path, original: Path | None = None, timeout: float = 60.0) -> None:
    """LoadError unless the file loads, within so many seconds, and every wrapper in it leads to a sound fatbin.

    With the original at hand, the file is to load as that does, be it with the same message of the loader (a library
    of the image that this system lacks, say), and to have as many wrappers. A file that is no ELF file raises as well.
    """
    try:
        count = _check_file(path)
        if original is not None and (before := _count(original)) != count:
            raise LoadError(f"{count} wrappers, the original has {before}")
    except (ElfError, FatbinError) as error:
        raise LoadError(str(error)) from error
    if not _loadable(path):
        return
    report = _load(path, timeout)
    if report.fault:
        raise LoadError(f"in memory: {report.fault}")
    if report.failure:
        if original is None or _load(original, timeout).failure != report.failure:
            raise LoadError(f"does not load: {report.failure}")
    elif report.wrappers != count:
        raise LoadError(f"in memory: {report.wrappers} wrappers, {count} in the file")


# --- the file ------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Reader, Elf]]:
    """A reader of the file, and its headers."""
    with path.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            return os.pread(file.fileno(), length, offset)

        yield read, parse(read, os.fstat(file.fileno()).st_size)


def _loadable(path: Path) -> bool:
    """Whether the dynamic loader of this system takes it: no program, and for this machine."""
    with _opened(path) as (read, elf):
        flags = [entry.value for entry in dynamic_entries(read, elf) if entry.tag == _DT_FLAGS_1]
    return elf.elf_type == ET_DYN and elf.machine == _MACHINE and not any(value & _DF_1_PIE for value in flags)


def _count(path: Path) -> int:
    with _opened(path) as (read, elf):
        return len(_places(read, elf))


def _places(read: Reader, elf: Elf) -> list[int]:
    """The addresses of all wrappers. Without section headers: of what looks like one in writable segments."""
    if elf.sections:
        return [
            address
            for section in elf.sections
            if section.name == _WRAPPERS and section.file_size
            for address in range(section.addr, section.addr + section.size - WRAPPER.size + 1, WRAPPER.size)
        ]
    begins = [struct.pack("<II", WRAPPER_MAGIC, version) for version in _VERSIONS]
    found: list[int] = []
    for load in elf.loads:
        if load.flags & PF_W:
            data = exactly(read, load.offset, load.filesz)
            for begin in begins:
                starts = (load.vaddr + match.start() for match in re.finditer(re.escape(begin), data))
                found += [address for address in starts if address % 8 == 0]
    return sorted(found)


def _check_file(path: Path) -> int:
    """Follows the wrappers in the file; how many there are."""
    with _opened(path) as (read, elf):
        places = _places(read, elf)
        relocated = _relocated(read, elf, frozenset(place + 8 for place in places))

        def at(address: int, length: int) -> bytes:
            offset = file_offset(elf, address)
            return b"" if offset is None else read(offset, min(length, _end(elf, address) - address))

        def pointer(address: int) -> int | None:
            return relocated.get(address, int.from_bytes(exactly(at, address, 8), "little"))

        seen: set[int] = set()
        for place in places:
            _follow(at, elf, place, pointer, seen)
        return len(places)


def _relocated(read: Reader, elf: Elf, places: frozenset[int]) -> dict[int, int | None]:
    """What the loader will write at these addresses, less where it loads the file; None where that takes a symbol.

    What is not relocated, or by RELR, which adds to what is there, the file has itself.
    """
    tags = {entry.tag: entry.value for entry in dynamic_entries(read, elf)}
    start, size = tags.get(DT_RELA, 0), tags.get(DT_RELASZ, 0)
    if not size or not places:
        return {}
    offset = file_offset(elf, start, size)
    if offset is None or size % _RELA.size or size > _MAX_TABLE:
        raise ElfError("a relocation table that is in no segment")
    rows = _RELA.iter_unpack(exactly(read, offset, size))
    relative = RELATIVE.get(elf.machine)
    return {place: addend if kind == relative else None for place, kind, _, addend in rows if place in places}


# --- a wrapper, in the file or in memory ---------------------------------------------------------------


def _follow(at: _MemoryReader, elf: Elf, place: int, pointer: Callable[[int], int | None], seen: set[int]) -> None:
    """LoadError unless there is a wrapper at an address and, where it is known to point, a fatbin that adds up.

    Fatbins that were `seen` already are not looked at again: hostile wrappers may all point at the same long one.
    """
    where = f"the wrapper at {place:#x}"
    try:
        magic, version, _, _ = WRAPPER.unpack(exactly(at, place, WRAPPER.size))
        if magic != WRAPPER_MAGIC or version not in _VERSIONS:
            raise LoadError(f"{where} is none")
        address = pointer(place + 8)
        if address is None or address in seen:
            return
        seen.add(address)
        end = _end(elf, address)
        if not end:
            raise LoadError(f"{where} points outside the file's segments, at {address:#x}")
        for entry in parse_fatbin(at, address, end).entries:
            exactly(at, entry.end - 1, 1)  # in memory, that touches it
    except (ElfError, FatbinError) as error:
        raise LoadError(f"{where}: {error}") from error


def _end(elf: Elf, address: int) -> int:
    """Where the content of the segment ends that an address is in; 0 if it is in none."""
    return next((p.vaddr + p.filesz for p in elf.loads if p.vaddr <= address < p.vaddr + p.filesz), 0)


# --- the process ---------------------------------------------------------------------------------------


def _load(path: Path, timeout: float) -> _Report:
    """Has the file loaded and its wrappers followed in a fresh process, with an environment that says nothing."""
    root = str(Path(__file__).resolve().parents[2])
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _CHILD, root, str(path)],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return _Report(failure=f"not within {timeout:g} seconds")
    lines = done.stdout.splitlines()
    if not lines:
        return _Report(failure=_death(done.returncode))
    report = from_json(lines[-1], _Report)
    if done.returncode and not report.failure:
        report.fault = _death(done.returncode)
    report.failure = report.failure.removeprefix(f"{path}: ")  # the same of a file and its original
    return report


def _death(status: int) -> str:
    return f"the process died of {signal.Signals(-status).name}" if status < 0 else f"the process exited with {status}"


def child(path: str) -> None:
    """What the process does: loads the file, follows its wrappers, and prints a report after each of the two."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    report = os.dup(1)
    os.dup2(2, 1)  # what constructors print is no report
    try:
        library = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        _say(report, failure=str(error).partition("\n")[0])
        return
    _say(report)
    try:
        _say(report, wrappers=_follow_in_memory(Path(path), library._handle))
    except LoadError as error:
        _say(report, fault=str(error))
    os._exit(0)  # past destructors, which are no matter of loading


def _say(report: int, **fields: str | int) -> None:
    os.write(report, json.dumps(fields).encode() + b"\n")


def _follow_in_memory(path: Path, handle: int) -> int:
    """Follows the wrappers of a library that this process has loaded; how many there are."""
    link_map = ctypes.POINTER(ctypes.c_size_t)()
    if ctypes.CDLL(None).dlinfo(ctypes.c_void_p(handle), _RTLD_DI_LINKMAP, ctypes.byref(link_map)):
        raise LoadError("the loader does not say where the library is")
    base = int(link_map[0])  # l_addr, the first field: what to add to the file's addresses

    with _opened(path) as (read, elf):

        def at(address: int, length: int) -> bytes:
            length = min(length, _end(elf, address) - address)
            return ctypes.string_at(base + address, length) if length > 0 else b""

        def pointer(address: int) -> int:
            return int.from_bytes(exactly(at, address, 8), "little") - base

        places = _places(read, elf)
        seen: set[int] = set()
        for place in places:
            _follow(at, elf, place, pointer, seen)
        return len(places)
