"""Says what the bytes of a file are, and of its GPU code, every byte by architecture and by where it lies.

GPU code is in sections of its own, in the data of libraries that pick from it themselves (see blobs.py), or is the
whole file. Damaged and hostile files are never an error here: what cannot be taken apart is counted whole.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from deadweight.binary import elf as elf_format
from deadweight.binary.blobs import architecture, find_blobs, find_fatbins
from deadweight.binary.dynamic import dynamic
from deadweight.binary.elf import GPU_MACHINES, GPU_SECTIONS, SHT_PROGBITS, Elf, ElfError, Label, Part, Section
from deadweight.binary.fatbin import CUBIN, MAGIC_BYTES, Entry, Fatbin, FatbinError, parse_section
from deadweight.binary.shrink import SECTIONS
from deadweight.image.content import Reader

Where = Literal["fatbins", "data", "file"]
"""Where GPU code lies: among the fatbins that shrink.py works on, in other data, or in a file of GPU code alone."""

HEADERS: Final = "headers"
"""Label of what fatbins have around their entries: headers, and padding between."""
TABLES: Final = "tables"
"""Label of what points at fatbins, for the CUDA or HIP runtime to register."""
AMD: Final = "amd"
"""Label of code for AMD's GPUs, which is not taken apart."""
UNREAD: Final = "unread"
"""Label of what does not parse."""

_EM_AMDGPU: Final = 224
_AMD_SECTIONS: Final = frozenset({".hip_fatbin", ".hipFatBinSegment"})
_SIGNS: Final = GPU_SECTIONS | {".cask_resource"}
_CUDA_LIBRARY: Final = re.compile(
    r"lib(cuda|cudart|cublas|cudnn|cufft|curand|cusolver|cusparse|cupti|cutensor|nccl"
    r"|nv(rtc|infer|jpeg|JitLink|perf|shmem))"
)
"""How names of NVIDIA's libraries begin."""
_UNWINDING: Final = frozenset({".eh_frame", ".eh_frame_hdr", ".gcc_except_table"})
_PTX_TARGET: Final = re.compile(rb"^[ \t]*\.target[ \t]+sm_(\d+[af]?)", re.MULTILINE)
_HEAD: Final = 64 << 10  # bytes of a text in which its .target must be


class GpuCode(msgspec.Struct, frozen=True, gc=False):
    """Some GPU code of a file."""

    label: str
    """As `Entry.label` (sm_90a; compute_80 for PTX; lto_50), or `headers`, `tables`, `amd`, `unread`."""
    where: Where
    bytes: int
    entries: int
    """How many pieces of code; 0 for what is not taken apart."""
    reason: str = ""
    """Why it is unread."""

    @property
    def out_of_reach(self) -> str:
        """Why it does not leave where a GPU is declared: `data`, `file`, `amd` or `unread`.

        Empty where it does, unless its file is refused as a whole.
        """
        if self.label in (AMD, UNREAD):
            return self.label
        return "" if self.where == "fatbins" else self.where


class Breakdown(msgspec.Struct, frozen=True):
    """A file's bytes by what they are."""

    bytes: dict[Label, int]
    """They add up to the file's size."""
    gpu_code: tuple[GpuCode, ...]
    """Adds up to the bytes of "gpu code"; the largest first."""


class _What(NamedTuple):
    """What some bytes are; all but the first field is about GPU code."""

    label: Label
    code: str = ""
    where: Where = "file"
    reason: str = ""


class _Piece(NamedTuple):
    """A range of the file; pieces rise and leave no gap."""

    start: int
    end: int
    what: _What
    is_entry: bool = False


def breakdown(read: Reader, size: int) -> Breakdown:
    """What the bytes of an ELF file of `size` bytes are; all is "data" in a file that cannot be parsed.

    "data" is everything that is nothing else, with headers and gaps. Where sections overlap, the first in the file has
    the bytes. Without section headers, executable segments count as code. A file of a GPU machine is "gpu code" as a
    whole, but for its symbols.

    The data of a library is searched for GPU code only where something speaks for it, since searching means reading:
    sections of GPU code or `.cask_resource`, or one of NVIDIA's CUDA libraries as the library itself (DT_SONAME) or
    among those it needs (DT_NEEDED). So a little is missed, and counts as data: what a library without any of these
    carries (CUPTI's libcheckpoint: 0.2 MB), and what is compressed in another way. In a file without section headers,
    fatbins are found wherever they lie, and nothing else.
    """
    try:
        elf = elf_format.parse(read, size)
    except ElfError as error:
        return _sums([_Piece(0, size, _damaged(read, str(error)))])
    whole = _whole(read, elf) if elf.machine in GPU_MACHINES else None
    pieces = _pieces(read, elf, whole)
    return _sums([*pieces, _Piece(size, size, whole, True)] if whole else pieces)


def gpu_file(read: Reader, size: int) -> tuple[GpuCode, ...]:
    """The GPU code of a file whose name says that it is nothing else, and which is not ELF: fatbins, or PTX as text.

    Adds up to `size`.
    """
    head = read(0, min(_HEAD, size))
    if head.startswith(MAGIC_BYTES):
        return _sums(_section(read, Part(0, size, "gpu code", None), "file")).gpu_code
    target = _PTX_TARGET.search(head)
    if target is None:
        what = _What("gpu code", UNREAD, "file", "neither a cubin nor a fatbin nor PTX")
    else:
        what = _What("gpu code", f"compute_{target[1].decode()}", "file")
    return _sums([_Piece(0, size, what, target is not None)]).gpu_code


def _sums(pieces: Iterable[_Piece]) -> Breakdown:
    sizes: Counter[_What] = Counter()
    entries: Counter[_What] = Counter()
    for piece in pieces:
        sizes[piece.what] += piece.end - piece.start
        entries[piece.what] += piece.is_entry
    total: dict[Label, int] = {"host code": 0, "gpu code": 0, "symbols": 0, "data": 0}
    for what, size in sizes.items():
        total[what.label] += size
    code = [
        GpuCode(what.code, what.where, size, entries[what], what.reason)
        for what, size in sizes.items()
        if size and what.label == "gpu code"
    ]
    return Breakdown(total, tuple(sorted(code, key=lambda each: (-each.bytes, each.label, each.where, each.reason))))


def _pieces(read: Reader, elf: Elf, whole: _What | None) -> Iterator[_Piece]:
    """The whole file in pieces; `whole` is what a file of GPU code alone is."""
    gap = whole or _What(elf_format.rest(elf))
    parts = elf_format.parts(elf)
    found = {} if whole else _found(read, elf, parts)
    where: Where = "data" if elf.sections else "fatbins"
    done = 0
    for part in parts:
        if part.end <= done:
            continue
        if part.start > done:
            yield _Piece(done, part.start, gap)
        inside = part._replace(start=max(part.start, done))
        if whole or part.label != "gpu code":
            what = whole if whole and part.label == "gpu code" else _What(part.label)
            yield from _covered(inside, found.get(inside.start, ()), what, where)
        elif inside != part:
            yield _Piece(done, part.end, _What("gpu code", UNREAD, "fatbins", "it overlaps another section"))
        else:
            yield from _gpu_section(read, part)
        done = part.end
    yield _Piece(done, elf.size, gap)


def _gpu_section(read: Reader, part: Part) -> Sequence[_Piece]:
    name = part.section.name if part.section else ""
    if name in SECTIONS:
        return _section(read, part, "fatbins")
    amd = name in _AMD_SECTIONS
    label = AMD if name == ".hip_fatbin" else TABLES
    return [_Piece(part.start, part.end, _What("gpu code", label, "data" if amd else "fatbins"))]


def _section(read: Reader, part: Part, where: Where) -> Sequence[_Piece]:
    """The pieces of a section of fatbins, or of a file like one; a single one if it does not parse."""
    try:
        fatbins = parse_section(read, part.start, part.end - part.start)
        return list(_covered(part, fatbins, _What("gpu code", HEADERS, where), where))
    except FatbinError as error:
        return [_Piece(part.start, part.end, _What("gpu code", UNREAD, where, str(error)))]


def _covered(part: Part, fatbins: Iterable[Fatbin], around: _What, where: Where) -> Iterator[_Piece]:
    """A part in pieces: the fatbins' headers and entries, and what is `around` them.

    FatbinError unless they rise and lie inside of it, so that no byte is counted twice.
    """
    headers = _What("gpu code", HEADERS, where)
    at = part.start
    for fatbin in fatbins:
        if not at <= fatbin.offset <= fatbin.end <= part.end:
            raise FatbinError("fatbins that do not fit into their section")
        if at < fatbin.offset:
            yield _Piece(at, fatbin.offset, around)
        at = fatbin.offset
        for entry in fatbin.entries:
            if at < entry.offset:
                yield _Piece(at, entry.offset, headers)
            at = entry.end
            yield _Piece(entry.offset, at, _What("gpu code", entry.label, where), True)
        if at < fatbin.end:
            yield _Piece(at, fatbin.end, headers)
            at = fatbin.end
    yield _Piece(at, part.end, around)


def _found(read: Reader, elf: Elf, parts: Iterable[Part]) -> dict[int, list[Fatbin]]:
    """GPU code that no section says is there, by where its section begins, or its segment where there are no sections.

    Parts that overlap one before them are left out, so that no byte is searched twice.
    """
    alone: list[Part] = []
    done = 0
    for part in parts:
        if part.start >= done:
            alone.append(part)
        done = max(done, part.end)
    found: dict[int, list[Fatbin]] = {}
    try:
        if not elf.sections:
            found = {part.start: list(find_fatbins(read, part.start, part.end)) for part in alone}
        elif _may_have_blobs(read, elf):
            sections = tuple(part.section for part in alone if part.section and _is_data(part.section))
            for section, blob in find_blobs(read, msgspec.structs.replace(elf, sections=sections), frozenset()):
                found.setdefault(section.offset, []).append(blob)
    except ElfError:  # what only looks like GPU code, or a file shorter than it was said to be: what is found is there
        return found
    return found


def _is_data(section: Section) -> bool:
    """Whether a section may have blobs; what linkers and unwinders read has none, and is a sixth of the rest."""
    return section.type == SHT_PROGBITS and section.name not in GPU_SECTIONS and section.name not in _UNWINDING


def _may_have_blobs(read: Reader, elf: Elf) -> bool:
    """The rule of `breakdown` for which files are searched."""
    if any(section.name in _SIGNS for section in elf.sections):
        return True
    try:
        asks = dynamic(read, elf)
    except ElfError:
        return False
    return any(_CUDA_LIBRARY.match(name) for name in (asks.soname or "", *asks.needed))


def _whole(read: Reader, elf: Elf) -> _What:
    """What a file of GPU code alone is."""
    if elf.machine == _EM_AMDGPU:
        return _What("gpu code", AMD)
    known = architecture(read(0, elf_format.HEADER.size))
    if known is None:
        return _What("gpu code", UNREAD, "file", "a cubin of an unknown kind")
    return _What("gpu code", Entry(0, CUBIN, *known, 0, 0, 0, 0).label)


def _damaged(read: Reader, reason: str) -> _What:
    head = read(0, 20)
    if elf_format.is_elf(head) and int.from_bytes(head[18:20], "little") in GPU_MACHINES:
        return _What("gpu code", UNREAD, "file", reason)
    return _What("data")
