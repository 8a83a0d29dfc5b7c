"""What the bytes of a file are: every one once, GPU code by architecture, whatever the file is."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deadweight.binary import elf
from deadweight.binary.fatbin import Fatbin, parse_section
from deadweight.binary.gpu_code import Breakdown, GpuCode, breakdown, gpu_file
from deadweight.image.content import Reader
from support import elf as fixtures
from support import fatbins, hosts

ALLOCATED, CODE = elf.SHF_ALLOC, elf.SHF_EXECINSTR
ENTRIES = {
    "sm_80": fatbins.sm(80, size=5000),
    "sm_90a": fatbins.sm(90, "a", size=6000, compress="zstd"),
    "sm_120f": fatbins.sm(120, "f", size=7000, compress="lz4"),
    "compute_90": fatbins.compute(90, size=8000),
    "lto_80": fatbins.lto(80, size=4000),
    f"kind{fatbins.OTHER_KIND}_75": fatbins.entry(fatbins.OTHER_KIND, 75, b"whatever"),
}


def section(
    name: str, content: bytes, flags: int = ALLOCATED, kind: int = elf.SHT_PROGBITS
) -> tuple[str, bytes, int, int]:
    return name, content, flags, kind


def elf_file(*sections: tuple[str, bytes, int, int], machine: int = 62, flags: int = 0) -> bytes:
    """An ELF file with these sections, and nothing else."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in sections) + b".shstrtab\0"
    out = bytearray(elf.HEADER.size)
    table = [bytes(elf.SECTION_HEADER.size)]
    name_at = 1
    for name, content, section_flags, kind in (*sections, (".shstrtab", names, 0, elf.SHT_STRTAB)):
        table.append(elf.SECTION_HEADER.pack(name_at, kind, section_flags, 0, len(out), len(content), 0, 0, 1, 0))
        name_at += len(name) + 1
        out += content
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0") if machine != 190 else b"\x7fELF\2\1\1\x33\7".ljust(16, b"\0")
    counts = (elf.HEADER.size, 56, 0, 64, len(table), len(table) - 1)
    out[: elf.HEADER.size] = elf.HEADER.pack(ident, 3, machine, 1, 0, 0, len(out), flags, *counts)
    return bytes(out) + b"".join(table)


def look(data: bytes) -> Breakdown:
    """The breakdown, which must add up."""
    found = breakdown(fixtures.read_from(data), len(data))
    assert sum(found.bytes.values()) == len(data)
    assert all(size >= 0 for size in found.bytes.values())
    assert sum(code.bytes for code in found.gpu_code) == found.bytes["gpu code"]
    assert all(code.bytes > 0 and code.entries >= 0 for code in found.gpu_code)
    return found


def sizes(found: Breakdown) -> dict[tuple[str, str], tuple[int, int]]:
    """(label, where) -> bytes and entries."""
    return {(code.label, code.where): (code.bytes, code.entries) for code in found.gpu_code}


def of_entries(where: str, times: int = 1) -> dict[tuple[str, str], tuple[int, int]]:
    return {(label, where): (times * len(data), times) for label, data in ENTRIES.items()}


def test_every_byte_of_a_library_with_both_sections(tmp_path: Path) -> None:
    layout = hosts.Layout(relocatable=frozenset({1}))
    both = [fatbins.fatbin(*ENTRIES.values())] * 2
    data = hosts.build(layout, tmp_path, both).read_bytes()
    found = look(data)
    assert sizes(found) == {
        **of_entries("fatbins", 2),
        ("headers", "fatbins"): (32, 0),
        ("tables", "fatbins"): (48, 0),
    }
    assert not any(code.out_of_reach or code.reason for code in found.gpu_code)


@pytest.mark.parametrize("name", hosts.LAYOUTS)
def test_every_layout(name: str, tmp_path: Path) -> None:
    """What a library with many fatbins has does not depend on its layout."""
    data = hosts.build(hosts.LAYOUTS[name], tmp_path).read_bytes()
    code = [each for each in look(data).gpu_code if each.where == "fatbins"]
    expected = Counter[str]()
    for each in fatbins.assorted():
        at = 16
        while at < len(each):
            kind, header, payload, number, flags = struct.unpack_from("<H2xIQ8x4xI8xQ", each, at)
            variant = "a" if flags & 0x100000 else "f" if flags & 0x200000 else ""
            word = {1: "compute", 2: "sm", 8: "lto"}.get(kind, f"kind{kind}")
            expected[f"{word}_{number}{variant}"] += header + payload
            at += header + payload
    found = Counter({each.label: each.bytes for each in code})
    assert found.pop("headers") == 16 * len(fatbins.assorted())
    tables = found.pop("tables", 0)
    assert tables == (24 * (8 - len(hosts.LAYOUTS[name].unreferenced)) if "no section" not in name else 0)
    assert found == expected


class TestBlobs:
    """GPU code in data."""

    FATBIN = fatbins.fatbin(*ENTRIES.values())
    CUBIN = fatbins.cubin(86, 6000)
    FRAME = zstd.compress(fatbins.cubin(100, 7000))
    CONTENT = b"text" * 2000 + FATBIN + bytes(24) + FRAME + b"\1" + CUBIN + b"more text" * 100

    def check(self, found: Breakdown) -> None:
        data = sizes(found)
        assert data.pop(("sm_86", "data")) == (len(self.CUBIN), 1)
        assert data.pop(("sm_100", "data")) == (len(self.FRAME), 1)
        assert data.pop(("headers", "data")) == (16, 0)
        assert {key: value for key, value in data.items() if key[1] == "data"} == of_entries("data")
        assert all(code.out_of_reach == ("data" if code.where == "data" else "") for code in found.gpu_code)

    @pytest.mark.parametrize("sign", [".nv_fatbin", "__nv_relfatbin", ".nvFatBinSegment", ".cask_resource"])
    def test_beside_sections_of_gpu_code(self, sign: str) -> None:
        self.check(look(elf_file(section(".ldata", self.CONTENT), section(sign, bytes(24)))))

    @pytest.mark.parametrize("name", ["libcudart.so.12", "libcudnn_graph.so.9", "libnvJitLink.so.12"])
    @pytest.mark.parametrize("how", ["needed", "soname"])
    def test_in_libraries_of_cuda(self, name: str, how: str, tmp_path: Path) -> None:
        stub = fixtures.gcc(tmp_path, "stub.so", "", "-shared", "-nostdlib", f"-Wl,-soname,{name}")
        (tmp_path / "blob").write_bytes(self.CONTENT)
        source = f'asm(".section .rodata\\n.incbin \\"{tmp_path}/blob\\"\\n.previous");int one;'
        more = [str(stub), "-Wl,--no-as-needed"] if how == "needed" else [f"-Wl,-soname,{name}"]
        path = fixtures.gcc(tmp_path, "lib.so", source, "-shared", "-fPIC", "-Wl,--no-as-needed", *more)
        self.check(look(path.read_bytes()))

    def test_nowhere_else(self, tmp_path: Path) -> None:
        assert look(elf_file(section(".ldata", self.CONTENT))).bytes["gpu code"] == 0
        for flags in (ALLOCATED | CODE, 0):
            data = elf_file(section(".other", self.CONTENT, flags), section(".nvFatBinSegment", bytes(24)))
            assert look(data).bytes["gpu code"] == 24
        data = elf_file(section(".eh_frame", self.CONTENT), section(".nvFatBinSegment", bytes(24)))
        assert look(data).bytes["gpu code"] == 24

    def test_a_cubin_that_says_that_it_reaches_far(self) -> None:
        """A section without content says where it would begin, which may be anywhere."""
        cubin = bytearray(self.CUBIN)
        at = int.from_bytes(cubin[40:48], "little") + 2 * elf.SECTION_HEADER.size
        struct.pack_into("<I", cubin, at + 4, elf.SHT_NOBITS)
        struct.pack_into("<Q", cubin, at + 24, 1 << 40)
        found = look(elf_file(section(".rodata", bytes(cubin) + b"x" * 9000), section(".nvFatBinSegment", bytes(24))))
        assert sizes(found)["sm_86", "data"] == (len(cubin), 1)

    @pytest.mark.parametrize("content", [b"\x28\xb5\x2f\xfd", fatbins.fatbin()[:8] + bytes(8), b"\x7fELF\2\1\1\x33"])
    def test_what_only_looks_like_gpu_code_is_not_looked_at_for_ever(self, content: bytes) -> None:
        data = elf_file(section(".rodata", content * 40_000), section(".nvFatBinSegment", bytes(24)))
        reads = 0

        def read(offset: int, length: int) -> bytes:
            nonlocal reads
            reads += 1
            return data[offset : offset + length]

        assert breakdown(read, len(data)).bytes["gpu code"] == 24
        assert reads < 5000

    def test_sections_that_overlap_are_searched_once(self) -> None:
        count = 300
        sections = [section(".rodata", self.CONTENT), *(section(".more", b"1") for _ in range(count))]
        data = bytearray(elf_file(*sections, section(".nvFatBinSegment", bytes(24))))
        for number in range(count):
            at = int.from_bytes(data[40:48], "little") + (2 + number) * elf.SECTION_HEADER.size
            struct.pack_into("<QQ", data, at + 24, elf.HEADER.size + number, len(self.CONTENT) - number)
        reads = 0

        def read(offset: int, length: int) -> bytes:
            nonlocal reads
            reads += 1
            return bytes(data[offset : offset + length])

        self.check(breakdown(read, len(data)))
        assert reads < count

    def test_in_a_file_that_ends_while_it_is_read(self) -> None:
        data = elf_file(section(".ldata", self.CONTENT), section(".nvFatBinSegment", bytes(24)))

        def read(offset: int, length: int) -> bytes:
            inside = elf.HEADER.size <= offset < elf.HEADER.size + len(self.CONTENT)
            return data[offset : offset + length - inside]

        found = breakdown(read, len(data))
        assert sum(found.bytes.values()) == len(data)
        assert found.bytes["gpu code"] == 24


class TestFiles:
    """Files that are GPU code as a whole."""

    def test_cubin(self) -> None:
        for number in (75, 90, 100, 120):
            data = fatbins.cubin(number)
            assert look(data).gpu_code == (GpuCode(f"sm_{number}", "file", len(data), 1),)
        accelerated = bytearray(fatbins.cubin(90))
        accelerated[49] |= 8  # e_flags
        (code,) = look(bytes(accelerated)).gpu_code
        assert (code.label, code.out_of_reach) == ("sm_90a", "file")

    def test_symbols_are_no_gpu_code(self) -> None:
        data = elf_file(
            section(".text.kernel", bytes(900)), section(".symtab", bytes(240), 0, 2), machine=190, flags=80
        )
        found = look(data)
        assert found.bytes == {"host code": 0, "gpu code": len(data) - 240, "symbols": 240, "data": 0}
        assert sizes(found) == {("sm_80", "file"): (len(data) - 240, 1)}

    def test_amd(self) -> None:
        data = elf_file(section(".text", bytes(900)), machine=224)
        (code,) = look(data).gpu_code
        assert (code.label, code.bytes, code.out_of_reach) == ("amd", len(data), "amd")

    def test_of_an_unknown_kind_or_damaged(self) -> None:
        data = bytearray(fatbins.cubin(90))
        data[7] = 0x99
        (code,) = look(bytes(data)).gpu_code
        assert (code.label, code.reason, code.out_of_reach) == ("unread", "a cubin of an unknown kind", "unread")
        (code,) = look(fatbins.cubin(90)[:-1]).gpu_code
        assert (code.label, code.where, code.entries) == ("unread", "file", 0)
        assert "not inside the file" in code.reason
        assert look(b"\x7fELF" + bytes(100)).bytes["data"] == 104

    def test_fatbins(self) -> None:
        data = fatbins.fatbin(*ENTRIES.values()) + fatbins.fatbin(ENTRIES["sm_80"]) + bytes(8)
        code = {each.label: (each.bytes, each.entries) for each in gpu_file(fixtures.read_from(data), len(data))}
        assert code["headers"] == (40, 0)
        assert code["sm_80"] == (2 * len(ENTRIES["sm_80"]), 2)
        assert sum(size for size, _ in code.values()) == len(data)

    def test_ptx_and_anything(self) -> None:
        for data, label, entries in (
            (fatbins.ptx("90a"), "compute_90a", 1),
            (b"//\n.version 8.0\n  .target sm_75, debug\n", "compute_75", 1),
            (b"not .target sm_75", "unread", 0),
            (fatbins.fatbin(ENTRIES["sm_80"])[:-8], "unread", 0),
        ):
            (code,) = gpu_file(fixtures.read_from(data), len(data))
            assert (code.label, code.where, code.bytes, code.entries) == (label, "file", len(data), entries)
            assert bool(code.reason) == (label == "unread")


class TestUnread:
    """Sections that are counted whole."""

    def test_amd(self) -> None:
        found = look(elf_file(section(".hip_fatbin", b"CCOB" * 500), section(".hipFatBinSegment", bytes(24))))
        assert sizes(found) == {("amd", "data"): (2000, 0), ("tables", "data"): (24, 0)}

    @pytest.mark.parametrize("name", [".nv_fatbin", "__nv_relfatbin"])
    def test_what_does_not_parse(self, name: str) -> None:
        content = fatbins.fatbin(*ENTRIES.values()) + b"junk" * 4
        (code,) = look(elf_file(section(name, content))).gpu_code
        assert code == GpuCode("unread", "fatbins", len(content), 0, "no fatbin where one should begin")
        assert code.out_of_reach == "unread"

    def test_sections_that_overlap(self) -> None:
        fatbin = fatbins.fatbin(ENTRIES["sm_80"])
        data = bytearray(
            elf_file(section(".rodata", bytes(16)), section(".nv_fatbin", fatbin), section(".x", bytes(9)))
        )
        at = int.from_bytes(data[40:48], "little") + 2 * elf.SECTION_HEADER.size
        struct.pack_into("<Q", data, at + 24, elf.HEADER.size + 8)  # the fatbins' section begins in the one before
        found = look(bytes(data))
        (code,) = found.gpu_code
        assert (code.label, code.bytes) == ("unread", len(fatbin) - 8)
        assert "overlaps" in code.reason

    def test_fatbins_that_overlap(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Should the parser ever say so: no byte is counted twice."""
        fatbin = fatbins.fatbin(ENTRIES["sm_80"])

        def twice(read: Reader, offset: int, size: int) -> list[Fatbin]:
            return 2 * parse_section(read, offset, size)

        monkeypatch.setattr("deadweight.binary.gpu_code.parse_section", twice)
        (code,) = look(elf_file(section(".nv_fatbin", fatbin))).gpu_code
        assert (code.label, code.bytes) == ("unread", len(fatbin))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("host")
    blob = folder / "blob"
    blob.write_bytes(TestBlobs.CONTENT)
    more = f'.section .rodata\n.incbin "{blob}"\n'
    small = fatbins.assorted(400)
    return hosts.build(hosts.Layout(relocatable=frozenset({1, 4}), more=more), folder, small).read_bytes()


class TestHostile:
    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_any_bytes_add_up(self, library: bytes, data: st.DataObject) -> None:
        parsed = elf.parse(fixtures.read_from(library), len(library))
        places = [range(64), range(parsed.shoff, parsed.shoff + 64 * len(parsed.sections))]
        for each in parsed.sections:
            if each.name in (".nv_fatbin", "__nv_relfatbin", ".rodata", ".dynamic"):
                places += [range(each.offset, each.end), range(each.offset, min(each.offset + 96, each.end))]
        where = st.one_of([st.sampled_from(place) for place in places])
        out = bytearray(library)
        for at, value in data.draw(st.lists(st.tuples(where, st.integers(0, 255)), max_size=8)):
            out[at] = value
        look(bytes(out[: data.draw(st.one_of(st.just(len(out)), st.integers(64, len(out))))]))

    def test_a_file_shorter_than_said(self, library: bytes) -> None:
        for length in (10, 1000, len(library) // 2, len(library) - 1):
            found = breakdown(fixtures.read_from(library[:length]), len(library))
            assert sum(found.bytes.values()) == len(library)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=300), st.sampled_from([b"", b"\x7fELF\2\1\1", fatbins.fatbin()[:8], b".target sm_"]))
    def test_files_by_name(self, tail: bytes, head: bytes) -> None:
        data = head + tail
        assert sum(code.bytes for code in gpu_file(fixtures.read_from(data), len(data))) == len(data)
