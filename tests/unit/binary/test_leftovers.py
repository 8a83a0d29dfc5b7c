"""leftovers: what patchelf left behind leaves, and the loader judges; whatever is not surely that stays."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deadweight.binary.elf import MACHINES, PROGRAM_HEADER, SECTION_HEADER, parse
from deadweight.binary.leftovers import MIN_LEFTOVER, NOTHING, CannotCut, check_dropped, drop_leftovers
from support import elf as made
from support.elf import answer_of_library, library, like_patchelf, read_from, readelf

MACHINE = MACHINES["amd64"]
PATCHELF = Path(__file__).parents[3] / ".venv-oracles/bin/patchelf"
# Names enough that .dynstr is worth moving.
NAMES = "".join(f"int a_name_that_is_long_enough_to_matter_{'x' * 60}{n}(void) {{ return {n}; }}\n" for n in range(500))

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="compiles for x86-64")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return library(tmp_path_factory.mktemp("leftovers"), source=made.LIBRARY + NAMES)


@pytest.fixture(scope="module")
def moved(original: bytes) -> bytes:
    """As an old patchelf leaves it: the string table moved, and X where it was."""
    return like_patchelf(original)


def dropped(data: bytes, machine: int = MACHINE) -> bytes:
    content = drop_leftovers(read_from(data), len(data), machine)
    return content.reader(read_from(data))(0, content.size)


def why(data: bytes, machine: int = MACHINE) -> str:
    with pytest.raises(CannotCut) as info:
        dropped(data, machine)
    return str(info.value)


def works(data: bytes, folder: Path) -> None:
    path = folder / "libtest.so"
    path.write_bytes(data)
    assert answer_of_library(path) == 42
    out, warnings = readelf(path, "--all", "--wide")
    assert warnings == ""
    assert out.count("a_name_that_is_long_enough_to_matter_") >= 500


def hole(data: bytes) -> tuple[int, int]:
    """The largest range of X."""
    runs = max((run for run in data.split(b"\0") if set(run) == {ord("X")}), key=len)
    return data.index(runs), len(runs)


def test_it_leaves_and_the_library_works(moved: bytes, tmp_path: Path) -> None:
    new = dropped(moved)
    assert hole(moved)[1] // 2 < len(moved) - len(new) <= hole(moved)[1]
    works(new, tmp_path)
    assert why(new) == NOTHING
    assert dropped(moved) == new


def test_program_headers_that_cannot_become_more(original: bytes) -> None:
    assert why(like_patchelf(original, move_headers=True)) == "no room for more program headers"


@pytest.mark.skipif(not PATCHELF.exists(), reason="needs patchelf: scripts/setup.sh oracles")
def test_of_patchelf_itself(original: bytes, tmp_path: Path) -> None:
    """Several times over, as auditwheel and others do: each time a longer string table is moved."""
    path = tmp_path / "libtest.so"
    path.write_bytes(original)
    for number in range(3):
        subprocess.run([PATCHELF, "--set-rpath", f"$ORIGIN/{'x' * 50 * (number + 1)}", path], check=True)
    data = path.read_bytes()
    new = dropped(data)
    assert len(data) - len(new) > 2 * 40_000
    works(new, tmp_path)


def test_nothing_is_left_behind(original: bytes) -> None:
    assert why(original) == NOTHING
    assert why(b"no ELF file at all") == "not an ELF file"
    assert why(like_patchelf(original), MACHINES["arm64"]) == NOTHING


def test_other_content_stays(moved: bytes) -> None:
    start, size = hole(moved)
    for at in (start, start + size // 2, start + size - 1):
        assert why(moved[:at] + b"Y" + moved[at + 1 :]) == NOTHING
    zeros = moved[:start] + bytes(size) + moved[start + size :]
    assert why(zeros) == NOTHING


def test_what_a_section_or_segment_is_about_stays(moved: bytes) -> None:
    start, size = hole(moved)
    elf = parse(read_from(moved), len(moved))
    # A note of patchelf's marks is still a note.
    number, note = next((i, s) for i, s in enumerate(elf.sections) if s.allocated and s.name.startswith(".note"))
    at = elf.shoff + number * SECTION_HEADER.size
    row = list(SECTION_HEADER.unpack_from(moved, at))
    row[3:6] = start, start, size
    data = moved[:at] + SECTION_HEADER.pack(*row) + moved[at + SECTION_HEADER.size :]
    assert note.size < size
    assert why(data) == NOTHING
    number = next(i for i, p in enumerate(elf.program_headers) if p.type not in (1, 2, 0x6474E551))
    at = elf.phoff + number * PROGRAM_HEADER.size
    header = elf.program_headers[number]._replace(offset=start, vaddr=start, paddr=start, filesz=size, memsz=size)
    assert why(moved[:at] + PROGRAM_HEADER.pack(*header) + moved[at + PROGRAM_HEADER.size :]) == NOTHING


def test_few_bytes_are_not_worth_it(tmp_path: Path) -> None:
    few = "".join(NAMES.splitlines(keepends=True)[:100])
    data = like_patchelf(library(tmp_path, source=made.LIBRARY + few))
    assert 4096 < hole(data)[1] < MIN_LEFTOVER
    assert why(data) == NOTHING


def changes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The file with a byte changed, all over it."""
    for at in [*range(0, 64 + 56 * 11, 3), *range(900, len(data), 999), *range(len(data) - 2500, len(data), 9)]:
        yield at, data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]


def test_the_check_sees_every_change(moved: bytes) -> None:
    new = dropped(moved)
    check_dropped(read_from(moved), len(moved), read_from(new), len(new))
    sections = [(s.offset, s.end) for s in parse(read_from(new), len(new)).sections if s.file_size]
    for at, bad in changes(new):
        try:
            check_dropped(read_from(moved), len(moved), read_from(bad), len(bad))
        except CannotCut:
            continue
        # The place of what has made room for more program headers: nothing is there.
        assert at > 64 + 56
        assert not any(start <= at < end for start, end in sections)
    with pytest.raises(CannotCut):
        check_dropped(read_from(moved), len(moved), read_from(moved), len(moved))


@pytest.mark.parametrize("spoil", ["truncate", "flip"])
def test_hostile_files_stay_or_are_right(moved: bytes, spoil: str) -> None:
    """Nothing but CannotCut comes of damaged files, and what is made of them was compared."""
    damage: Callable[[int], bytes] = {
        "truncate": lambda n: moved[: n * len(moved) // 300],
        "flip": lambda n: moved[:n] + bytes([moved[n] ^ (1 << n % 8)]) + moved[n + 1 :],
    }[spoil]
    for number in range(0, 64 + 56 * 12, 3) if spoil == "flip" else range(300):
        data = damage(number)
        try:
            new = dropped(data)
        except CannotCut:
            continue
        check_dropped(read_from(data), len(data), read_from(new), len(new))
