"""The load check: sound files pass, and damage is seen that loading alone does not show."""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deadweight.binary import elf
from deadweight.binary.fatbin import WRAPPER_MAGIC, parse_fatbin
from deadweight.binary.loadcheck import LoadError, check_load
from support import hosts
from support.elf import gcc, read_from
from support.fatbins import assorted
from support.hosts import ARM64, LAYOUTS, Layout

LIBRARY = LAYOUTS["library"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_sound_files_pass(tmp_path: Path, name: str) -> None:
    path = hosts.build(LAYOUTS[name], tmp_path)
    check_load(path)
    check_load(path, path)


@pytest.mark.parametrize("name", ARM64)
def test_sound_files_for_another_machine_pass(tmp_path: Path, name: str) -> None:
    check_load(hosts.build_arm64(ARM64[name], tmp_path))


def test_file_without_gpu_code_passes(tmp_path: Path) -> None:
    check_load(gcc(tmp_path, "libplain.so", "int answer(void) { return 42; }", "-shared", "-fPIC"))


def _loads(path: Path) -> bool:
    """Whether a plain dlopen takes it, which is what the check is held against."""
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1])"
    return subprocess.run([sys.executable, "-I", "-c", code, path], check=False).returncode == 0


def _damage(path: Path, at: int, layout: str, change: Callable[[int], int]) -> None:
    data = bytearray(path.read_bytes())
    (value,) = struct.unpack_from(layout, data, at)
    struct.pack_into(layout, data, at, change(value))
    path.write_bytes(data)


def _section(path: Path, name: str) -> elf.Section:
    data = path.read_bytes()
    return next(s for s in elf.parse(read_from(data), len(data)).sections if s.name == name)


def _addend(path: Path, number: int) -> int:
    """Where the file has the addend of the relocation for a wrapper."""
    place = _section(path, ".nvFatBinSegment").addr + 24 * number + 8
    table = _section(path, ".rela.dyn")
    rows = struct.iter_unpack("<QQQ", path.read_bytes()[table.offset : table.end])
    return table.offset + 16 + 24 * next(i for i, row in enumerate(rows) if row[0] == place)


class TestDamage:
    """Each of these loads, and works until its first kernel is to run."""

    def _reason(self, path: Path, loads: bool = True) -> str:
        assert _loads(path) is loads
        with pytest.raises(LoadError) as caught:
            check_load(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    @pytest.mark.parametrize("by", [8, -8, 1])
    def test_pointer_that_is_off(self, tmp_path: Path, by: int) -> None:
        path = hosts.build(LIBRARY, tmp_path)
        _damage(path, _addend(path, 3), "<Q", lambda value: value + by)
        assert "no fatbin where one should begin" in self._reason(path)

    def test_pointer_to_nowhere(self, tmp_path: Path) -> None:
        path = hosts.build(LIBRARY, tmp_path)
        _damage(path, _addend(path, 3), "<Q", lambda value: value + (1 << 30))
        assert "outside the file's segments" in self._reason(path)

    def test_pointer_in_a_program(self, tmp_path: Path) -> None:
        path = hosts.build(LAYOUTS["program at a fixed address"], tmp_path)
        at = _section(path, ".nvFatBinSegment").offset + 24 * 2 + 8
        _damage(path, at, "<Q", lambda value: value + 8)
        assert "no fatbin" in self._reason(path, loads=False)

    def test_pointer_without_section_headers(self, tmp_path: Path) -> None:
        path = hosts.build(LAYOUTS["library"], tmp_path)
        _damage(path, _addend(path, 3), "<Q", lambda value: value + 8)
        path.write_bytes(hosts.without_sections(path.read_bytes()))
        assert "no fatbin" in self._reason(path)

    def test_packed_relocations(self, tmp_path: Path) -> None:
        path = hosts.build(LAYOUTS["RELR"], tmp_path)
        _damage(path, _section(path, ".nvFatBinSegment").offset + 8, "<Q", lambda value: value + 8)
        assert "no fatbin" in self._reason(path)

    def test_pointer_for_another_machine(self, tmp_path: Path) -> None:
        path = hosts.build_arm64(ARM64["library"], tmp_path)
        _damage(path, _addend(path, 0), "<Q", lambda value: value + 8)
        assert "no fatbin" in self._reason(path, loads=False)

    @pytest.mark.parametrize(("at", "value"), [(0, 0x466243B0), (4, 3)])
    def test_wrapper(self, tmp_path: Path, at: int, value: int) -> None:
        path = hosts.build(LIBRARY, tmp_path)
        _damage(path, _section(path, ".nvFatBinSegment").offset + 24 + at, "<I", lambda _: value)
        assert "is none" in self._reason(path)

    @pytest.mark.parametrize("field", [4, 8], ids=["header size", "payload size"])
    @pytest.mark.parametrize("by", [8, -8])
    @pytest.mark.parametrize("number", [0, 1, 5])
    def test_size_of_an_entry(self, tmp_path: Path, number: int, field: int, by: int) -> None:
        path = hosts.build(LIBRARY, tmp_path)
        data = path.read_bytes()
        start = data.find(assorted()[number])
        entry = parse_fatbin(read_from(data), start, len(data)).entries[1]
        _damage(path, entry.offset + field, "<I", lambda value: value + by)
        assert "the wrapper at" in self._reason(path)

    def test_size_of_a_fatbin(self, tmp_path: Path) -> None:
        path = hosts.build(LIBRARY, tmp_path)
        at = path.read_bytes().find(assorted()[2])
        _damage(path, at + 8, "<Q", lambda value: value + 8)
        assert "the wrapper at" in self._reason(path)

    def test_truncated(self, tmp_path: Path) -> None:
        path = hosts.build(LIBRARY, tmp_path)
        path.write_bytes(path.read_bytes()[:40_000])
        assert self._reason(path, loads=False)

    def test_no_elf_file(self, tmp_path: Path) -> None:
        path = tmp_path / "libtext.so"
        path.write_text("INPUT(libreal.so)\n")
        assert self._reason(path, loads=False) == "not an ELF file"


def _library(folder: Path, more: str) -> Path:
    """A library in which `more` runs when it is loaded, after all relocations."""
    path = hosts.build(LIBRARY, folder)
    source = f"""
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <unistd.h>
    #include <sys/mman.h>
    #define WRAPPER_MAGIC {WRAPPER_MAGIC}
    {hosts.CHECKSUM}
    __attribute__((constructor)) static void begin(void) {{ {more} }}
    """
    assembly = ("-x", "assembler", str(folder / "fatbins.s"))
    return gcc(folder, path.name, source, "-shared", "-fPIC", *assembly)


class TestMemory:
    """What only a process shows that has loaded the file."""

    def test_what_constructors_print_is_no_matter(self, tmp_path: Path) -> None:
        check_load(_library(tmp_path, r'printf("{\"fault\": \"none\"}\n"); fflush(stdout);'))

    def test_wrapper_that_changes(self, tmp_path: Path) -> None:
        path = _library(tmp_path, "wrappers[4].fatbin += 8;")
        with pytest.raises(
            LoadError, match=r"^in memory: the wrapper at 0x[0-9a-f]+: no fatbin where one should begin"
        ):
            check_load(path)

    def test_memory_that_cannot_be_read(self, tmp_path: Path) -> None:
        page = "(void *)((unsigned long)(wrappers[1].fatbin + 8192) & ~4095ul)"
        path = _library(tmp_path, f"if (mprotect({page}, 200000, PROT_NONE)) abort();")
        with pytest.raises(LoadError, match=r"^in memory: the process died of SIGSEGV$"):
            check_load(path)

    def test_crash_while_loading(self, tmp_path: Path) -> None:
        path = _library(tmp_path, "abort();")
        with pytest.raises(LoadError, match=r"^does not load: the process died of SIGABRT$"):
            check_load(path)
        check_load(path, path)

    def test_timeout(self, tmp_path: Path) -> None:
        path = _library(tmp_path, "sleep(60);")
        with pytest.raises(LoadError, match=r"^does not load: not within 0.5 seconds$"):
            check_load(path, timeout=0.5)

    def test_an_exit_while_loading(self, tmp_path: Path) -> None:
        with pytest.raises(LoadError, match=r"^does not load: the process exited with 3$"):
            check_load(_library(tmp_path, "_exit(3);"))

    def test_pointer_that_takes_a_symbol(self, tmp_path: Path) -> None:
        """The file alone does not say where it leads; once loaded it does."""
        layout = Layout(symbols="kernels", more=".globl {1}\n.type {1}, %object\n")
        path = hosts.build(layout, tmp_path)
        check_load(path)
        data = path.read_bytes()
        _damage(path, data.find(assorted()[1]), "<Q", lambda value: value ^ 1)
        with pytest.raises(LoadError, match=r"^in memory: .*: no fatbin"):
            check_load(path)


class TestOriginal:
    """Loading as before is all that is asked."""

    def _without_its_needs(self, folder: Path, name: str) -> Path:
        """A library that needs another one, called so, which is nowhere."""
        folder.mkdir()
        needed = gcc(folder, f"lib{name}.so", "int needed(void) { return 1; }", "-shared", "-fPIC")
        path = hosts.build(Layout(("-shared", "-fPIC", "-Wl,--no-as-needed", f"-L{folder}", f"-l{name}")), folder)
        needed.unlink()
        return path

    def test_same_failure(self, tmp_path: Path) -> None:
        one, two = (self._without_its_needs(tmp_path / folder, "gone") for folder in ("one", "two"))
        with pytest.raises(LoadError, match=r"does not load: .*libgone.so: cannot open shared object file"):
            check_load(one)
        check_load(one, two)

    def test_same_failure_with_a_bad_wrapper(self, tmp_path: Path) -> None:
        one, two = (self._without_its_needs(tmp_path / folder, "gone") for folder in ("one", "two"))
        _damage(one, _addend(one, 3), "<Q", lambda value: value + 8)
        with pytest.raises(LoadError, match="no fatbin"):
            check_load(one, two)

    def test_another_failure(self, tmp_path: Path) -> None:
        one, two = (self._without_its_needs(tmp_path / name, name) for name in ("gone", "lost"))
        with pytest.raises(LoadError, match=r"libgone.so: cannot open"):
            check_load(one, two)

    def test_new_failure(self, tmp_path: Path) -> None:
        (tmp_path / "good").mkdir()
        with pytest.raises(LoadError, match=r"libgone.so: cannot open"):
            check_load(self._without_its_needs(tmp_path / "bad", "gone"), hosts.build(LIBRARY, tmp_path / "good"))

    def test_fewer_wrappers(self, tmp_path: Path) -> None:
        folders = tmp_path / "one", tmp_path / "two"
        for folder in folders:
            folder.mkdir()
        path = hosts.build(LAYOUTS["first fatbin without a reference"], folders[0])
        with pytest.raises(LoadError, match=r"^7 wrappers, the original has 8$"):
            check_load(path, hosts.build(LIBRARY, folders[1]))


def test_magic_by_chance_is_no_wrapper(tmp_path: Path) -> None:
    """Without section headers wrappers are looked for, at multiples of 8 and with a version that exists."""
    more = f".section .data\n.balign 8\n.long 0, {WRAPPER_MAGIC:#x}, 1, 7, {WRAPPER_MAGIC:#x}, 9\n"
    check_load(hosts.build(Layout(more=more, edit=hosts.without_sections), tmp_path))


def test_this_process_loads_nothing(tmp_path: Path) -> None:
    path = hosts.build(LIBRARY, tmp_path)
    check_load(path)
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert not hasattr(ctypes.CDLL(None), "gpu_checksum")
