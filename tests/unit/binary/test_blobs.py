"""GPU code in data: all is found, whatever lies before and between, also across the ends of what is read at once."""

from __future__ import annotations

from typing import Final

import pytest
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deadweight.binary import blobs, elf
from deadweight.binary.fatbin import MAGIC_BYTES
from support import fatbins
from support.elf import read_from

PIECES: Final = (
    fatbins.fatbin(fatbins.sm(90, size=1500), fatbins.compute(80, size=900)),
    fatbins.fatbin(fatbins.sm(80, size=300)),
    zstd.compress(fatbins.cubin(90, 2000)),
    fatbins.cubin(90, 700),
)
WINDOWS: Final = (64, 1000, 4096)
GAPS: Final = (
    b"",
    bytes(7),
    *(bytes(window - 2) for window in WINDOWS),
    MAGIC_BYTES,
    b"\x7fELF\2\1\1",
    b"\x28\xb5\x2f",
    b"P\xed" * 40,
)
"""Nothing, beginnings of what is none, and what takes the next one across the end of a window."""


@pytest.mark.parametrize("window", WINDOWS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(GAPS), st.sampled_from(PIECES)), max_size=12))
def test_all_are_found(window: int, parts: list[tuple[bytes, bytes]]) -> None:
    content = b"".join(gap + piece for gap, piece in parts).ljust(blobs.MIN_SECTION, b"\0")
    section = elf.Section(".rodata", 1, elf.SHF_ALLOC, 0, 0, len(content), 0, 0, 8, 0)
    parsed = elf.Elf(62, 3, 1, 0, 0, len(content), 64, 0, 0, (), (section,))
    expected = []
    at = 0
    for gap, piece in parts:
        at += len(gap)
        expected.append((at, len(piece)))
        at += len(piece)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blobs, "_WINDOW", window)
        found = blobs.find_blobs(read_from(content), parsed, frozenset())
        assert [(blob.offset, blob.end - blob.offset) for _, blob in found] == expected
