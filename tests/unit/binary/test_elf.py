"""The ELF reader: against pyelftools on real files, and against hostile bytes."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deadweight.binary import dynamic as loader
from deadweight.binary import elf
from deadweight.binary.elf import ElfError
from deadweight.binary.gpu_code import breakdown
from support import elf as fixtures

SITE = next(Path(p) for p in sys.path if p.endswith("site-packages"))
REAL = sorted([*SITE.glob("numpy.libs/*.so*"), *SITE.glob("numpy/_core/*.so"), *SITE.glob("msgspec/*.so")])


def _breakdown(data: bytes) -> dict[str, int]:
    found = dict(breakdown(fixtures.read_from(data), len(data)).bytes)
    assert sum(found.values()) == len(data)
    return {str(label): size for label, size in found.items()}


def _parse(data: bytes) -> elf.Elf:
    return elf.parse(fixtures.read_from(data), len(data))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return fixtures.library(
        tmp_path_factory.mktemp("elf"),
        "-nostdlib",
        "-Wl,-rpath,/one:$ORIGIN/two",
        "-Wl,-z,noseparate-code",
        source="int answer(void) { return 42; }",
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return fixtures.library(tmp_path_factory.mktemp("elf"), "-lm", "-Wl,--no-as-needed")


class TestAgainstPyelftools:
    @pytest.fixture(params=[p.name for p in REAL] + ["compiled", "python"])
    def data(self, request: pytest.FixtureRequest, library: bytes) -> bytes:
        name: str = request.param
        if name == "compiled":
            return library
        if name == "python":
            return Path(sys.executable).resolve().read_bytes()
        return next(p for p in REAL if p.name == name).read_bytes()

    def test_headers(self, data: bytes) -> None:
        ours, theirs = _parse(data), ELFFile(io.BytesIO(data))
        assert [s.name for s in ours.sections] == [s.name for s in theirs.iter_sections()]
        fields = ("sh_flags", "sh_addr", "sh_offset", "sh_size", "sh_link", "sh_info", "sh_addralign")
        assert [tuple(s[2:9]) for s in ours.sections] == [
            tuple(s[field] for field in fields) for s in theirs.iter_sections()
        ]
        fields = ("p_flags", "p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz", "p_align")
        assert [tuple(p[1:]) for p in ours.program_headers] == [
            tuple(p[field] for field in fields) for p in theirs.iter_segments()
        ]
        assert ours.entry == theirs["e_entry"]

    def test_dynamic(self, data: bytes) -> None:
        ours, theirs = _parse(data), ELFFile(io.BytesIO(data))
        read = fixtures.read_from(data)
        found = loader.dynamic(read, ours)
        segment = next(s for s in theirs.iter_segments() if isinstance(s, DynamicSegment))
        tags = [(tag.entry.d_tag, tag) for tag in segment.iter_tags()]

        def named(name: str) -> list[str]:
            return [getattr(tag, name.removeprefix("DT_").lower()) for key, tag in tags if key == name]

        assert list(found.needed) == named("DT_NEEDED")
        assert [found.soname or ""] == (named("DT_SONAME") or [""])
        assert [":".join(found.rpath)] == (named("DT_RPATH") or [""])
        assert [":".join(found.runpath)] == (named("DT_RUNPATH") or [""])
        interpreters = [s.get_interp_name() for s in theirs.iter_segments() if isinstance(s, InterpSegment)]
        assert loader.interpreter(read, ours) == (interpreters[0] if interpreters else None)

    def test_breakdown_byte_by_byte(self, data: bytes) -> None:
        labels = bytearray(len(data))
        for section in reversed(list(ELFFile(io.BytesIO(data)).iter_sections())):
            if section["sh_type"] in ("SHT_NOBITS", "SHT_NULL"):
                continue
            label = 0
            if not section["sh_flags"] & 2:
                if section.name != ".shstrtab" and not section.name.startswith(".note."):
                    label = 2
            elif section["sh_flags"] & 4:
                label = 1
            start, size = section["sh_offset"], section["sh_size"]
            labels[start : start + size] = bytes([label]) * size
        assert _breakdown(data) == {
            "host code": labels.count(1),
            "gpu code": 0,
            "symbols": labels.count(2),
            "data": labels.count(0),
        }


def test_reads_little(library: bytes) -> None:
    reads: list[int] = []

    def read(offset: int, length: int) -> bytes:
        reads.append(length)
        return library[offset : offset + length]

    elf.parse(read, len(library))
    assert len(reads) == 3
    assert sum(reads) < 8192


def test_names_and_paths(small: bytes) -> None:
    found = loader.dynamic(fixtures.read_from(small), _parse(small))
    assert found.soname == "libfixture.so.1"
    assert found.rpath + found.runpath == ("/one", "$ORIGIN/two")
    assert found.needed == ()


def test_static_program_is_empty(tmp_path: Path) -> None:
    data = fixtures.program(tmp_path, "-static")
    assert loader.dynamic(fixtures.read_from(data), _parse(data)) == loader.Dynamic()
    assert loader.interpreter(fixtures.read_from(data), _parse(data)) is None


def test_no_section_headers_needed(library: bytes) -> None:
    whole = _parse(library)
    cut = bytearray(library[: max(p.offset + p.filesz for p in whole.loads)])
    cut[40:48] = bytes(8)  # e_shoff
    cut[60:64] = bytes(4)  # e_shnum, e_shstrndx
    bare = _parse(bytes(cut))
    assert bare.sections == ()
    read = fixtures.read_from(bytes(cut))
    assert loader.dynamic(read, bare) == loader.dynamic(fixtures.read_from(library), whole)
    assert _breakdown(bytes(cut))["host code"] == sum(p.filesz for p in whole.loads if p.flags & elf.PF_X)


def test_gpu_sections(tmp_path: Path) -> None:
    blocks = "".join(
        f'asm(".section {name},\\"a\\"\\n.fill {size}\\n.previous");'
        for name, size in ((".nv_fatbin", 1000), ("__nv_relfatbin", 200), (".nvFatBinSegment", 24))
    )
    data = fixtures.library(tmp_path, source=fixtures.LIBRARY + blocks)
    assert _breakdown(data)["gpu code"] == 1224
    gpu = bytearray(data)
    gpu[18:20] = struct.pack("<H", 190)
    assert _breakdown(bytes(gpu)) == {
        "host code": 0,
        "gpu code": len(data) - _breakdown(data)["symbols"],
        "symbols": _breakdown(data)["symbols"],
        "data": 0,
    }


def test_file_offset(library: bytes) -> None:
    parsed = _parse(library)
    text = next(s for s in parsed.sections if s.name == ".text")
    assert elf.file_offset(parsed, text.addr, text.size) == text.offset
    bss = next(s for s in parsed.sections if s.name == ".bss")
    assert elf.file_offset(parsed, bss.addr + bss.size - 1) is None
    assert elf.file_offset(parsed, 1 << 63) is None


class TestDamaged:
    @pytest.mark.parametrize(
        ("at", "value", "reason"),
        [
            (0, b"PK", "not an ELF file"),
            (4, b"\x01", "not a 64-bit"),
            (5, b"\x02", "little-endian"),
            (6, b"\x07", "unknown version"),
            (32, b"\xff" * 8, "program header table is not inside"),
            (40, b"\xff" * 8, "section header table is not inside"),
            (40, bytes(8), "without a section header table"),
            (54, b"\x20\x00", "program headers of 32 bytes"),
            (56, b"\xff\xff", "program headers are more"),
            (58, b"\x20\x00", "section headers of 32 bytes"),
            (60, b"\x00\x00", "not supported"),
            (60, b"\xff\xff", "not supported"),
            (62, b"\xff\xff", "not supported"),
            (62, b"\xf0\x00", "not among the sections"),
            (62, b"\x01\x00", "not a string table"),
        ],
    )
    def test_header(self, small: bytes, at: int, value: bytes, reason: str) -> None:
        with pytest.raises(ElfError, match=reason):
            _parse(small[:at] + value + small[at + len(value) :])

    def test_tables_pointing_outside(self, small: bytes) -> None:
        parsed = _parse(small)
        section = parsed.shoff + 64 * next(i for i, s in enumerate(parsed.sections) if s.name == ".comment")
        for at, what in ((section + 31, "section"), (section + 39, "section"), (64 + 8 + 7, "segment")):
            with pytest.raises(ElfError, match=f"a {what} points outside"):
                _parse(small[:at] + b"\x7f" + small[at + 1 :])

    def test_every_truncation(self, small: bytes) -> None:
        for length in range(0, len(small), 97):
            with pytest.raises(ElfError):
                _parse(small[:length])

    def test_shorter_than_said(self, small: bytes) -> None:
        with pytest.raises(ElfError, match="shorter"):
            elf.parse(fixtures.read_from(small[: len(small) // 2]), len(small))

    def test_names_sharing_one_long_tail(self) -> None:
        """65,000 sections, each named by another end of one long name, must not be 2 GB of names."""
        count, names = 60000, b"\0" + b"x" * 65000 + b"\0"
        rows = [(0,) * 10, (1, elf.SHT_STRTAB, 0, 0, 64, len(names), 0, 0, 1, 0)]
        rows += [(2 + i, elf.SHT_PROGBITS, 0, 0, 64, 1, 0, 0, 1, 0) for i in range(count)]
        head = elf.HEADER.pack(
            b"\x7fELF\x02\x01\x01" + bytes(9), 3, 62, 1, 0, 0, 64 + len(names), 0, 64, 56, 0, 64, len(rows), 1
        )
        with pytest.raises(ElfError, match="name"):
            _parse(head + names + b"".join(elf.SECTION_HEADER.pack(*row) for row in rows))

    def test_many_overlapping_sections_count_once(self) -> None:
        rows = [
            (0, elf.SHT_PROGBITS, elf.SHF_ALLOC | (i % 2) * 4, 0, 64, 5000 - i % 7, 0, 0, 1, 0) for i in range(50000)
        ]
        head = elf.HEADER.pack(b"\x7fELF\x02\x01\x01" + bytes(9), 3, 62, 1, 0, 0, 5064, 0, 64, 56, 0, 64, len(rows), 0)
        data = head + bytes(5000) + b"".join(elf.SECTION_HEADER.pack(*row) for row in rows)
        assert _breakdown(data) == {"host code": 0, "gpu code": 0, "symbols": 0, "data": len(data)}

    @pytest.mark.parametrize("tag", [loader.DT_STRTAB, loader.DT_STRSZ, loader.DT_SONAME])
    def test_dynamic_strings_outside(self, small: bytes, tag: int) -> None:
        out = bytearray(small)
        segment = next(p for p in _parse(small).program_headers if p.type == elf.PT_DYNAMIC)
        for at in range(segment.offset, segment.offset + segment.filesz, 16):
            if out[at : at + 8] == tag.to_bytes(8, "little"):
                out[at + 8 : at + 16] = b"\xff" * 8
        with pytest.raises(ElfError, match="dynamic string"):
            loader.dynamic(fixtures.read_from(bytes(out)), _parse(bytes(out)))

    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_any_bytes_give_an_answer_or_an_elf_error(self, small: bytes, data: st.DataObject) -> None:
        out = bytearray(small)
        parsed = _parse(small)
        tables = [
            range(64),
            range(parsed.phoff, parsed.phoff + 56 * len(parsed.program_headers)),
            range(parsed.shoff, parsed.shoff + 64 * len(parsed.sections)),
            *(range(p.offset, p.offset + p.filesz) for p in parsed.program_headers if p.type == elf.PT_DYNAMIC),
        ]
        where = st.one_of([st.sampled_from(table) for table in tables])
        for at, value in data.draw(st.lists(st.tuples(where, st.integers(0, 255)), max_size=8)):
            out[at] = value
        out = out[: data.draw(st.one_of(st.just(len(out)), st.integers(0, len(out))))]
        read = fixtures.read_from(bytes(out))
        _breakdown(bytes(out))
        try:
            found = elf.parse(read, len(out))
            loader.interpreter(read, found)
            loader.dynamic(read, found)
        except ElfError as error:
            assert "\n" not in str(error)  # noqa: PT017

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=300))
    def test_behind_the_magic(self, tail: bytes) -> None:
        _breakdown(b"\x7fELF\x02\x01\x01" + tail)
