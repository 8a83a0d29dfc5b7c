"""GPU code for GPUs that were not declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from deadweight.binary.gpu import Target
from deadweight.passes.base import Options
from deadweight.passes.gpu_code import PASS, cost
from deadweight.passes.symbols import PASS as SYMBOLS
from support import hosts
from support.contexts import context, paths, proposals
from support.elf import gcc, read_from
from support.fatbins import fatbin, sm
from support.images import Member, file, hardlink

H100 = Options(target=Target((90,), keep_ptx=False))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return hosts.build(hosts.LAYOUTS["symbols"], tmp_path_factory.mktemp("library")).read_bytes()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A library with nothing for sm_90."""
    folder = tmp_path_factory.mktemp("old")
    return hosts.build(hosts.LAYOUTS["library"], folder, [fatbin(sm(70), sm(80)), fatbin(sm(80), sm(86))]).read_bytes()


def image(library: bytes, *more: Member) -> list[Member]:
    return [file("usr/lib/libgpu.so", library), file("usr/lib/other.txt", b"text"), *more]


def test_nothing_is_done_where_no_gpu_was_declared(library: bytes) -> None:
    assert paths(PASS, context(image(library))) == []


def test_libraries_shrink_once_for_all_their_names(library: bytes) -> None:
    at = context(image(library, hardlink("usr/lib/again.so", "usr/lib/libgpu.so")), options=H100)
    (found,) = proposals(PASS, at)
    assert found.path in ("usr/lib/again.so", "usr/lib/libgpu.so")
    assert found.why == "GPU code for GPUs that were not declared"
    assert at.notes == []


def test_symbols_leave_what_remains(library: bytes) -> None:
    at = context(image(library), options=H100)
    (shrunk,) = proposals(PASS, at)
    size = at.content(shrunk.path)[1]
    (stripped,) = proposals(SYMBOLS, at)
    assert stripped.path == shrunk.path
    read, end = at.content(shrunk.path)
    assert end < size < len(library)
    assert len(read(0, end)) == end


@pytest.mark.parametrize(
    ("neighbour", "reason"),
    [("usr/lib/libgpu.so.hmac", "checksum beside it"), ("usr/lib/.libgpu.so.hmac", "checksum beside it")],
)
def test_files_held_against_a_checksum_stay(library: bytes, neighbour: str, reason: str) -> None:
    at = context(image(library, file(neighbour, b"12ab")), options=H100)
    assert paths(PASS, at) == []
    assert any(reason in note and "/usr/lib/libgpu.so" in note for note in at.notes)


def test_a_file_with_nothing_for_the_gpu_is_named(old: bytes, library: bytes) -> None:
    at = context(image(library, file("usr/lib/libold.so", old)), options=H100)
    assert paths(PASS, at) == ["usr/lib/libgpu.so"]
    assert "GPU code stays in /usr/lib/libold.so: nothing in it for sm_90" in at.notes


def test_gpus_that_find_nothing_are_named(old: bytes, library: bytes) -> None:
    """Not only where the file is refused: here sm_80 finds something in it, and sm_60 only what is for newer GPUs."""
    at = context(image(library, file("usr/lib/libold.so", old)), options=Options(target=Target((60, 80, 90))))
    assert "usr/lib/libold.so" in paths(PASS, at)
    assert "nothing in it for sm_60, sm_90, before or after: /usr/lib/libold.so" in at.notes


@pytest.mark.parametrize("raw_blobs", [False, True])
def test_code_out_of_reach_is_counted_and_named(raw_blobs: bool, tmp_path: Path) -> None:
    blob = fatbin(sm(70, size=50_000))
    (tmp_path / "blob").write_bytes(blob)
    source = f'__asm__(".section .cask_resource,\\"a\\"\\n.balign 8\\n.incbin \\"{tmp_path}/blob\\"\\n.previous");'
    library = gcc(tmp_path, "libblob.so", source, "-shared", "-fPIC").read_bytes()
    at = context(image(library), options=Options(target=Target((90,), raw_blobs=raw_blobs)))
    paths(PASS, at)
    said = [note for note in at.notes if "of GPU code in data of libraries, where only --raw-blobs goes" in note]
    assert [note.partition(", stay: ")[::2] for note in said] == [
        (
            f"{len(blob):,} bytes of GPU code in data of libraries, where only --raw-blobs goes",
            f"/usr/lib/libgpu.so ({len(blob):,})",
        )
    ] * (not raw_blobs)


def test_what_the_user_keeps_stays(library: bytes) -> None:
    options = Options(target=Target((90,)), keep=("*/libgpu.so",))
    assert paths(PASS, context(image(library), options=options)) == []


def test_blobs_are_of_another_risk(library: bytes) -> None:
    (found,) = proposals(PASS, context(image(library), options=Options(target=Target((90,), raw_blobs=True))))
    assert found.risk == "observed"
    assert PASS.risk == "target"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (Target(), "without a GPU"),
        (Target((80, 90)), "GPUs newer than sm_90"),
        (Target((80, 90), keep_ptx=False), "CUDA_FORCE_PTX_JIT"),
    ],
)
def test_the_choice_has_its_cost_in_words(target: Target, words: str) -> None:
    (note,) = cost(target)
    assert words in note


def test_the_content_is_what_shrinking_gives(library: bytes) -> None:
    at = context(image(library), options=H100)
    content = at.rewrite(PASS, "usr/lib/libgpu.so")
    assert content.reader(read_from(library))(0, 4) == b"\x7fELF"
    assert content.size < len(library)


def test_damaged_fatbins_stay_and_are_named(library: bytes) -> None:
    damaged = library.replace(b"\x50\xed\x55\xba\x01\x00\x10\x00", b"\x50\xed\x55\xba\x07\x00\x10\x00")
    at = context(image(damaged), options=H100)
    assert paths(PASS, at) == []
    assert any("unknown version 7" in note for note in at.notes)
