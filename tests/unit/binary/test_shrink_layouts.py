"""Shrinking, over every layout of host files: results hold what they should, work, and other tools take them."""

from __future__ import annotations

import dataclasses
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from deadweight.binary import elf
from deadweight.binary.dynamic import dynamic_entries
from deadweight.binary.fatbin import CUBIN, PTX, Fatbin, parse_fatbin
from deadweight.binary.gpu import Target
from deadweight.binary.shrink import NOTHING, CannotShrink, shrink_gpu_code
from deadweight.binary.shrink_check import check_shrunk
from support import cuda, hosts
from support.elf import read_from
from support.fatbins import assorted, compute, fatbin, sm
from support.hosts import ARM64, LAYOUTS, Layout

TARGETS: Final = {
    "sm_90": (
        Target((90,)),
        ["sm_90 compute_90", "sm_90a", "compute_120", "compute_70 compute_80", "", "kind16_75", "", "sm_90 lto_80"],
    ),
    "sm_80, sm_89": (
        Target((80, 89)),
        [
            *("sm_80 sm_86 compute_90", "sm_80", "compute_120", "sm_80 compute_70 compute_80"),
            *("", "kind16_75 sm_80", "sm_80 sm_86 sm_87", "lto_80"),
        ],
    ),
    "sm_90 without PTX": (
        Target((90,), keep_ptx=False),
        ["sm_90", "sm_90a", "", "compute_70 compute_80", "", "kind16_75", "", "sm_90 lto_80"],
    ),
    "no GPU": (Target(), ["", "", "", "", "", "kind16_75", "", ""]),
}
"""What is declared, and the labels of the entries that stay in each of the assorted fatbins."""
SHRUNK: Final = [name for name, layout in LAYOUTS.items() if layout.refusal is None]
TOMBSTONE: Final = 272
"""Bytes of the only entry of a fatbin that keeps none: a header and a cubin without code."""


class Case(NamedTuple):
    """A file before and after."""

    layout: Layout
    target: Target
    stays: list[str]
    before: Path
    after: Path

    @property
    def old(self) -> bytes:
        return self.before.read_bytes()

    @property
    def new(self) -> bytes:
        return self.after.read_bytes()


def shrink(data: bytes, target: Target) -> bytes:
    read = read_from(data)
    content = shrink_gpu_code(read, len(data), target)
    new = content.reader(read)(0, len(data))
    assert len(new) == content.size < len(data)
    assert content == shrink_gpu_code(read, len(data), target)
    return new


def make(name: str, target_name: str, folder: Path) -> Case:
    layout = LAYOUTS[name] if name in LAYOUTS else ARM64[name.removesuffix(" (arm64)")]
    before = hosts.build_arm64(layout, folder) if name.endswith("(arm64)") else hosts.build(layout, folder)
    target, stays = TARGETS[target_name]
    after = folder / f"shrunk-{before.name}"
    after.write_bytes(shrink(before.read_bytes(), target))
    after.chmod(0o755)
    return Case(layout, target, stays, before, after)


@pytest.fixture(params=TARGETS)
def target_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[*SHRUNK, *(f"{name} (arm64)" for name in ARM64)])
def case(request: pytest.FixtureRequest, target_name: str, tmp_path: Path) -> Case:
    return make(request.param, target_name, tmp_path)


def test_result(case: Case) -> None:
    """All that can be told without running it."""
    check_shrunk(read_from(case.old), len(case.old), read_from(case.new), len(case.new), case.target)
    entries_are_the_expected_ones(case)
    memory_is_the_same(case)
    assert not cuda.elflint(case.after) - cuda.elflint(case.before)
    assert not cuda.readelf_warnings(case.after) - cuda.readelf_warnings(case.before)
    cuda.pyelftools(case.after)
    with pytest.raises(CannotShrink, match=f"^{NOTHING}$"):
        shrink_gpu_code(read_from(case.new), len(case.new), case.target)


@pytest.mark.parametrize("name", SHRUNK)
def test_works(name: str, target_name: str, tmp_path: Path) -> None:
    case = make(name, target_name, tmp_path)
    assert hosts.run(case.after, case.layout) == hosts.expected(case.new, case.layout)
    assert hosts.expected(case.new, case.layout) != hosts.expected(case.old, case.layout)


@pytest.mark.parametrize("name", SHRUNK)
def test_works_after_other_tools(name: str, tmp_path: Path) -> None:
    """GNU strip and patchelf, in any order, where the original survives them."""
    case = make(name, "sm_90", tmp_path)
    expected = {path: hosts.expected(path.read_bytes(), case.layout) for path in (case.before, case.after)}
    patchelf = [str(cuda.oracle("bin/patchelf")), "--set-rpath", "/nowhere/" + 40 * "long/"]
    tools = {"strip": ["strip"], "strip -S": ["strip", "--strip-debug"], "patchelf": patchelf}
    for order in (["strip"], ["strip -S"], ["patchelf"], ["patchelf", "strip"], ["strip", "patchelf"]):
        outcomes = []
        for path in (case.before, case.after):
            copy = tmp_path / f"treated-{path.name}"
            copy.write_bytes(path.read_bytes())
            done = [subprocess.run([*tools[tool], copy], capture_output=True, check=False) for tool in order]
            refused = any(run.returncode for run in done)
            outcomes.append("refused" if refused else _outcome(copy, case.layout, expected[path]))
        assert outcomes[1] == "works" or outcomes[0] != "works", f"{order}: {outcomes}"


def _outcome(path: Path, layout: Layout, expected: tuple[int, int]) -> str:
    try:
        return "works" if hosts.run(path, layout) == expected else "differs"
    except AssertionError as error:
        return str(error)


def entries_are_the_expected_ones(case: Case) -> None:
    found = [each for _, each in hosts.contents(case.new, case.layout)]
    for before, after, labels in zip(assorted(), found, case.stays, strict=True):
        old, new = (parse_fatbin(read_from(data), 0, len(data)) for data in (before, after))
        if labels:
            assert " ".join(entry.label for entry in new.entries) == labels
            assert pieces(after, new) <= pieces(before, old)
        else:
            (stone,) = new.entries
            assert stone.length == TOMBSTONE
            assert stone.label in {entry.label for entry in old.entries if entry.kind == stone.kind} or stone.sm == 120
            assert stone.sm not in case.target.gpus
            assert after[stone.payload : stone.payload + 4] == b"\x7fELF"


def pieces(data: bytes, parsed: Fatbin) -> set[bytes]:
    return {data[entry.offset : entry.end] for entry in parsed.entries}


def memory_is_the_same(case: Case) -> None:
    """Where the old file has content, the new one has the same, but for what has to differ."""
    old, new = (elf.parse(read_from(data), len(data)) for data in (case.old, case.new))
    one, two = image(case.old, old), image(case.new, new)
    tables = moved_tables(case, old, new)
    moved = {table.addr: address for table, address in tables}
    places = [hosts.contents(data, case.layout) for data in (case.old, case.new)]
    starts = {before: after for (before, _), (after, _) in zip(*places, strict=True)}
    ranges = [(address, address + len(each)) for address, each in places[0]]
    ranges += [(table.addr, table.addr + table.size) for table, _ in tables]
    base = old.loads[0].vaddr - old.loads[0].offset
    ranges.append((base, base + new.phoff + len(new.program_headers) * elf.PROGRAM_HEADER.size))
    free = {address for start, end in ranges for address in range(start // 8 * 8, end, 8)}
    for address in sorted(one.keys() - free):
        if one[address] == two.get(address):
            continue
        before, after = (int.from_bytes(words[address], "little") for words in (one, two))
        assert after in (starts.get(before), moved.get(before)), f"{address:#x}: {before:#x} to {after:#x}"
    for table, address in tables:
        offset = elf.file_offset(new, address, table.size)
        assert offset is not None
        assert case.old[table.offset : table.end] == case.new[offset : offset + table.size], table.name
        assert address % max(table.align, 1) == 0


def moved_tables(case: Case, old: elf.Elf, new: elf.Elf) -> list[tuple[elf.Section, int]]:
    """The old sections that have another address now, and that; without section headers, those of a file with them."""
    if old.sections:
        pairs = zip(old.sections, new.sections, strict=True)
        return [(one, two.addr) for one, two in pairs if one.addr != two.addr and one.size]
    folder = case.before.with_name("with section headers")
    folder.mkdir()
    data = hosts.build(dataclasses.replace(case.layout, edit=None), folder).read_bytes()
    sections = {s.addr: s for s in elf.parse(read_from(data), len(data)).sections if s.size and s.allocated}
    places = []
    for content, parsed in ((case.old, old), (case.new, new)):
        tags = [entry.value for entry in dynamic_entries(read_from(content), parsed)]
        places.append(tags + [p.vaddr for p in parsed.program_headers if p.type != elf.PT_LOAD])
    return [(sections[one], two) for one, two in zip(*places, strict=True) if one != two]


def image(data: bytes, parsed: elf.Elf) -> dict[int, bytes]:
    """The memory's content as 8-byte words by address."""
    words = {}
    for load in parsed.loads:
        for address in range(load.vaddr // 8 * 8, load.vaddr + load.filesz, 8):
            start = address - load.vaddr + load.offset
            words[address] = data[max(start, load.offset) : min(start + 8, load.offset + load.filesz)]
    return words


@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if layout.refusal is not None])
def test_refused(name: str, target_name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    data = hosts.build(layout, tmp_path).read_bytes()
    assert hosts.run(tmp_path / "libgpu.so", layout) == hosts.expected(data, layout)
    with pytest.raises(CannotShrink, match=str(layout.refusal)):
        shrink_gpu_code(read_from(data), len(data), TARGETS[target_name][0])


class TestLittleRoom:
    """Files in which what is freed and what is needed for headers come close to each other."""

    def _works(self, tmp_path: Path, layout: Layout, fatbins: list[bytes]) -> bool:
        """Whether it could be shrunk; if so it works."""
        path = hosts.build(layout, tmp_path, fatbins)
        data = path.read_bytes()
        try:
            new = shrink(data, Target((90,)))
        except CannotShrink as error:
            assert NOTHING in str(error) or "no room" in str(error)  # noqa: PT017
            return False
        check_shrunk(read_from(data), len(data), read_from(new), len(new), Target((90,)))
        before = cuda.elflint(path)
        path.write_bytes(new)
        assert hosts.run(path, layout) == hosts.expected(new, layout)
        assert not cuda.elflint(path) - before
        return True

    @pytest.mark.parametrize("unneeded", [3000, 3800, 4096, 4500, 5500, 6500, 8200, 9000, 12400])
    @pytest.mark.parametrize("name", ["library", "program", "code and data in one segment", "lld"])
    def test_about_a_page(self, tmp_path: Path, name: str, unneeded: int) -> None:
        fatbins = [fatbin(sm(90), sm(80, size=unneeded)), fatbin(sm(90))]
        assert self._works(tmp_path, LAYOUTS[name], fatbins) or unneeded < 8192 + 4096

    @pytest.mark.parametrize("relocatable", [{0}, {1}])
    def test_one_section_frees_all(self, tmp_path: Path, relocatable: set[int]) -> None:
        """Of two sections of fatbins, one is to have room for headers, whichever it is."""
        layout = Layout(relocatable=frozenset(relocatable))
        fatbins = [fatbin(sm(90), compute(90)), fatbin(sm(70, size=60_000), sm(90))]
        assert self._works(tmp_path, layout, fatbins)

    def test_single_small_fatbin(self, tmp_path: Path) -> None:
        assert not self._works(tmp_path, Layout(), [fatbin(sm(80, size=600), sm(90, size=600))])


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 6, 7])  # 5 has an entry that is neither a cubin nor PTX
def test_cuobjdump_lists_the_fixtures(tmp_path: Path, number: int) -> None:
    """The fatbins of these tests are such that NVIDIA's own tool reads them."""
    data = assorted()[number]
    (tmp_path / "x.fatbin").write_bytes(data)
    kinds = {CUBIN: "elf", PTX: "ptx"}
    entries = [e for e in parse_fatbin(read_from(data), 0, len(data)).entries if e.kind in kinds]
    expected = Counter((kinds[entry.kind], f"sm_{entry.sm}") for entry in entries)
    assert cuda.cuobjdump_list(tmp_path / "x.fatbin") == expected
