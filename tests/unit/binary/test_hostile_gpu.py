"""Files made to take long, much memory, or a wrong turn where GPU code is looked for and taken out."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lz4.block
import pytest

from deadweight.binary import elf
from deadweight.binary.blobs import find_blobs
from deadweight.binary.dynamic import DT_GNU_HASH, dynamic_entries, hash_table
from deadweight.binary.elf import ElfError, parse
from deadweight.binary.fatbin import CUBIN, FLAG_LZ4, parse_section
from deadweight.binary.gpu import Target
from deadweight.binary.gpu_code import gpu_file
from deadweight.binary.recompress import recompress
from deadweight.binary.references import DT_RELA, DT_RELASZ, DT_RELR, DT_RELRSZ, Range, references
from deadweight.binary.shrink import NOTHING, CannotShrink, fatbin_sections, shrink_gpu_code
from deadweight.binary.shrink_check import check_shrunk
from support import hosts
from support.elf import read_from
from support.fatbins import cubin, entry, fatbin, sm

TABLE = 0x1000
"""Where the content of `library` begins, in the file and in memory."""
H100 = Target((90,), keep_ptx=False)


@contextmanager
def quick(seconds: float = 8) -> Iterator[None]:
    """Of the processor's time, three times that much where it is shared: how busy the machine is says little.

    What is held back here takes minutes otherwise.
    """
    started = time.process_time()
    yield
    assert time.process_time() - started < 3 * seconds


@contextmanager
def little_memory(megabytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 1_000_000
    finally:
        tracemalloc.stop()


class Counting:
    """A reader that counts."""

    def __init__(self, data: bytes) -> None:
        self._read = read_from(data)
        self.count = 0

    def __call__(self, offset: int, length: int) -> bytes:
        self.count += 1
        return self._read(offset, length)


def library(content: bytes, tags: Sequence[tuple[int, int]]) -> bytes:
    """A library for x86-64 without section headers: one segment with content at TABLE and a dynamic section."""
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in [*tags, (0, 0)])
    size = TABLE + len(content) + len(dynamic)
    segments = [(elf.PT_LOAD, 6, 0, 0, 0, size, size, 0x1000)]
    segments += [(elf.PT_DYNAMIC, 6, size - len(dynamic), size - len(dynamic), 0, len(dynamic), len(dynamic), 8)]
    table = b"".join(elf.PROGRAM_HEADER.pack(*segment) for segment in segments)
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = elf.HEADER.pack(ident, elf.ET_DYN, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 64, 0, 0)
    return (header + table).ljust(TABLE, b"\0") + content + dynamic


def test_endless_hash_chain() -> None:
    content = struct.pack("<4I", 1, 1, 0, 0) + struct.pack("<I", 1) + bytes(40_000_000)
    data = library(content, [(DT_GNU_HASH, TABLE)])
    read = Counting(data)
    table = hash_table(read, parse(read, len(data)), dynamic_entries(read, parse(read, len(data))))
    assert table is not None
    assert table.size > len(content)
    assert read.count < 10_100


@pytest.mark.parametrize("length", [0, 1, 1023, 1024, 5000])
def test_hash_chain_of_any_length(length: int) -> None:
    chain = bytes(4 * length) + struct.pack("<I", 1)
    content = struct.pack("<4I", 2, 7, 1, 0) + bytes(8) + struct.pack("<II", 0, 7) + chain
    data = library(content, [(DT_GNU_HASH, TABLE)])
    parsed = parse(read_from(data), len(data))
    table = hash_table(read_from(data), parsed, dynamic_entries(read_from(data), parsed))
    assert table == (TABLE, len(content), 7 + length + 1)


@pytest.mark.parametrize("rows", [(TABLE, 2**64 - 1), (2**64 - 1, 2**64 - 1)])
def test_relr_bomb(rows: tuple[int, int]) -> None:
    """Rows of 8 bytes that say 63 places each, again and again the same or ever further."""
    content = struct.pack("<QQ", *rows) * 500_000
    data = library(content + bytes(60_000_000), [(DT_RELR, TABLE), (DT_RELRSZ, len(content))])
    parsed = parse(read_from(data), len(data))
    with quick(), pytest.raises(ElfError, match="relocations"):
        references(read_from(data), parsed, [Range(2**40, 2**41)], frozenset())


def test_many_pointers_to_one_place() -> None:
    content = struct.pack("<QIIQ", TABLE, 8, 0, 16) * 300_000
    data = library(content, [(DT_RELA, TABLE), (DT_RELASZ, len(content))])
    parsed = parse(read_from(data), len(data))
    with little_memory(150), pytest.raises(ElfError, match="too many pointers"):
        references(read_from(data), parsed, [Range(8, 64)], frozenset())


@pytest.mark.parametrize("tags", [(DT_RELA, DT_RELASZ), (DT_RELR, DT_RELRSZ)])
def test_relocations_of_what_would_move(tags: tuple[int, int]) -> None:
    content = struct.pack("<QIIQ", 0x800, 8, 0, TABLE) if tags[0] == DT_RELA else struct.pack("<Q", 0x800)
    data = library(content, [(tags[0], TABLE), (tags[1], len(content))])
    parsed = parse(read_from(data), len(data))
    with pytest.raises(ElfError, match="may move"):
        references(read_from(data), parsed, [Range(0x800, 0x900)], frozenset())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return hosts.build(hosts.LAYOUTS["symbols"], tmp_path_factory.mktemp("made")).read_bytes()


def with_sections(data: bytes, more: Sequence[bytes]) -> bytes:
    """The file with more section headers, in a new table at its end."""
    out = bytearray(data)
    shoff, shnum = (int.from_bytes(out[a:b], "little") for a, b in ((40, 48), (60, 62)))
    out += bytes(-len(out) % 8)
    out[40:48] = len(out).to_bytes(8, "little")
    out[60:62] = (shnum + len(more)).to_bytes(2, "little")
    return bytes(out) + data[shoff : shoff + 64 * shnum] + b"".join(more)


def refused(data: bytes, target: Target = H100) -> str:
    with quick(), pytest.raises(CannotShrink) as caught:
        shrink_gpu_code(read_from(data), len(data), target)
    return str(caught.value)


def test_many_sections_and_segments(made: bytes) -> None:
    parsed = parse(read_from(made), len(made))
    empty = elf.SECTION_HEADER.pack(0, 1, 2, 0x40, 0x40, 8, 0, 0, 1, 0)
    out = bytearray(with_sections(made, [empty] * 60_000))
    segments = [elf.PROGRAM_HEADER.pack(*header) for header in parsed.program_headers]
    segments += [elf.PROGRAM_HEADER.pack(elf.PT_LOAD, 4, 0, 0, 0, 0, 0, 0x1000)] * (4096 - len(segments))
    out[32:40] = len(out).to_bytes(8, "little")
    out[56:58] = (4096).to_bytes(2, "little")
    assert "too many" in refused(bytes(out) + b"".join(segments))


def test_many_sections_of_fatbins(made: bytes) -> None:
    parsed = parse(read_from(made), len(made))
    number = next(i for i, section in enumerate(parsed.sections) if section.name == ".nv_fatbin")
    row = made[parsed.shoff + 64 * number :][:64]
    empty = row[:24] + struct.pack("<QQ", 0, 0) + row[40:]  # none, and yet some of it
    assert "too many" in refused(with_sections(made, [empty] * 1000))


def test_many_tables_of_symbols(made: bytes) -> None:
    parsed = parse(read_from(made), len(made))
    number = next(i for i, section in enumerate(parsed.sections) if section.type == elf.SHT_SYMTAB)
    row = made[parsed.shoff + 64 * number :][:64]
    assert "table of symbols" in refused(with_sections(made, [row] * 20_000))


@pytest.mark.parametrize("paddr", [0, 2**64 - 1])
def test_physical_addresses_may_be_anything(made: bytes, paddr: int) -> None:
    out = bytearray(made)
    parsed = parse(read_from(made), len(made))
    for number in range(len(parsed.program_headers)):
        struct.pack_into("<Q", out, parsed.phoff + 56 * number + 24, paddr)
    read = read_from(bytes(out))
    content = shrink_gpu_code(read, len(out), H100)
    new = content.reader(read)(0, content.size)
    check_shrunk(read, len(out), read_from(new), len(new), H100)


def test_the_size_of_the_stack_is_in_no_way(tmp_path: Path) -> None:
    """A program may say how large its stack is to be: in a segment at address 0 that has none."""
    layout = hosts.Layout(("-pie", "-fPIE", "-Wl,-z,stack-size=0x200000"))
    path = hosts.build(layout, tmp_path)
    data = path.read_bytes()
    content = shrink_gpu_code(read_from(data), len(data), H100)
    new = content.reader(read_from(data))(0, content.size)
    check_shrunk(read_from(data), len(data), read_from(new), len(new), H100)
    path.write_bytes(new)
    assert hosts.run(path, layout) == hosts.expected(new, layout)


def test_without_sections_data_is_left_alone() -> None:
    """Fatbins that no wrapper points at are a library's own to pick from: not fewer entries, not one moved."""
    blob = fatbin(sm(70), sm(80), sm(90))
    data = library(blob.ljust(-(-len(blob) // 8) * 8, b"\0"), [(DT_RELASZ, 0)])
    assert fatbin_sections(read_from(data), parse(read_from(data), len(data))) == []
    assert refused(data) == NOTHING


class TestBlobs:
    def search(self, content: bytes, seconds: float = 8) -> int:
        section = elf.Section(".rodata", 1, 2, TABLE, TABLE, len(content), 0, 0, 8, 0)
        data = bytes(TABLE) + content
        parsed = elf.Elf(62, 3, 1, 0, 0, len(data), 64, 0, 0, (), (section,))
        with quick(seconds):
            return len(list(find_blobs(read_from(data), parsed, frozenset())))

    def test_cubins_of_too_many_sections(self) -> None:
        """Each is read to its last section before it turns out that it is none."""
        head = bytearray(cubin(90)[:64])
        count, cubins = 60_000, 500
        nothing = elf.SECTION_HEADER.pack(0, 1, 0, 0, 0, 0, 0, 0, 1, 0)
        names = elf.SECTION_HEADER.pack(0, 3, 0, 0, 9, 1, 0, 0, 1, 0)  # a zero of e_ident
        nameless = elf.SECTION_HEADER.pack(2, 1, 0, 0, 0, 0, 0, 0, 1, 0)
        content = b""
        for number in range(cubins):
            struct.pack_into("<Q", head, 40, 64 * (cubins - number))
            struct.pack_into("<HH", head, 60, count, 1)
            content += head
        assert self.search(content + nothing + names + nothing * (count - 3) + nameless) == 0

    def test_fatbins_that_end_badly(self) -> None:
        """Each begins in an entry of the one before, and fits up to its last entry."""
        nested = entry(CUBIN, 90, fatbin()[:8] + struct.pack("<Q", 4000 * 80 + 8))
        assert len(nested) == 80
        assert self.search(nested * 6000, seconds=2) == 0

    def test_small_frames(self) -> None:
        """zstd frames of a cubin's head each: too many to believe in."""
        frame = b"\x28\xb5\x2f\xfd\x20\x40" + (64 << 3 | 1).to_bytes(3, "little") + cubin(90)[:64]
        assert self.search(frame * 20_000) == 20_000


def test_blank_text_is_no_ptx() -> None:
    data = b"\n" * 65_536
    with quick(0.5):
        (found,) = gpu_file(read_from(data), len(data))
    assert found.label == "unread"


def test_recompression_of_a_bomb() -> None:
    """A megabyte that is 250 once decompressed, forty times over."""
    payload = lz4.block.compress(bytes(1 << 26), store_size=False)
    one = bytearray(entry(CUBIN, 90, payload.ljust(-(-len(payload) // 8) * 8, b"\0"), flags=FLAG_LZ4))
    struct.pack_into("<I", one, 16, len(payload))
    struct.pack_into("<Q", one, 56, 1 << 26)
    data = fatbin(*[bytes(one)] * 40)
    (found,) = parse_section(read_from(data), 0, len(data))
    read = Counting(data)
    recompress(read, found.entries)
    assert read.count < len(found.entries)
