"""Leaves out of a section of fatbins what no declared GPU runs: the rest closes up, in its order.

A fatbin of which nothing is left keeps a tombstone: a machine code entry without a kernel, for a GPU that none of the
declared ones is. Of a fatbin without entries the driver would make another error than it made of the original.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from deadweight.binary import elf
from deadweight.binary.fatbin import CUBIN, ENTRY, FLAG_LZ4, FLAG_ZSTD, HEADER, MAGIC, Entry, Fatbin
from deadweight.binary.gpu import Target, select
from deadweight.image.bytes import ByteRange
from deadweight.image.content import ContentPiece, length_of

_FLAGS: Final = 0x11  # 64-bit, Linux
_FLAG_SM100: Final = 0x1000000  # on all cubins from sm_100 on, whose ELF header differs
_NAMES: Final = b"\0.shstrtab\0".ljust(16, b"\0")


class Moved(NamedTuple):
    """A fatbin's old place, its new place in the section (bytes from the section's start), and its new size."""

    fatbin: Fatbin
    new: int
    size: int


class Compacted(NamedTuple):
    """A section's new content."""

    pieces: tuple[ContentPiece, ...]
    size: int
    """Bytes."""
    fatbins: tuple[Moved, ...]


def compact(fatbins: Sequence[Fatbin], target: Target, smaller: Mapping[int, ByteRange] | None = None) -> Compacted:
    """The fatbins with the entries of the target alone. Pieces name ranges of the file that the fatbins came from.

    `smaller` has other bytes for entries, by their offsets.
    """
    pieces: list[ContentPiece] = []
    moved: list[Moved] = []
    at = 0
    for fatbin in fatbins:
        body = _body(fatbin, target, smaller or {})
        size = sum(map(length_of, body))
        moved.append(Moved(fatbin, at, HEADER.size + size))
        pieces += [HEADER.pack(MAGIC, 1, HEADER.size, size), *body]
        at += HEADER.size + size
    return Compacted(tuple(pieces), at, tuple(moved))


def _body(fatbin: Fatbin, target: Target, smaller: Mapping[int, ByteRange]) -> list[ContentPiece]:
    keep = select(fatbin.entries, target)
    kept = [entry for i, entry in enumerate(fatbin.entries) if i in keep]
    if not kept and fatbin.entries:
        stone = tombstone(fatbin.entries)
        smallest = min(fatbin.entries, key=lambda entry: entry.length)
        if smallest.length > len(stone):
            return [stone]
        kept = [smallest]
    return [smaller.get(entry.offset) or (entry.offset, entry.length) for entry in kept]


def tombstone(entries: Sequence[Entry]) -> bytes:
    """An entry for a GPU that one of these is for, with a cubin that has no code.

    A cubin's architecture is in its ELF header too: in the low byte of e_flags, or from sm_100 on in the second.
    """
    # A cubin that no declared GPU runs, or else PTX that is too new for them: the newest.
    model = max(entries, key=lambda entry: (entry.kind == CUBIN, -entry.length if entry.kind == CUBIN else entry.sm))
    recent = model.sm >= 100
    if recent:
        ident, version, flags, abi = bytes((0x41, 8)), 1, 0x06000002 | model.sm << 8, (1, 8)
    else:
        ident, version, flags, abi = bytes((0x33, 7)), 0x80, model.sm | 0x500 | model.sm << 16, (1, 7)
    sections = elf.HEADER.size + len(_NAMES)
    cubin = elf.HEADER.pack(
        (b"\x7fELF\x02\x01\x01" + ident).ljust(16, b"\0"),
        *(elf.ET_EXEC, elf.EM_CUDA, version, 0, 0, sections, flags),
        *(elf.HEADER.size, 0, 0, elf.SECTION_HEADER.size, 2, 1),
    )
    names = elf.SECTION_HEADER.pack(1, elf.SHT_STRTAB, 0, 0, elf.HEADER.size, len(_NAMES), 0, 0, 1, 0)
    cubin += _NAMES + bytes(elf.SECTION_HEADER.size) + names
    kept_flags = model.flags & ~(FLAG_LZ4 | FLAG_ZSTD) if model.kind == CUBIN else _FLAGS
    kept_flags |= _FLAG_SM100 if recent else 0
    return _entry(model.sm, kept_flags, abi, len(cubin)) + cubin


def _entry(sm: int, flags: int, abi: tuple[int, int], size: int) -> bytes:
    major, minor = abi
    return ENTRY.pack(CUBIN, 0x101, ENTRY.size, size, 0, 0, minor, major, sm, 0, 0, flags, 0, 0)
