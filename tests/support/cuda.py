"""Judges of shrunk files that are not ours: NVIDIA's cuobjdump and nvJitLink, elfutils, pyelftools, the dynamic loader.

`scripts/setup.sh test` puts NVIDIA's into .venv-oracles, with two real libraries to shrink: curand and nccl.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

ORACLES: Final = Path(__file__).parents[2] / ".venv-oracles"


def oracle(pattern: str) -> Path:
    """A file of .venv-oracles, by a pattern below it. Fails the test where it is missing: nothing else can judge."""
    found = sorted(ORACLES.glob(pattern))
    if not found:
        pytest.fail(f"no {pattern} in {ORACLES}: run scripts/setup.sh test")
    return found[0]


def package_file(pattern: str) -> Path:
    """A file of one of NVIDIA's packages, by a pattern below their common folder."""
    return oracle(f"lib/python3*/site-packages/nvidia/{pattern}")


def run(*command: str | Path) -> str:
    """A command's output. Its errors are shown when it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


def cuobjdump_list(path: Path) -> Counter[tuple[str, str]]:
    """How many entries of each kind and architecture NVIDIA's own tool finds: ("elf" or "ptx", "sm_90a").

    It reads `.nv_fatbin` alone, and prints `f` variants without their letter.
    """
    text = run(package_file("*/bin/cuobjdump"), "-lelf", "-lptx", path)
    lines = re.findall(r"^(ELF|PTX) file +\d+: .*?\.(sm_\d+[af]?)\.\w+$", text, re.MULTILINE)
    assert len(lines) == text.count(" file "), text[-3000:]
    return Counter((kind.lower(), architecture) for kind, architecture in lines)


def cuobjdump_extract(path: Path, what: str, folder: Path) -> Counter[str]:
    """The digests of what NVIDIA's own tool extracts and decompresses: cubins of just "sm_90", say, or all "ptx"."""
    options = ["-xptx", "all"] if what == "ptx" else ["-arch", what, "-xelf", "all"]
    with tempfile.TemporaryDirectory(dir=folder) as name:
        command = [str(package_file("*/bin/cuobjdump")), *options, str(path)]
        done = subprocess.run(command, cwd=name, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or "file found to extract" in done.stderr, done.stderr
        return Counter(hashlib.sha256(made.read_bytes()).hexdigest() for made in Path(name).iterdir())


# --- nvJitLink -----------------------------------------------------------------------------------------

_NVJITLINK: Final = r"""
import ctypes, hashlib, json, re, sys
library = ctypes.CDLL(sys.argv[1])
with open(sys.argv[1], "rb") as file:
    version = max(re.findall(rb"__nvJitLinkCreate_(\d+_\d+)\0", file.read()), key=lambda v: [*map(int, v.split(b"_"))])

def call(name, *arguments):
    return getattr(library, f"__nvJitLink{name}_{version.decode()}")(*arguments)

def text(handle):
    length = ctypes.c_size_t()
    call("GetErrorLogSize", handle, ctypes.byref(length))
    log = ctypes.create_string_buffer(length.value + 1)
    call("GetErrorLog", handle, log)
    return log.value.decode(errors="replace")

def link(architecture, inputs):
    FATBIN = 4  # nvJitLinkInputType
    handle, length = ctypes.c_void_p(), ctypes.c_size_t()
    options = (ctypes.c_char_p * 1)(f"-arch={architecture}".encode())
    if code := call("Create", ctypes.byref(handle), 1, options):
        return ["error", code, "create"]
    try:
        for number, data in enumerate(inputs):
            name = f"fatbin {number}".encode()
            if code := call("AddData", handle, FATBIN, data, ctypes.c_size_t(len(data)), name):
                return ["error", code, text(handle)]
        if code := call("Complete", handle):
            return ["error", code, text(handle)]
        call("GetLinkedCubinSize", handle, ctypes.byref(length))
        cubin = ctypes.create_string_buffer(length.value)
        call("GetLinkedCubin", handle, cubin)
        return ["cubin", hashlib.sha256(cubin.raw).hexdigest()]
    finally:
        call("Destroy", ctypes.byref(handle))

for line in sys.stdin:
    path, architecture, places = json.loads(line)
    with open(path, "rb") as file:
        inputs = [file.seek(offset) and file.read(size) for offset, size in places]
    print(json.dumps(link(architecture, inputs)), flush=True)
"""


class Link(NamedTuple):
    """What to link: fatbins of one file, for one architecture ("sm_90")."""

    path: Path
    architecture: str
    places: Sequence[tuple[int, int]]
    """Offset and size of each."""


def nvjitlink(jobs: Iterable[Link]) -> list[tuple[str | int, ...]]:
    """What NVIDIA's linker makes of each job: ("cubin", its digest) or ("error", its code, its log).

    In a process of its own: it is not made for hostile input.
    """
    lines = "".join(json.dumps([str(job.path), job.architecture, job.places]) + "\n" for job in jobs)
    command = [sys.executable, "-I", "-c", _NVJITLINK, str(package_file("nvjitlink/lib/libnvJitLink.so.*"))]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


# --- ELF -----------------------------------------------------------------------------------------------


def elflint(path: Path) -> Counter[str]:
    """What eu-elflint finds wrong with a file, without the numbers that say where."""
    done = subprocess.run(["eu-elflint", "--gnu-ld", path], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).replace(str(path), "FILE").splitlines()
    return Counter(re.sub(r"\[ *\d+\]|0x[0-9a-f]+|\d+", "N", line) for line in lines if line != "No errors")


def readelf_warnings(path: Path) -> Counter[str]:
    """What binutils' readelf warns of, without the numbers that say where."""
    options = ["--file-header", "--segments", "--sections", "--dynamic", "--relocs", "--dyn-syms", "--version-info"]
    done = subprocess.run(["readelf", "-W", *options, "--notes", path], capture_output=True, text=True, check=True)
    lines = done.stderr.replace(str(path), "FILE").splitlines()
    return Counter(re.sub(r"0x[0-9a-f]+|\d+", "N", line) for line in lines)


def pyelftools(path: Path) -> dict[str, object]:
    """What pyelftools reads of a file: what shrinking must not change."""
    with path.open("rb") as file:
        elf = ELFFile(file)
        found: dict[str, object] = {"entry": elf["e_entry"], "type": elf["e_type"]}
        for section in elf.iter_sections():
            if isinstance(section, RelocationSection):
                places = sorted((r["r_offset"], r["r_info"]) for r in section.iter_relocations())
                found[section.name] = _digest(places)
            elif isinstance(section, DynamicSection):
                tags = [(tag.entry.d_tag, getattr(tag, "needed", "")) for tag in section.iter_tags()]
                found[section.name] = tags
            elif isinstance(section, SymbolTableSection) and section.name == ".dynsym":
                found[section.name] = _digest([(s.name, s["st_value"], s["st_shndx"]) for s in section.iter_symbols()])
        for segment in elf.iter_segments():
            if segment["p_type"] == "PT_LOAD":
                assert (segment["p_offset"] - segment["p_vaddr"]) % segment["p_align"] == 0
                assert segment["p_filesz"] <= segment["p_memsz"]
    return found


def _digest(values: object) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()


# --- loading -------------------------------------------------------------------------------------------


def unresolved(path: Path) -> list[str]:
    """The libraries that the dynamic loader does not find for a file."""
    done = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
    return sorted(line.split()[0] for line in done.stdout.splitlines() if "not found" in line)


_DLOPEN: Final = """
import ctypes, sys, time
start = time.perf_counter()
library = ctypes.CDLL(sys.argv[1])
print(time.perf_counter() - start, flush=True)
import os
os._exit(0)
"""


def dlopen_seconds(path: Path) -> float:
    """How long a fresh process takes to load a library."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _DLOPEN, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.defpath},
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"
    return float(done.stdout)
