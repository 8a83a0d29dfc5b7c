"""The self-check notices whatever is wrong with a shrunk file: every field that a loader reads, every byte."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from deadweight.binary import elf
from deadweight.binary.dynamic import dynamic_entries
from deadweight.binary.gpu import Target
from deadweight.binary.shrink import CannotShrink, shrink_gpu_code
from deadweight.binary.shrink_check import check_shrunk
from support import hosts
from support.elf import read_from

H100: Final = Target((90,), keep_ptx=False)
LAYOUTS: Final = ["library", "program", "symbols", "a segment of its own", "RELR", "program at a fixed address", "lld"]
HEADER_FIELDS: Final = {
    "type": 0,
    "flags": 4,
    "offset": 8,
    "vaddr": 16,
    "paddr": 24,
    "filesz": 32,
    "memsz": 40,
    "align": 48,
}
SECTION_FIELDS: Final = {
    "type": 4,
    "flags": 8,
    "addr": 16,
    "offset": 24,
    "size": 32,
    "link": 40,
    "info": 44,
    "align": 48,
}


class Case(NamedTuple):
    old: bytes
    new: bytes
    elf: elf.Elf

    def notices(self, at: int, change: int, size: int = 8) -> bool:
        """Whether the check fails with a number in the file changed, and says why."""
        data = bytearray(self.new)
        value = int.from_bytes(data[at : at + size], "little") + change
        data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
        try:
            check_shrunk(read_from(self.old), len(self.old), read_from(bytes(data)), len(data), H100)
        except CannotShrink as error:
            assert str(error).startswith("self-check: ")  # noqa: PT017
            return True
        return False


@pytest.fixture(scope="module", params=LAYOUTS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make(request.param, tmp_path_factory.mktemp("case"))


def make(name: str, folder: Path) -> Case:
    old = hosts.build(hosts.LAYOUTS[name], folder).read_bytes()
    content = shrink_gpu_code(read_from(old), len(old), H100)
    new = content.reader(read_from(old))(0, content.size)
    check_shrunk(read_from(old), len(old), read_from(new), len(new), H100)
    return Case(old, new, elf.parse(read_from(new), len(new)))


def changes(value: int) -> Iterator[int]:
    yield from (change for change in (1, -1, 8, 4096, -4096, -value) if change)


@pytest.mark.parametrize("field", HEADER_FIELDS)
def test_program_headers(case: Case, field: str) -> None:
    at = HEADER_FIELDS[field]
    for number, header in enumerate(case.elf.program_headers):
        size = 4 if at < 8 else 8
        value = getattr(header, field)
        for change in changes(value):
            harmless = field == "flags" and change == -1 and value & elf.PF_X and not has_code(case.elf, header)
            place = case.elf.phoff + elf.PROGRAM_HEADER.size * number + at
            assert harmless or case.notices(place, change, size), f"{number}: {header}, {change}"


def has_code(parsed: elf.Elf, header: elf.ProgramHeader) -> bool:
    code = [s for s in parsed.sections if s.flags & elf.SHF_EXECINSTR]
    return any(header.vaddr <= section.addr < header.vaddr + header.memsz for section in code)


@pytest.mark.parametrize("field", SECTION_FIELDS)
def test_section_headers(case: Case, field: str) -> None:
    for number, section in enumerate(case.elf.sections):
        if field == "offset" and not section.file_size:
            continue
        size = 4 if field in ("type", "link", "info") else 8
        for change in (1, 8, 4096):
            place = case.elf.shoff + elf.SECTION_HEADER.size * number + SECTION_FIELDS[field]
            assert case.notices(place, change, size), f"{section}, {change}"


def test_elf_header(case: Case) -> None:
    for at in range(elf.HEADER.size):
        assert case.notices(at, 1, 1), at


def test_dynamic_entries(case: Case) -> None:
    for entry in dynamic_entries(read_from(case.new), case.elf):
        assert case.notices(entry.offset, 8), entry
        assert case.notices(entry.offset - 8, 1), entry


def test_content(case: Case) -> None:
    """Bytes of every section, of fatbins, their pointers, symbols and what moved among them."""
    chance = random.Random(1)
    for section in case.elf.sections:
        if section.file_size:
            for at in {
                section.offset,
                section.end - 1,
                *(chance.randrange(section.offset, section.end) for _ in range(15)),
            }:
                assert case.notices(at, 1, 1), f"{section.name} + {at - section.offset:#x}"


def test_every_byte_of_wrappers_and_symbols(tmp_path: Path) -> None:
    case = make("symbols", tmp_path)
    for section in case.elf.sections:
        if section.name in (".nvFatBinSegment", ".note.gnu.build-id"):
            for at in range(section.offset, section.end):
                assert case.notices(at, 1, 1), f"{section.name} + {at - section.offset:#x}"


@pytest.mark.parametrize("address", [0, 1 << 40])
def test_old_symbols_are_noticed(tmp_path: Path, address: int) -> None:
    """A symbol for a fatbin has to follow it."""
    case = make("symbols", tmp_path)
    table = next(s for s in case.elf.sections if s.type == elf.SHT_SYMTAB)
    fatbins = next(i for i, s in enumerate(case.elf.sections) if s.name == ".nv_fatbin")
    found = 0
    for at in range(table.offset, table.end, elf.SYMBOL.size):
        _, _, _, index, value, _ = elf.SYMBOL.unpack_from(case.new, at)
        if index == fatbins and value != address:
            assert case.notices(at + 8, address - value)
            found += 1
    assert found >= 8


def test_longer_and_shorter(case: Case) -> None:
    for data in (case.new + b"\0", case.new[:-1], case.new[: len(case.new) // 2]):
        with pytest.raises(CannotShrink, match="self-check"):
            check_shrunk(read_from(case.old), len(case.old), read_from(data), len(data), H100)


def test_content_behind_everything_stays(tmp_path: Path) -> None:
    """Programs that unpack themselves have their archive there."""
    old = hosts.build(hosts.LAYOUTS["program"], tmp_path).read_bytes() + b"an archive" * 100
    content = shrink_gpu_code(read_from(old), len(old), H100)
    new = content.reader(read_from(old))(0, content.size)
    assert new.endswith(b"an archive" * 100)
    check_shrunk(read_from(old), len(old), read_from(new), len(new), H100)
    changed = new[:-1] + b"x"
    with pytest.raises(CannotShrink, match="end of the file"):
        check_shrunk(read_from(old), len(old), read_from(changed), len(changed), H100)


def test_a_mapping_that_is_a_page_off(tmp_path: Path) -> None:
    """Where fatbins are a segment of their own, nothing else in it would tell."""
    case = make("a segment of its own", tmp_path)
    number = next(
        i
        for i, p in enumerate(case.elf.program_headers)
        for s in case.elf.sections
        if p.type == elf.PT_LOAD and s.name == ".nv_fatbin" and p.vaddr == s.addr
    )
    for change in (4096, -4096):
        assert case.notices(case.elf.phoff + elf.PROGRAM_HEADER.size * number + 8, change)


def test_alignment_of_zero(tmp_path: Path) -> None:
    case = make("library", tmp_path)
    data = bytearray(case.new)
    struct.pack_into("<Q", data, case.elf.phoff + 48, 0)
    with pytest.raises(CannotShrink, match="alignment"):
        check_shrunk(read_from(case.old), len(case.old), read_from(bytes(data)), len(data), H100)
