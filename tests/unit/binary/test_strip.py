"""Stripping: results load and run, hold the same program, and odd files stay."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deadweight.binary import elf
from deadweight.binary.elf import ElfError
from deadweight.binary.strip import MIN_SAVING, CannotStrip, check, strip_symbols
from deadweight.image.content import Content
from support import elf as fixtures

SITE = next(Path(p) for p in sys.path if p.endswith("site-packages"))
MACHINE = elf.MACHINES[{"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]]

LIBRARIES = {
    "plain": (),
    "2 MiB pages": ("-Wl,-z,max-page-size=0x200000",),
    "64 KiB pages": ("-Wl,-z,max-page-size=0x10000",),
    "two segments": ("-Wl,-z,noseparate-code",),
    "relocations kept": ("-Wl,--emit-relocs",),
    "old hash table": ("-Wl,--hash-style=sysv", "-Wl,-z,norelro"),
    "lazy": ("-Wl,-z,lazy",),
    "compressed": ("-gz=zlib",),
    "dwarf 4, no build id": ("-gdwarf-4", "-Wl,--build-id=none"),
}
PROGRAMS = {
    "pie": ("-pie", "-fPIE"),
    "no pie": ("-no-pie", "-fno-pie"),
    "static": ("-static",),
    "static pie": ("-static-pie", "-fPIE"),
    "2 MiB pages": ("-no-pie", "-fno-pie", "-Wl,-z,max-page-size=0x200000"),
    "relocations kept": ("-pie", "-fPIE", "-Wl,--emit-relocs"),
    "exported": ("-rdynamic",),
}


def _strip(data: bytes) -> tuple[Content, bytes]:
    read = fixtures.read_from(data)
    stripped = strip_symbols(read, len(data), MACHINE)
    new = stripped.reader(read)(0, len(data))
    assert len(new) == stripped.size <= len(data) - MIN_SAVING
    return stripped, new


def _checked(data: bytes, directory: Path, name: str = "libfixture.so") -> Path:
    """Strips, compares in every way, and writes the result to a new file."""
    stripped, new = _strip(data)
    check(fixtures.read_from(data), len(data), fixtures.read_from(new), len(new))
    with pytest.raises(CannotStrip, match=r"^nothing to strip$"):
        _strip(new)
    assert stripped == _strip(data)[0]
    before, after = directory / "before", directory / name
    before.write_bytes(data)
    after.write_bytes(new)
    after.chmod(0o755)
    assert fixtures.readelf(after, "-lSW")[1] == fixtures.readelf(before, "-lSW")[1].replace("before", name)
    names = {s.name for s in elf.parse(fixtures.read_from(new), len(new)).sections if not s.allocated}
    assert names <= {"", ".shstrtab", ".note.stapsdt"}
    # The symbols name sections by index: readelf prints them, and the notes it finds by section.
    assert _lines(after) == _lines(before)
    return after


def _sections(data: bytes) -> tuple[elf.Section, ...]:
    return elf.parse(fixtures.read_from(data), len(data)).sections


def _end_of_memory(data: bytes) -> int:
    return max(p.vaddr + p.memsz for p in elf.parse(fixtures.read_from(data), len(data)).loads)


def _lines(path: Path) -> list[str]:
    text = fixtures.readelf(path, "-W", "--dyn-syms", "-V", "-n", "-x", ".dynstr")[0]
    text += fixtures.readelf(path, "-W", "-D", "-r")[0]  # -D: not those for the linker
    return [line for line in text.splitlines() if "offset" not in line.lower()]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return fixtures.library(tmp_path_factory.mktemp("strip"))


@pytest.fixture(scope="module")
def patched(library: bytes) -> bytes:
    return fixtures.like_patchelf(library, move_headers=True)


@pytest.mark.parametrize("options", LIBRARIES.values(), ids=LIBRARIES.keys())
def test_libraries_load_and_work(tmp_path: Path, options: tuple[str, ...]) -> None:
    data = fixtures.library(tmp_path, *options)
    assert fixtures.answer_of_library(_checked(data, tmp_path)) == 42


@pytest.mark.parametrize("options", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_programs_run(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = _checked(fixtures.program(tmp_path, *options), tmp_path, "stripped")
    assert subprocess.run([path], check=True, capture_output=True).stdout == b"42\n"


class TestSegmentsBehindTheSymbols:
    """What patchelf leaves: a segment that has to move down in the file."""

    @pytest.mark.parametrize("options", LIBRARIES.values(), ids=LIBRARIES.keys())
    @pytest.mark.parametrize("move_headers", [False, True])
    def test_libraries(self, tmp_path: Path, options: tuple[str, ...], move_headers: bool) -> None:
        data = fixtures.library(tmp_path, *options)
        page = 4096
        if options and "page-size" in options[0]:
            page = int(options[0].split("=")[1], 16)
        data = fixtures.like_patchelf(data, move_headers=move_headers, page=page)
        (tmp_path / "edited.so").write_bytes(data)
        assert fixtures.answer_of_library(tmp_path / "edited.so") == 42
        read = fixtures.read_from(data)
        if page > MIN_SAVING:  # nothing moves by less than a page: perhaps nothing is left to save
            try:
                strip_symbols(read, len(data), MACHINE)
            except CannotStrip as error:
                assert str(error) == "nothing to strip"  # noqa: PT017
                return
        path = _checked(data, tmp_path)
        new = path.read_bytes()
        old_elf, new_elf = elf.parse(read, len(data)), elf.parse(fixtures.read_from(new), len(new))
        moved = {a.offset - b.offset for a, b in zip(old_elf.loads, new_elf.loads, strict=True)}
        if page == MIN_SAVING:
            assert len(moved) == 2
        assert all(distance % page == 0 for distance in moved)
        assert (new_elf.phoff != old_elf.phoff) == (move_headers and len(moved) == 2)
        assert fixtures.answer_of_library(path) == 42

    def test_program(self, tmp_path: Path) -> None:
        data = fixtures.like_patchelf(fixtures.program(tmp_path, "-pie", "-fPIE"))
        path = _checked(data, tmp_path, "stripped")
        assert subprocess.run([path], check=True, capture_output=True).stdout == b"42\n"

    def test_program_with_its_headers_there_stays(self, tmp_path: Path) -> None:
        data = fixtures.like_patchelf(fixtures.program(tmp_path, "-pie", "-fPIE"), move_headers=True)
        with pytest.raises(CannotStrip, match="header table would move"):
            _strip(data)


class TestRealLibraries:
    def _strip_tree(self, directory: Path) -> tuple[int, int, int]:
        """Strips every file there is; how many were stripped, how many had segments that moved, and bytes saved."""
        count = moved = saved = 0
        for path in sorted(directory.rglob("*.so*")):
            data = path.read_bytes()
            try:
                _, new = _strip(data)
            except CannotStrip as error:
                assert str(error) == "nothing to strip"  # noqa: PT017
                continue
            check(fixtures.read_from(data), len(data), fixtures.read_from(new), len(new))
            path.write_bytes(new)
            offsets = [[p.offset for p in elf.parse(fixtures.read_from(d), len(d)).loads] for d in (data, new)]
            count, moved, saved = (
                count + 1,
                moved + (offsets[0] != offsets[1]),
                saved + len(data) - len(new),
            )
        return count, moved, saved

    def _run(self, directory: Path, code: str) -> str:
        env = os.environ | {"PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-c", code]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout

    def test_numpy_with_its_patched_libraries(self, tmp_path: Path) -> None:
        leave = shutil.ignore_patterns("tests", "*.pyi", "*.h", "*.a", "f2py")
        for name in ("numpy", "numpy.libs"):
            shutil.copytree(SITE / name, tmp_path / name, ignore=leave)
        count, moved, saved = self._strip_tree(tmp_path)
        assert count >= 2
        assert moved >= 2
        assert saved > 1_000_000
        out = self._run(
            tmp_path,
            "import numpy, numpy.linalg, numpy.fft, numpy.random\n"
            "a = numpy.random.rand(50, 50); u, s, v = numpy.linalg.svd(a)\n"
            "assert numpy.allclose(u @ numpy.diag(s) @ v, a)\n"
            "assert numpy.allclose(numpy.fft.ifft(numpy.fft.fft(a)), a)\n"
            "print(numpy.__file__)",
        )
        assert out.startswith(str(tmp_path))

    def test_others(self, tmp_path: Path) -> None:
        for name in ("isal", "msgspec"):
            shutil.copytree(SITE / name, tmp_path / name)
        self._strip_tree(tmp_path)
        out = self._run(
            tmp_path,
            "import msgspec, isal.igzip as z, msgspec._core as c\n"
            "assert z.decompress(z.compress(b'x' * 999)) == b'x' * 999\n"
            "assert msgspec.json.decode(b'[1]') == [1]\nprint(z.__file__, c.__file__)",
        )
        assert out.count(str(tmp_path)) == 2


class TestSections:
    def test_notes_for_tracers_stay(self, tmp_path: Path) -> None:
        note = 'asm(".pushsection .note.stapsdt,\\"\\",@note\\n.fill 44, 1, 0x5a\\n.popsection");'
        data = fixtures.library(tmp_path, source=fixtures.LIBRARY + note)
        new = _checked(data, tmp_path).read_bytes()
        sections = elf.parse(fixtures.read_from(new), len(new)).sections
        found = next(s for s in sections if s.name == ".note.stapsdt")
        assert new[found.offset : found.end] == b"\x5a" * 44

    def test_indices_of_sections_behind_the_symbols(self, tmp_path: Path) -> None:
        """A section that stays behind ones that go keeps its index; empty entries fill the table."""
        data = fixtures.like_patchelf(fixtures.library(tmp_path))
        out = bytearray(data)
        parsed = elf.parse(fixtures.read_from(data), len(data))
        first = next(i for i, s in enumerate(parsed.sections) if not s.allocated and i)
        row = parsed.shoff + first * 64
        last = parsed.shoff + (first - 1) * 64  # swap the last one that stays with the first that goes
        out[row : row + 64], out[last : last + 64] = data[last : last + 64], data[row : row + 64]
        _, new = _strip(bytes(out))
        sections = elf.parse(fixtures.read_from(new), len(new)).sections
        assert sections[first].name == parsed.sections[first - 1].name
        assert sections[first - 1] == ("", *(0,) * 9)
        assert len(sections) == first + 2
        assert sections[-1].name == ".shstrtab"

    def test_links_to_what_goes_are_cut(self, library: bytes) -> None:
        out = bytearray(library)
        parsed = elf.parse(fixtures.read_from(library), len(library))
        names = [s.name for s in parsed.sections]
        at = parsed.shoff + 64 * names.index(".rela.dyn")
        out[at + 40 : at + 48] = 2 * names.index(".symtab").to_bytes(4, "little")  # sh_link and sh_info
        _, new = _strip(bytes(out))
        found = next(s for s in _sections(new) if s.name == ".rela.dyn")
        assert (found.link, found.info) == (0, 0)

    def test_segment_without_content(self, library: bytes, tmp_path: Path) -> None:
        address = -(-_end_of_memory(library) // 4096) * 4096
        offset = len(library) // 4096 * 4096
        header = elf.ProgramHeader(elf.PT_LOAD, 6, offset, address, address, 0, 4096, 4096)
        path = _checked(fixtures.with_spare_segment(library, header), tmp_path)
        assert fixtures.answer_of_library(path) == 42

    def test_relocations_kept_by_the_linker_go(self, tmp_path: Path) -> None:
        data = fixtures.library(tmp_path, "-Wl,--emit-relocs")
        sections = elf.parse(fixtures.read_from(data), len(data)).sections
        assert any(s.name == ".rela.text" for s in sections)
        _, new = _strip(data)
        assert b".rela.text\0" not in new


def test_reads_headers_only(tmp_path: Path) -> None:
    source = fixtures.LIBRARY + "const char payload[5000000] = {1};"
    data = fixtures.library(tmp_path, source=source)
    spent = 0

    def read(offset: int, length: int) -> bytes:
        nonlocal spent
        spent += length
        return data[offset : offset + length]

    stripped = strip_symbols(read, len(data), MACHINE)
    assert spent < 65536
    assert sum(len(p) for p in stripped.pieces if isinstance(p, bytes)) < 16384


def test_reader_of_the_result(library: bytes) -> None:
    stripped, new = _strip(library)
    read = stripped.reader(fixtures.read_from(library))
    for offset in (*range(0, 8192, 61), len(new) - 1, len(new), len(new) + 9):
        for length in (0, 1, 64, 5000, len(new)):
            assert read(offset, length) == new[offset : offset + length]


class TestCheckSeesDamage:
    """The judge of the other tests must itself be able to say no."""

    @pytest.mark.parametrize("name", [".text", ".dynsym", ".dynstr", ".data", ".eh_frame"])
    def test_content(self, library: bytes, name: str) -> None:
        new = bytearray(_strip(library)[1])
        section = next(s for s in elf.parse(fixtures.read_from(library), len(library)).sections if s.name == name)
        new[section.offset + section.size // 2] ^= 0xFF
        with pytest.raises((CannotStrip, ElfError)):
            check(fixtures.read_from(library), len(library), fixtures.read_from(bytes(new)), len(new))

    @pytest.mark.parametrize("at", [24, 48, 64 + 4, 64 + 16, 64 + 32, 64 + 40, 64 + 56 + 8])
    def test_headers(self, library: bytes, at: int) -> None:
        new = bytearray(_strip(library)[1])
        new[at] ^= 0x01
        with pytest.raises((CannotStrip, ElfError)):
            check(fixtures.read_from(library), len(library), fixtures.read_from(bytes(new)), len(new))


class TestRefusals:
    def _reason(self, data: bytes, machine: int = MACHINE) -> str:
        with pytest.raises(CannotStrip) as caught:
            strip_symbols(fixtures.read_from(data), len(data), machine)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def test_machine(self, library: bytes) -> None:
        assert "another machine" in self._reason(library, elf.MACHINES["s390x"])

    @pytest.mark.parametrize(("at", "value"), [(4, 1), (5, 2)])
    def test_class_and_order(self, library: bytes, at: int, value: int) -> None:
        out = bytearray(library)
        out[at] = value
        assert self._reason(bytes(out)).startswith("not a ")

    @pytest.mark.parametrize("elf_type", [elf.ET_REL, elf.ET_CORE])
    def test_type(self, library: bytes, elf_type: int) -> None:
        assert "neither" in self._reason(library[:16] + bytes([elf_type]) + library[17:])

    def test_object(self, tmp_path: Path) -> None:
        data = fixtures.gcc(tmp_path, "object.o", fixtures.LIBRARY, "-c").read_bytes()
        assert "neither" in self._reason(data)

    def test_not_elf(self) -> None:
        assert "not an ELF file" in self._reason(b"#!/bin/sh\n")

    @pytest.mark.parametrize("tail", [b"MEI\014\013\012\013\016" + bytes(80), bytes(65), b"\0\0x"])
    def test_bytes_behind(self, library: bytes, tail: bytes) -> None:
        assert "behind its last section" in self._reason(library + tail)

    def test_padding_behind_is_nothing(self, library: bytes) -> None:
        assert _strip(library + bytes(64))[1] == _strip(library)[1]

    def test_bytes_in_a_gap(self, tmp_path: Path) -> None:
        data = bytearray(fixtures.library(tmp_path, "-Wl,-z,separate-code"))
        parsed = elf.parse(fixtures.read_from(bytes(data)), len(data))
        text_end = max(p.offset + p.filesz for p in parsed.loads if p.flags & elf.PF_X)
        assert data[text_end + 8] == 0
        data[text_end + 8] = 1
        assert "bytes between" in self._reason(bytes(data))

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            (".payload", "a section of unknown use, '.payload'"),
            (".modinfo", "a kernel module"),
            (".note.fdo.integrity", "checks its own file"),
        ],
    )
    def test_sections(self, tmp_path: Path, name: str, reason: str) -> None:
        block = f'asm(".pushsection {name},\\"\\"\\n.fill 100, 1, 7\\n.popsection");'
        assert reason in self._reason(fixtures.library(tmp_path, source=fixtures.LIBRARY + block))

    def test_no_section_headers(self, library: bytes) -> None:
        out = bytearray(library)
        out[40:48] = bytes(8)
        out[60:64] = bytes(4)
        assert "no section headers" in self._reason(bytes(out))

    def test_little_to_save(self, tmp_path: Path) -> None:
        data = fixtures.library(tmp_path, "-s")
        assert self._reason(data) == "nothing to strip"

    def test_debug_file(self, tmp_path: Path) -> None:
        fixtures.library(tmp_path)
        path = tmp_path / "libfixture.so"
        subprocess.run(["objcopy", "--only-keep-debug", path, tmp_path / "x.debug"], check=True)
        self._reason((tmp_path / "x.debug").read_bytes())

    def test_note_outside_segments(self, library: bytes) -> None:
        comment = next(s for s in _sections(library) if s.name == ".comment")
        header = elf.ProgramHeader(elf.PT_NOTE, 4, comment.offset, 0, 0, comment.size, comment.size, 4)
        assert "not loaded" in self._reason(fixtures.with_spare_segment(library, header))

    def test_section_apart_from_its_segment(self, library: bytes) -> None:
        parsed = elf.parse(fixtures.read_from(library), len(library))
        at = parsed.shoff + 64 * [s.name for s in parsed.sections].index(".text")
        assert "not where its segment is" in self._reason(library[: at + 17] + b"\x7f" + library[at + 18 :])

    def test_segments_that_share_a_page_of_memory(self, library: bytes) -> None:
        address = _end_of_memory(library) // 16 * 16 + 16
        offset = len(library) + (address - len(library)) % 4096
        header = elf.ProgramHeader(elf.PT_LOAD, 6, offset, address, address, 16, 16, 4096)
        data = library + bytes(offset + 16 - len(library))
        assert "share a page" in self._reason(fixtures.with_spare_segment(data, header))

    def test_segments_that_share_bytes_of_the_file(self, library: bytes) -> None:
        address = -(-_end_of_memory(library) // 4096) * 4096
        header = elf.ProgramHeader(elf.PT_LOAD, 4, 0, address, address, 64, 64, 4096)
        assert "share bytes" in self._reason(fixtures.with_spare_segment(library, header))

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"align": 16}, "unusual alignment"),
            ({"align": 0x3000}, "unusual alignment"),
            ({"offset": 4096 + 8}, "disagree"),
            ({"filesz": 8, "memsz": 4}, "larger in the file"),
            ({"vaddr": 0}, "overlap or are out of order"),
            ({"vaddr": 0x100008, "offset": 4096 + 8}, "does not begin a page"),
        ],
    )
    def test_strange_segments(self, library: bytes, change: dict[str, int], reason: str) -> None:
        header = elf.ProgramHeader(elf.PT_LOAD, 4, 4096, 0x100000, 0x100000, 0, 64, 4096)
        data = fixtures.with_spare_segment(library, header._replace(**change))
        assert reason in self._reason(data)


class TestHostile:
    @settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_a_checked_result_or_a_reason(self, library: bytes, patched: bytes, data: st.DataObject) -> None:
        out = bytearray(data.draw(st.sampled_from([library, patched])))
        parsed = elf.parse(fixtures.read_from(bytes(out)), len(out))
        tables = [
            range(64),
            range(parsed.phoff, parsed.phoff + 56 * len(parsed.program_headers)),
            range(parsed.shoff, parsed.shoff + 64 * len(parsed.sections)),
        ]
        where = st.one_of([st.sampled_from(table) for table in tables])
        for at, value in data.draw(st.lists(st.tuples(where, st.integers(0, 255)), max_size=4)):
            out[at] = value
        cut = data.draw(st.one_of(st.just(len(out)), st.integers(0, len(out))))
        read = fixtures.read_from(bytes(out[:cut]))
        try:
            stripped = strip_symbols(read, cut, MACHINE)
        except CannotStrip as error:
            assert "\n" not in str(error)  # noqa: PT017
            return
        assert len(stripped.reader(read)(0, cut)) == stripped.size
        check(read, cut, stripped.reader(read), stripped.size)
