"""The account of real libraries' GPU code, against NVIDIA's own list of it."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from deadweight.binary import elf
from deadweight.binary.gpu_code import breakdown
from deadweight.image.bytes import ByteRange
from support import cuda

pytestmark = pytest.mark.xdist_group("CUDA libraries")


@pytest.mark.parametrize("library", ["curand/lib/libcurand.so.10", "nccl/lib/libnccl.so.2"])
def test_entries_are_those_that_cuobjdump_lists(library: str) -> None:
    path = cuda.package_file(library)
    with path.open("rb") as file:
        source = ByteRange(file.fileno(), 0, path.stat().st_size)
        found = breakdown(source.read_at, source.size)
        sections = {each.name: each.size for each in elf.parse(source.read_at, source.size).sections}
    assert sum(found.bytes.values()) == source.size
    code = [each for each in found.gpu_code if each.where == "fatbins"]
    tables = sections[".nvFatBinSegment"]
    assert sum(each.bytes for each in code) == tables + sections[".nv_fatbin"] + sections.get("__nv_relfatbin", 0)
    assert {each.label: each.bytes for each in code}["tables"] == tables
    if "__nv_relfatbin" in sections:  # which cuobjdump does not read
        return
    ours: Counter[tuple[str, str]] = Counter()
    for each in code:
        if match := re.fullmatch(r"(sm|compute)_(\d+a?)f?", each.label):
            ours["elf" if match[1] == "sm" else "ptx", f"sm_{match[2]}"] += each.entries
    assert ours == cuda.cuobjdump_list(path)
