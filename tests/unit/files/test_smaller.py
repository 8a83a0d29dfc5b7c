"""One library made smaller: each step is held to the one before it."""

from __future__ import annotations

import os

import pytest

from deadweight.binary.elf import parse
from deadweight.files.smaller import CheckFailed, Smaller, check_rewritten, make_smaller
from support import elf

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="compiles for x86-64")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return elf.patched_library(tmp_path_factory.mktemp("patched"))


def made(old: bytes, *, symbols: bool) -> tuple[Smaller, bytes]:
    read = elf.read_from(old)
    smaller = make_smaller(read, len(old), None, symbols=symbols)
    assert smaller.content is not None
    return smaller, smaller.content.reader(read)(0, smaller.content.size)


@pytest.mark.parametrize("symbols", [True, False])
def test_every_byte_that_is_mapped_is_held_to_the_original(old: bytes, symbols: bool) -> None:
    smaller, new = made(old, symbols=symbols)
    assert len(old) - len(new) == smaller.leftovers + smaller.symbols
    check_rewritten(elf.read_from(old), smaller, elf.read_from(new), len(new), None)
    found = parse(elf.read_from(new), len(new))
    behind_headers = min(section.offset for section in found.sections if section.allocated)
    for load in found.loads:
        start = max(load.offset, behind_headers)
        for at in (start, (start + load.offset + load.filesz) // 2, load.offset + load.filesz - 1):
            bad = new[:at] + bytes([new[at] ^ 1]) + new[at + 1 :]
            with pytest.raises(CheckFailed, match="did not pass its check"):
                check_rewritten(elf.read_from(old), smaller, elf.read_from(bad), len(bad), None)


def test_what_is_refused_for_one_reason_is_said_once(old: bytes) -> None:
    # Section names that are not there: nothing is certain.
    bad = old[:62] + b"\xff\x00" + old[64:]
    for symbols in (True, False):
        smaller = make_smaller(elf.read_from(bad), len(bad), None, symbols=symbols)
        assert smaller.content is None
        assert [each.what for each in smaller.kept] == (["file"] if symbols else ["leftovers"])
