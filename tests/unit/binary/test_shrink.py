"""What shrinking refuses, what it makes of damage, GPU code in data, and harder compression."""

from __future__ import annotations

import ctypes
import random
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deadweight.binary.blobs import find_blobs
from deadweight.binary.elf import parse
from deadweight.binary.fatbin import CUBIN, FLAG_LZ4, parse_fatbin
from deadweight.binary.gpu import Target
from deadweight.binary.recompress import encoder, plain, smaller
from deadweight.binary.shrink import MIN_HOLE, NOTHING, CannotShrink, fatbin_sections, shrink_gpu_code
from deadweight.binary.shrink_check import check_shrunk
from support import elf as fixtures
from support import hosts
from support.elf import read_from
from support.fatbins import compute, cubin, entry, fatbin, lto, sm

H100 = Target((90,), keep_ptx=False)


@cache
def made_library() -> bytes:
    with TemporaryDirectory() as folder:
        return hosts.build(hosts.LAYOUTS["relocatable fatbins"], Path(folder)).read_bytes()


@pytest.fixture(scope="module")
def library() -> bytes:
    return made_library()


def shrink(data: bytes, target: Target = H100) -> bytes:
    """The shrunk file, compared with the original."""
    read = read_from(data)
    content = shrink_gpu_code(read, len(data), target)
    new = content.reader(read)(0, content.size)
    assert len(new) == content.size < len(data)
    check_shrunk(read, len(data), read_from(new), len(new), target)
    return new


def host(folder: Path, *fatbins: bytes, layout: str = "library") -> bytes:
    folder.mkdir(exist_ok=True)
    return hosts.build(hosts.LAYOUTS[layout], folder, fatbins).read_bytes()


class TestNothingForADeclaredGpu:
    @pytest.mark.parametrize("gpus", [(90,), (75, 90)])
    def test_stays(self, tmp_path: Path, gpus: tuple[int, ...]) -> None:
        data = host(tmp_path, fatbin(sm(70), sm(80)), fatbin(sm(70), sm(80)))
        if gpus == (75, 90):  # sm_75 runs sm_70's
            assert len(shrink(data, Target(gpus))) < len(data)
            return
        with pytest.raises(CannotShrink, match="nothing in it for sm_90"):
            shrink(data, Target(gpus))

    def test_for_newer_gpus_alone_it_leaves(self, tmp_path: Path) -> None:
        data = host(tmp_path, fatbin(sm(100), sm(120)), fatbin(sm(100), sm(120)))
        assert len(shrink(data)) < len(data) - 40_000

    def test_by_ptx_alone_it_keeps_that(self, tmp_path: Path) -> None:
        new = shrink(host(tmp_path, fatbin(sm(70), sm(80), compute(80)), fatbin(sm(70), sm(80), compute(80))))
        sections = fatbin_sections(read_from(new), parse(read_from(new), len(new)))
        assert [[e.label for e in f.entries] for s in sections for f in s.fatbins] == [["compute_80"], ["compute_80"]]

    def test_what_nvcc_adds_by_itself_says_nothing(self, tmp_path: Path) -> None:
        """nvcc 13 leaves a wrapper of version 2 over an sm_75 entry in all it links."""
        link = fatbin(sm(75, size=400))
        data = host(tmp_path, fatbin(sm(60, size=90_000)), fatbin(sm(60)), link, layout="wrapper of version 2")
        with pytest.raises(CannotShrink, match="nothing in it for sm_75"):
            shrink(data, Target((75,)))


EDIT = st.tuples(st.integers(0, 99), st.integers(-8, 600), st.integers(0, 255))
"""Which place, how far from it, and the new byte."""


class TestDamage:
    @settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
    @given(
        edits=st.lists(
            st.tuples(st.integers(0, 99), st.integers(-8, 600), st.integers(0, 255)), min_size=1, max_size=6
        ),
        cut=st.one_of(st.none(), st.floats(0, 1)),
        target=st.builds(Target, st.just((90,)), st.booleans(), st.booleans(), st.booleans()),
    )
    def test_a_checked_result_or_a_reason(
        self, edits: list[tuple[int, int, int]], cut: float | None, target: Target
    ) -> None:
        library = made_library()
        out = bytearray(library)
        elf = parse(read_from(library), len(library))
        places = [0, 24, elf.phoff, elf.shoff]
        for number, section in enumerate(elf.sections):
            places += [section.offset, elf.shoff + 64 * number]
        for place, distance, value in edits:
            out[min(max(0, places[place % len(places)] + distance), len(out) - 1)] = value
        damaged = bytes(out[: len(out) if cut is None else int(cut * len(out))])
        try:
            shrink(damaged, target)
        except CannotShrink as error:
            reason = str(error)
        else:
            return
        assert reason
        assert "\n" not in reason

    def test_every_byte_of_a_pointer_counts(self, library: bytes) -> None:
        """The check finds what shrinking might do wrong: a pointer that did not follow, an entry that changed."""
        read = read_from(library)
        new = bytearray(shrink(library))
        elf = parse(read_from(bytes(new)), len(new))
        section = fatbin_sections(read_from(bytes(new)), elf)[0]
        kept = next(e for s in [section] for f in s.fatbins for e in f.entries if e.payload_size > 1000)
        rela = next(s for s in elf.sections if s.name == ".rela.dyn")
        text = next(s for s in elf.sections if s.name == ".text")
        for at in (kept.payload + 500, kept.offset + 28, rela.offset + 16, text.offset + 5, elf.phoff + 16, 24):
            changed = bytearray(new)
            changed[at] ^= 1
            with pytest.raises(CannotShrink, match="self-check"):
                check_shrunk(read, len(library), read_from(bytes(changed)), len(changed), H100)


RAW_SOURCE = """
__asm__(".section .cask_resource,\\"a\\"\\n.balign 8\\nblobs: .incbin \\"FILE\\"\\nblobs_end:\\n.previous");
extern const unsigned char blobs[] __attribute__((visibility("hidden")));
unsigned checksum(long start, long end) {
    unsigned sum = 0;
    for (long i = start; i < end; i++) sum = sum * 31 + blobs[i];
    return sum;
}
"""


def checksum(data: bytes, start: int, end: int) -> int:
    total = 0
    for byte in data[start:end]:
        total = (total * 31 + byte) & 0xFFFFFFFF
    return total


class TestBlobs:
    def blobs(self, folder: Path, parts: Sequence[bytes]) -> tuple[bytes, bytes, list[tuple[int, int]]]:
        """A library with blobs in data, those blobs, and where each lies among them."""
        places, blob = [], b""
        for part in parts:
            blob += len(part).to_bytes(8, "little")
            places.append((len(blob), len(blob) + len(part)))
            blob += part
        (folder / "blobs").write_bytes(blob)
        source = fixtures.LIBRARY + RAW_SOURCE.replace("FILE", str(folder / "blobs"))
        return fixtures.library(folder, source=source), blob, places

    def test_runs_of_foreign_ones_leave(self, tmp_path: Path) -> None:
        big = MIN_HOLE // 2
        parts = [
            *(fatbin(sm(90, "a", size=50_000)), fatbin(sm(100, "a", size=big, compress="zstd"))),
            *(fatbin(sm(100, "f", size=big)), fatbin(sm(120, size=big)), fatbin(sm(90, size=30_000))),
            *(cubin(80, size=3 * big), cubin(90, size=big), fatbin(compute(80), sm(80, size=2 * big))),
        ]
        data, blob, places = self.blobs(tmp_path, parts)
        elf = parse(read_from(data), len(data))
        assert len(list(find_blobs(read_from(data), elf, frozenset()))) == len(parts)
        with pytest.raises(CannotShrink, match=NOTHING):
            shrink(data, Target((90,), keep_ptx=False))
        new = shrink(data, Target((90,), keep_ptx=False, raw_blobs=True))
        assert len(data) - len(new) > 6 * big - 4 * 4096
        path = tmp_path / "new.so"
        path.write_bytes(new)
        code = f"import ctypes; l=ctypes.CDLL({str(path)!r}); l.checksum.argtypes=[ctypes.c_long]*2\n"
        code += f"l.checksum.restype=ctypes.c_uint; print(*[l.checksum(*p) for p in {places}], l.answer())"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        *sums, answer = map(int, done.stdout.split())
        assert answer == 42
        stays = [0, 4, 6, 7]
        assert [sums[i] for i in stays] == [checksum(blob, *places[i]) for i in stays]
        with pytest.raises(CannotShrink, match=NOTHING):
            shrink(new, Target((90,), keep_ptx=False, raw_blobs=True))

    def test_the_result_loses_its_symbols_as_well(self, tmp_path: Path) -> None:
        data, _, _ = self.blobs(tmp_path, [fatbin(sm(100, size=2 * MIN_HOLE)), fatbin(sm(90))])
        new = shrink(data, Target((90,), raw_blobs=True))
        path = tmp_path / "new.so"
        path.write_bytes(new)
        subprocess.run(["strip", path], check=True, capture_output=True)
        assert fixtures.answer_of_library(path) == 42
        assert path.stat().st_size < len(new)


class TestRecompression:
    @pytest.mark.parametrize("compress", ["", "lz4"])
    @pytest.mark.parametrize("kind", [1, 2])
    def test_smaller_and_the_same(self, compress: str, kind: int) -> None:
        code = b"".join(random.Random(1).choices([b"mov ", b"add ", b"bra ", b"r1, "], k=9000))
        content = cubin(90, 400) + code if kind == CUBIN else code + b"\0"
        data = fatbin(entry(kind, 90, content, compress=compress, options="-O3"))  # type: ignore[arg-type]
        (old,) = parse_fatbin(read_from(data), 0, len(data)).entries
        new = smaller(read_from(data), old)
        assert new is not None
        assert len(new) < (len(data) - 16 if compress else len(data) / 2)
        again = fatbin(new)
        (entry_now,) = parse_fatbin(read_from(again), 0, len(again)).entries
        assert entry_now.flags == old.flags | FLAG_LZ4
        assert (entry_now.kind, entry_now.sm, entry_now.header_size) == (old.kind, old.sm, old.header_size)
        found = plain(entry_now, again[entry_now.payload : entry_now.end])
        assert found is not None
        assert found.rstrip(b"\0") == content.rstrip(b"\0")
        assert smaller(read_from(again), entry_now) is None

    @pytest.mark.parametrize(
        "made",
        [
            lto(90),
            sm(90, compress="zstd"),
            entry(CUBIN, 90, random.Random(2).randbytes(9000)),
            entry(0x10, 90, b"x" * 4000),
        ],
        ids=["LTO-IR", "zstd", "noise", "unknown kind"],
    )
    def test_left_alone(self, made: bytes) -> None:
        data = fatbin(made)
        (old,) = parse_fatbin(read_from(data), 0, len(data)).entries
        assert smaller(read_from(data), old) is None

    @settings(max_examples=200, deadline=None)
    @given(noise=st.binary(min_size=1, max_size=200), full=st.integers(0, 1 << 40), length=st.integers(0, 300))
    def test_damage(self, noise: bytes, full: int, length: int) -> None:
        payload = noise.ljust(-(-len(noise) // 8) * 8, b"\0")
        data = bytearray(fatbin(entry(CUBIN, 90, payload, flags=FLAG_LZ4)))
        data[16 + 16 : 16 + 20] = min(length, len(payload)).to_bytes(4, "little")
        data[16 + 56 : 16 + 64] = full.to_bytes(8, "little")
        (old,) = parse_fatbin(read_from(bytes(data)), 0, len(data)).entries
        smaller(read_from(bytes(data)), old)

    def test_a_whole_library(self, tmp_path: Path) -> None:
        text = b"".join(random.Random(1).choices([b"mov ", b"add ", b"bra ", b"r1, "], k=30_000))
        data = host(tmp_path, fatbin(entry(2, 90, cubin(90, 400) + text), sm(80)), fatbin(sm(80), sm(90)))
        without, with_it = shrink(data), shrink(data, Target((90,), keep_ptx=False, recompress=True))
        assert len(with_it) < len(without) - 50_000
        path = tmp_path / "new.so"
        path.write_bytes(with_it)
        assert ctypes.CDLL(str(path)).answer() == 42
        with pytest.raises(CannotShrink, match=NOTHING):
            shrink(with_it, Target((90,), keep_ptx=False, recompress=True))

    def test_the_encoder_is_named(self) -> None:
        assert encoder().startswith("lz4 1.")
