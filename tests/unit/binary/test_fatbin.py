"""Reading fatbins: every byte is accounted for, and whatever does not add up is refused."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deadweight.binary import fatbin as format_
from deadweight.binary.fatbin import CUBIN, LTO_IR, PTX, Fatbin, FatbinError, parse_fatbin, parse_section
from support.elf import read_from
from support.fatbins import OTHER_KIND, assorted, compute, entry, fatbin, lto, sm


def section(data: bytes) -> list[Fatbin]:
    """The fatbins of a section that begins at 0, every byte of it accounted for."""
    found = parse_section(read_from(data), 0, len(data))
    at = 0
    for one in found:
        assert not any(data[at : one.offset])
        inside = one.offset + format_.HEADER.size
        for part in one.entries:
            assert part.offset == inside
            assert part.payload + part.payload_size == part.end == part.offset + part.length
            assert part.compressed_size <= part.payload_size
            inside = part.end
        assert inside == one.end == one.offset + one.size
        at = one.end
    assert not any(data[at:])
    return found


def test_entries_of_every_kind() -> None:
    data = fatbin(
        sm(90, "a", size=400, compress="lz4"),
        sm(100, "f", size=400, compress="zstd", options="-g"),
        sm(75, size=400),
        compute(120, size=100),
        lto(80, size=64),
        entry(OTHER_KIND, 75, b"unknown", name="a.cu"),
    )
    (found,) = section(data)
    assert [part.label for part in found.entries] == [
        "sm_90a",
        "sm_100f",
        "sm_75",
        "compute_120",
        "lto_80",
        "kind16_75",
    ]
    assert [part.kind for part in found.entries] == [CUBIN, CUBIN, CUBIN, PTX, LTO_IR, OTHER_KIND]
    assert [part.variant for part in found.entries] == ["a", "f", "", "", "", ""]
    assert [part.compression for part in found.entries] == ["lz4", "zstd", None, "lz4", "zstd", None]
    plain, named = found.entries[2], found.entries[5]
    assert data[plain.payload :][:4] == b"\x7fELF"
    assert (plain.header_size, plain.payload_size, plain.compressed_size, plain.full_size) == (64, 400, 0, 0)
    assert named.header_size > 64
    assert data[named.payload : named.end] == b"unknown\0"
    packed = found.entries[0]
    assert packed.full_size == 400
    assert 0 < packed.compressed_size <= packed.payload_size < packed.compressed_size + 8


def test_one_fatbin_in_the_midst_of_something() -> None:
    data = fatbin(sm(90, size=400))
    found = parse_fatbin(read_from(b"x" * 24 + data + b"y"), 24, 24 + len(data))
    assert found == section(b"\0" * 24 + data)[0]
    assert (found.offset, found.end) == (24, 24 + len(data))


@pytest.mark.parametrize("gap", [0, 8, 16, 24, 4096, 65536, 200_000])
def test_zeros_between_before_and_behind(gap: int) -> None:
    each = [*assorted(400), fatbin()]
    data = bytes(gap) + b"".join(one + bytes(gap) for one in each)
    found = section(data)
    assert [data[one.offset : one.end] for one in found] == each
    assert [len(one.entries) for one in found] == [6, 4, 2, 3, 2, 3, 3, 3, 0]
    assert section(bytes(gap)) == []
    assert section(data + b"\0\0\0") == found


def _patch(data: bytes, at: int, layout: str, value: int) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, at, value)
    return bytes(changed)


ONE = fatbin(sm(80, size=400), sm(90, size=400))
LENGTH = len(ONE)
FIRST, SECOND = 16, 16 + 64 + 400
DAMAGE: dict[str, tuple[Callable[[], bytes], str]] = {
    "no fatbin": (lambda: b"\1" * 64, "no fatbin where one should begin"),
    "the magic": (lambda: _patch(ONE, 0, "<B", 0x51), "no fatbin where one should begin"),
    "the version": (lambda: _patch(ONE, 4, "<H", 2), "unknown version 2"),
    "the header's size": (lambda: _patch(ONE, 6, "<H", 24), "unknown version"),
    "the size, by one": (lambda: _patch(ONE, 8, "<Q", LENGTH - 16 + 1), "reaches beyond its section"),
    "the size, by far": (lambda: _patch(ONE, 8, "<Q", (1 << 64) - 1), "reaches beyond its section"),
    "the size, too small": (lambda: _patch(ONE, 8, "<Q", LENGTH - 16 - 8), "reaches beyond its fatbin"),
    "the size, ending in a header": (lambda: _patch(ONE, 8, "<Q", SECOND + 8 - 16), "entry's header is cut off"),
    "cut off in the header": (lambda: ONE + ONE[:8], "fatbin's header is cut off"),
    "cut off in an entry": (lambda: ONE[:-8], "reaches beyond its section"),
    "less than a word behind": (lambda: ONE + b"\0\0\1", "fatbin's header is cut off"),
    "an odd place": (lambda: ONE + bytes(4) + ONE, "no fatbin where one should begin"),
    "an entry's mark": (lambda: _patch(ONE, FIRST + 2, "<H", 0x102), "unknown version 0x102"),
    "an entry's header, too small": (lambda: _patch(ONE, FIRST + 4, "<I", 56), "an odd size"),
    "an entry's header, empty": (lambda: _patch(ONE, FIRST + 4, "<I", 0), "an odd size"),
    "an entry's header, odd": (lambda: _patch(ONE, FIRST + 4, "<I", 68), "an odd size"),
    "an entry's header, too large": (lambda: _patch(ONE, SECOND + 4, "<I", 4096), "reaches beyond its fatbin"),
    "a payload, odd": (lambda: _patch(ONE, FIRST + 8, "<Q", 404), "an odd size"),
    "a payload, too large": (lambda: _patch(ONE, SECOND + 8, "<Q", 408), "reaches beyond its fatbin"),
    "a payload, by far": (lambda: _patch(ONE, FIRST + 8, "<Q", (1 << 64) - 8), "reaches beyond its fatbin"),
    "a payload, too small": (lambda: _patch(ONE, FIRST + 8, "<Q", 0), "an entry of"),
    "the compressed size": (lambda: _patch(ONE, FIRST + 16, "<I", 401), "larger than its payload"),
}


@pytest.mark.parametrize(("made", "said"), DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_refused(made: Callable[[], bytes], said: str) -> None:
    with pytest.raises(FatbinError, match=said) as caught:
        section(made())
    assert "\n" not in str(caught.value)


def test_a_reader_that_gives_less_is_refused() -> None:
    with pytest.raises(FatbinError, match="shorter than it was said to be"):
        parse_section(read_from(ONE), 0, LENGTH + 64)
    with pytest.raises(FatbinError, match="shorter than it was said to be"):
        parse_fatbin(read_from(ONE[:40]), 0, LENGTH)


def _empty_entry(kind: int = CUBIN) -> bytes:
    return format_.ENTRY.pack(kind, 0x101, 64, 0, 0, 0, 0, 0, 90, 0, 0, 0, 0, 0)


class TestLimits:
    def test_entries_of_a_fatbin(self) -> None:
        assert len(section(fatbin(*[_empty_entry()] * format_.MAX_ENTRIES))[0].entries) == format_.MAX_ENTRIES
        with pytest.raises(FatbinError, match="more than 4,096 entries"):
            section(fatbin(*[_empty_entry()] * (format_.MAX_ENTRIES + 1)))

    def test_fatbins_of_a_section(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(format_, "MAX_FATBINS", 3)
        assert len(section(fatbin() * 3)) == 3
        with pytest.raises(FatbinError, match="more than 3 fatbins"):
            section(fatbin() * 4)

    def test_entries_of_a_section(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(format_, "MAX_SECTION_ENTRIES", 5)
        two = fatbin(_empty_entry(), _empty_entry())
        assert len(section(two * 2 + fatbin(_empty_entry()))) == 3
        with pytest.raises(FatbinError, match="more than 5 entries together"):
            section(two * 3)

    def test_zeros_are_skipped_in_large_steps(self) -> None:
        """A hostile file has gigabytes of them for nothing."""
        calls = 0

        def read(_: int, length: int) -> bytes:
            nonlocal calls
            calls += 1
            return bytes(length)

        began = time.monotonic()
        assert parse_section(read, 0, 1 << 30) == []
        assert calls < 20_000
        assert time.monotonic() - began < 20

    def test_payloads_are_not_read(self) -> None:
        spent = 0
        data = b"".join(assorted(100_000))

        def read(offset: int, length: int) -> bytes:
            nonlocal spent
            spent += length
            return data[offset : offset + length]

        parse_section(read, 0, len(data))
        assert spent < 5_000


VALID = b"".join(assorted(400)) + bytes(24) + fatbin(_empty_entry(PTX)) + fatbin()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid section with some bytes, or a whole number, changed; perhaps with a piece cut out or put in twice."""
    data = bytearray(VALID)
    starts = [one.offset for one in parse_section(read_from(VALID), 0, len(VALID))]
    starts += [part.offset for one in parse_section(read_from(VALID), 0, len(VALID)) for part in one.entries]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(starts)) + draw(st.integers(0, 63))
        layout = draw(st.sampled_from("BHIQ"))
        size = struct.calcsize(f"<{layout}")
        value = draw(st.integers(0, 64) | st.integers(0, 256**size - 1)) % 256**size
        if draw(st.booleans()):  # near the limits, where sums overflow
            value = 256**size - 1 - value
        if at + size <= len(data):
            struct.pack_into(f"<{layout}", data, at, value)
    first, second = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    piece = bytes(data[first:second])
    how = draw(st.sampled_from(["whole", "whole", "cut off", "cut out", "twice"]))
    return {"whole": bytes(data), "cut off": piece, "cut out": bytes(data[:first] + data[second:])}.get(
        how, bytes(data[:second]) + piece + bytes(data[second:])
    )


class TestAnything:
    """What is read is accounted for to the byte, which `section` checks; all else is refused."""

    def _read(self, data: bytes) -> None:
        try:
            found = section(data)
        except FatbinError as error:
            assert "\n" not in str(error)  # noqa: PT017
            return
        for one in found:
            for part in one.entries:
                assert part.label
                assert part.compression in (None, "lz4", "zstd")

    @given(st.binary(max_size=300))
    @example(b"")
    @example(format_.MAGIC_BYTES)
    def test_bytes(self, data: bytes) -> None:
        self._read(data)

    @given(st.binary(max_size=300))
    def test_bytes_inside_a_fatbin(self, data: bytes) -> None:
        self._read(fatbin(data))

    @given(mutated())
    def test_mutations(self, data: bytes) -> None:
        self._read(data)

    @given(
        st.lists(st.integers(0, 8)),
        st.lists(st.integers(0, 3).map(lambda words: bytes(8 * words)), min_size=9, max_size=9),
    )
    def test_sections_of_sound_fatbins(self, picks: list[int], gaps: list[bytes]) -> None:
        each = [*assorted(304), fatbin()]
        data = b"".join(each[i] + gaps[i] for i in picks)
        assert [data[one.offset : one.end] for one in section(data)] == [each[i] for i in picks]
