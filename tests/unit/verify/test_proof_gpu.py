"""The static proof of programs and libraries: what the loader maps and GPUs run is held to the byte."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deadweight import Options, Plan
from deadweight.binary import elf
from deadweight.binary.fatbin import parse_section
from deadweight.binary.gpu import Target
from deadweight.binary.target_document import IN_IMAGE
from deadweight.image.content import Content, Reader
from support import hosts
from support.careless import SITE, distribution
from support.elf import LIBRARY, gcc, read_from
from support.fatbins import compute, fatbin, sm
from support.images import FixtureImage, directory, hardlink, make_image, make_tar
from support.proofs import Slim, changed, content, differences, edited, flipped, notes, proved, replaced, slimmed

GPU = f"{SITE}/kernels/libgpu.so"
PLAIN = f"{SITE}/kernels/libplain.so"
BLOBS = f"{SITE}/kernels/libblobs.so"
RECORD = f"{SITE}/kernels-1.0.dist-info/RECORD"
TARGETS = {
    "sm_90": Target((90,)),
    "sm_90 without PTX": Target((90,), keep_ptx=False),
    "two GPUs": Target((80, 90), keep_ptx=False),
    "no GPU": Target(),
    "raw blobs": Target((90,), keep_ptx=False, raw_blobs=True),
    "recompressed": Target((90,), keep_ptx=False, recompress=True),
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> FixtureImage:
    """Libraries with GPU code, with GPU code in data, and with neither; one has another name as well."""
    folder = tmp_path_factory.mktemp("libraries")
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    bins = [fatbin(sm(70), sm(80), sm(90), compute(90)), fatbin(sm(75), sm(90, compress="lz4")), fatbin(sm(70), sm(80))]
    gpu = hosts.build(hosts.LAYOUTS["symbols"], folder, bins).read_bytes()
    (folder / "blob").write_bytes(bytes(5000) + fatbin(sm(70, size=600_000)) + fatbin(sm(90, size=20_000)))
    data = f'__asm__(".section .cask_resource,\\"a\\"\\n.balign 8\\n.incbin \\"{folder}/blob\\"\\n.previous");\n'
    blobs = gcc(folder / "a", "libblobs.so", data + LIBRARY, "-shared", "-fPIC").read_bytes()
    source = "int table[64] = {1, 2, 3}; " + "".join(
        f"int f{i}(int x) {{ return x * {i} + table[x]; }}" for i in range(200)
    )
    plain = gcc(folder / "b", "libplain.so", source, "-g", "-shared", "-fPIC").read_bytes()
    files = {
        "kernels/libgpu.so": gpu,
        "kernels/libblobs.so": blobs,
        "kernels/libplain.so": plain,
        "kernels/__init__.py": b"",
    }
    return make_image(
        make_tar(directory("usr"), directory("usr/share")),
        make_tar(*distribution("kernels", "1.0", files), hardlink(f"{SITE}/again.so", GPU)),
        run={"Env": ["PATH=/usr/bin"]},
    )


@pytest.fixture(scope="module", params=TARGETS)
def slim(request: pytest.FixtureRequest, image: FixtureImage, tmp_path_factory: pytest.TempPathFactory) -> Slim:
    return slimmed(tmp_path_factory.mktemp("slim"), image, Options(target=TARGETS[request.param]))


@pytest.fixture(params=["with its plan", "without a plan"])
def plan(request: pytest.FixtureRequest, slim: Slim) -> Plan | None:
    return slim.plan if request.param == "with its plan" else None


def test_the_honest_slim_image_passes(slim: Slim, plan: Plan | None) -> None:
    proof = proved(slim.before, slim.after, plan)
    assert differences(proof) == []
    said = "\n".join(notes(proof))
    raw = slim.plan.target["raw_blobs"]
    shrunk = {cut.path for cut in slim.plan.cuts if cut.pass_ == "gpu-code"}
    assert shrunk & {GPU, BLOBS} == ({GPU, BLOBS} if raw else {GPU})
    counts = ("1 file is", "2 files are") if raw else ("2 files are", "1 file is")
    assert f"{counts[0]} rewritten, and loaders cannot tell (symbols)" in said
    assert f"{counts[1]} rewritten, and loaders cannot tell (gpu-code, symbols)" in said
    assert len(content(slim.after, GPU)) < len(content(slim.before, GPU)) - 20_000


def section(data: bytes, name: str) -> tuple[int, int]:
    """Where a section of a file begins, and its bytes."""
    found = next(each for each in elf.parse(read_from(data), len(data)).sections if each.name == name)
    return found.offset, found.size


def in_section(name: str, part: float = 0.5) -> Callable[[bytes], int]:
    def at(data: bytes) -> int:
        start, size = section(data, name)
        return start + int(size * part)

    return at


def in_cubin(data: bytes) -> int:
    """Some byte of the payload of the first entry that stayed."""
    fatbins = parse_section(read_from(data), *section(data, ".nv_fatbin"))
    entry = next(entry for each in fatbins for entry in each.entries)
    return entry.payload + entry.payload_size // 2


def in_symbol(data: bytes) -> int:
    """The name of a dynamic symbol."""
    start, _ = section(data, ".dynsym")
    return start + 24 * 3


PLACES: dict[str, tuple[str, Callable[[bytes], int]]] = {
    "code": (PLAIN, in_section(".text")),
    "data": (PLAIN, in_section(".data")),
    "a dynamic symbol": (PLAIN, in_symbol),
    "the hash table": (PLAIN, in_section(".gnu.hash", 0.9)),
    "the entry point": (PLAIN, lambda data: 24),
    "a program header": (PLAIN, lambda data: 64 + 56 + 16),
    "code beside GPU code": (GPU, in_section(".text")),
    "data beside GPU code": (GPU, in_section(".data")),
    "a wrapper": (GPU, in_section(".nvFatBinSegment", 0.01)),
    "a pointer to a fatbin": (GPU, lambda data: section(data, ".nvFatBinSegment")[0] + 8),
    "a cubin": (GPU, in_cubin),
    "a header of a fatbin": (GPU, lambda data: section(data, ".nv_fatbin")[0] + 8),
    "GPU code in data": (BLOBS, lambda data: len(data) - data[::-1].index(fatbin()[:4][::-1]) + 2000),
}


@pytest.mark.parametrize("place", PLACES)
def test_one_flipped_byte_is_caught_by_name(place: str, slim: Slim, plan: Plan | None) -> None:
    path, where = PLACES[place]
    at = where(content(slim.after, path))
    found = differences(proved(slim.before, changed(slim.after, path, flipped(at)), plan))
    names = {path, f"{SITE}/again.so"} if path == GPU else {path}
    blamed = {name for name in names if any(each.startswith(f"'/{name}': its content differs") for each in found)}
    assert blamed == names, found


def test_a_lost_dynamic_symbol_is_caught(slim: Slim, plan: Plan | None) -> None:
    at = in_symbol(content(slim.after, PLAIN))

    def lose(member: Any) -> Any:
        return replaced(data=member.data[:at] + bytes(24) + member.data[at + 24 :])(member)

    found = differences(proved(slim.before, changed(slim.after, PLAIN, lose), plan))
    assert any(each.startswith(f"'/{PLAIN}': ") for each in found)


def test_what_is_no_library_any_more_is_caught(slim: Slim, plan: Plan | None) -> None:
    for data in (b"", b"\x7fELF", b"\x7fELF" + b"\xff" * 5000, content(slim.after, PLAIN)[:3000]):
        found = differences(proved(slim.before, changed(slim.after, PLAIN, replaced(data=data)), plan))
        assert any(each.startswith(f"'/{PLAIN}': its content differs") for each in found)


def test_what_hides_behind_a_library_is_caught(slim: Slim, plan: Plan | None) -> None:
    """Loaders do not map it, but programs that carry their payload behind themselves read it."""
    after = changed(slim.after, PLAIN, lambda m: replaced(data=m.data + b"payload" * 100)(m))
    found = differences(proved(slim.before, after, plan))
    assert any(each.startswith(f"'/{PLAIN}': its content differs") for each in found)


def test_code_that_a_target_needs_is_caught(image: FixtureImage, tmp_path: Path) -> None:
    """An image that was slimmed for one GPU more than it says."""
    slim = slimmed(tmp_path, image, Options(target=Target((80,), keep_ptx=False)))
    after = changed(slim.after, IN_IMAGE, edited(b"sm_80", b"sm_90"))
    found = differences(proved(slim.before, after))
    assert any(each.startswith(f"'/{GPU}': its content differs") for each in found)
    assert f"'/{IN_IMAGE}': it says something else than the plan" in differences(proved(slim.before, after, slim.plan))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (replaced(mode=0o666), "not root's"),
        (replaced(uid=1), "not root's"),
        (edited(b"{", b"{ "), "it is not written as"),
        (replaced(data=b"{}"), "it is no document"),
        (replaced(data=b""), "it is no document"),
        (edited(b"deadweight.target/1", b"deadweight.target/9"), "it is no document"),
    ],
)
def test_a_document_that_is_none_is_caught(change: Any, says: str, slim: Slim, plan: Plan | None) -> None:
    found = differences(proved(slim.before, changed(slim.after, IN_IMAGE, change), plan))
    assert any(each.startswith(f"'/{IN_IMAGE}': ") and says in each for each in found), found


def test_a_document_that_is_missing_is_caught(slim: Slim) -> None:
    found = differences(proved(slim.before, changed(slim.after, IN_IMAGE, lambda _: None), slim.plan))
    assert f"'/{IN_IMAGE}': it is declared to be new, and is not there" in found


@pytest.mark.parametrize("name", ["symbols", "gpu-code"])
def test_every_rewrite_has_to_be_in_the_plan(name: str, slim: Slim) -> None:
    cuts = [cut for cut in slim.plan.cuts if cut.pass_ != name]
    found = differences(proved(slim.before, slim.after, msgspec.structs.replace(slim.plan, cuts=cuts)))
    path = PLAIN if name == "symbols" else GPU
    assert any(each.startswith(f"'/{path}': its content differs") for each in found)


def test_another_version_may_write_what_loaders_do_not_map(slim: Slim) -> None:
    """The names of sections, say; what it maps is held to the byte all the same."""
    plan = msgspec.structs.replace(slim.plan, deadweight="0.0.1")
    data = content(slim.after, PLAIN)
    for at, fine in ((data.rindex(b".shstrtab"), True), (in_section(".text")(data), False)):
        after = changed(slim.after, PLAIN, flipped(at))
        others = [each for each in differences(proved(slim.before, after, plan)) if "RECORD" not in each]
        assert bool([each for each in others if PLAIN in each]) != fine
        assert any(PLAIN in each for each in differences(proved(slim.before, after, slim.plan)))


@pytest.mark.parametrize("maker", ["shrink_gpu_code", "strip_symbols"])
def test_what_makes_files_smaller_is_not_trusted(
    maker: str, image: FixtureImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Makers that damage code damage the slim image and what it is compared with alike: the comparison finds it."""
    path = GPU if maker == "shrink_gpu_code" else PLAIN
    old = content(image, path)

    def damaging(make: Callable[..., Content]) -> Callable[..., Content]:
        def made(read: Reader, size: int, *more: Any) -> Content:
            new = make(read, size, *more)
            whole = new.reader(read)(0, new.size)
            if read(0, size) != old:
                return new
            where = in_section(".text")(whole)
            return Content((whole[:where], bytes([whole[where] ^ 1]), whole[where + 1 :]))

        return made

    for module in ("passes.gpu_code", "verify.proof.rewrites") if path == GPU else ("passes.symbols",):
        make = getattr(importlib.import_module(f"deadweight.{module}"), maker)
        monkeypatch.setattr(f"deadweight.{module}.{maker}", damaging(make))
    if path == GPU:
        monkeypatch.setattr("deadweight.passes.gpu_code.check_shrunk", lambda *_: None)
    slim = slimmed(tmp_path, image, Options(target=Target((90,), keep_ptx=False)))
    for plan in (None, slim.plan) if path == PLAIN else (None,):
        found = differences(proved(slim.before, slim.after, plan))
        assert any(each.startswith(f"'/{path}': its content differs") for each in found), found
