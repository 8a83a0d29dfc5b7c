"""Reads fatbins, NVIDIA's containers of GPU code for several GPUs, as compilers embed them in host files.

A fatbin is a 16-byte header and its entries; an entry is a header and a payload: a cubin (machine code for one
architecture), PTX (code that the driver compiles), or LTO-IR. The format is not published; what is here was measured
over the libraries of CUDA 11 to 13 and agrees with what NVIDIA's cuobjdump lists.

Fatbins are hostile input: every length is checked against what surrounds it, and `FatbinError` says what does not fit.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from deadweight.binary.elf import ElfError, exactly
from deadweight.image.content import Reader

MAGIC: Final = 0xBA55ED50
MAGIC_BYTES: Final = struct.pack("<IHH", MAGIC, 1, 16)
"""How every fatbin begins: magic, version and header size."""
HEADER: Final = struct.Struct("<IHHQ")
"""Magic, version, size of this header, and the bytes of the entries that follow."""
ENTRY: Final = struct.Struct("<HHIQIIHHIIIQQQ")
"""An entry's header up to byte 64; `Entry` names the fields. More follows in some: names, options."""
WRAPPER: Final = struct.Struct("<IIQQ")
"""What the CUDA runtime registers: magic, version, the fatbin's address, and a pointer of version 2."""
WRAPPER_MAGIC: Final = 0x466243B1

PTX, CUBIN, LTO_IR = 1, 2, 8
FLAG_LZ4, FLAG_ZSTD, FLAG_A, FLAG_F = 0x2000, 0x8000, 0x100000, 0x200000

MAX_ENTRIES: Final = 4096
"""Of one fatbin; the most that was seen are some 30."""
MAX_FATBINS: Final = 1 << 18
"""Of one section; the most that was seen are 23,531."""
MAX_SECTION_ENTRIES: Final = 1 << 18
"""Of all fatbins of one section, which take some 250 bytes of memory each; the most that was seen are some 10,000."""
_ZERO_BLOCK: Final = 1 << 16


class FatbinError(ValueError):
    """The bytes are no fatbin that this module reads; the message is the reason, in one line."""


class Entry(NamedTuple):
    """One piece of GPU code. `offset` is that of its header, wherever the reader counts from; sizes are bytes."""

    offset: int
    kind: int
    sm: int
    """The compute capability times ten: 90 is 9.0."""
    flags: int
    header_size: int
    payload_size: int
    """With padding: the next entry begins behind it."""
    compressed_size: int
    """0: the payload is not compressed."""
    full_size: int
    """Of the payload once it is decompressed; 0 in some entries that are not compressed."""

    @property
    def length(self) -> int:
        """Header and payload."""
        return self.header_size + self.payload_size

    @property
    def payload(self) -> int:
        """Where the payload begins."""
        return self.offset + self.header_size

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def variant(self) -> str:
        """ "a" for code that runs on exactly its architecture, "f" on its family, "" on later minors as well."""
        return "a" if self.flags & FLAG_A else "f" if self.flags & FLAG_F else ""

    @property
    def compression(self) -> str | None:
        """ "lz4" (a bare block), "zstd" (a frame), or None."""
        if not self.compressed_size:
            return None
        return "zstd" if self.flags & FLAG_ZSTD else "lz4" if self.flags & FLAG_LZ4 else None

    @property
    def label(self) -> str:
        """What it is, in NVIDIA's words: sm_90a, compute_90 (PTX), lto_90."""
        word = {CUBIN: "sm", PTX: "compute", LTO_IR: "lto"}.get(self.kind, f"kind{self.kind}")
        return f"{word}_{self.sm}{self.variant}"


class Fatbin(NamedTuple):
    """One fatbin; `offset` as in `Entry`, `size` with its header."""

    offset: int
    size: int
    entries: tuple[Entry, ...]

    @property
    def end(self) -> int:
        return self.offset + self.size


def parse_fatbin(read: Reader, offset: int, end: int) -> Fatbin:
    """The fatbin at `offset`, which must lie before `end`. FatbinError where it does not add up to the byte."""
    if end - offset < HEADER.size:
        raise FatbinError("a fatbin's header is cut off")
    magic, version, header_size, size = HEADER.unpack(_exactly(read, offset, HEADER.size))
    if magic != MAGIC:
        raise FatbinError("no fatbin where one should begin")
    if version != 1 or header_size != HEADER.size:
        raise FatbinError(f"a fatbin of the unknown version {version}")
    at, stop = offset + HEADER.size, offset + HEADER.size + size
    if stop > end:
        raise FatbinError("a fatbin reaches beyond its section")
    entries: list[Entry] = []
    while at < stop:
        if len(entries) == MAX_ENTRIES:
            raise FatbinError(f"a fatbin of more than {MAX_ENTRIES:,} entries")
        entry = _parse_entry(read, at, stop)
        entries.append(entry)
        at = entry.end
    return Fatbin(offset, stop - offset, tuple(entries))


def _parse_entry(read: Reader, at: int, stop: int) -> Entry:
    if stop - at < ENTRY.size:
        raise FatbinError("an entry's header is cut off")
    kind, mark, header_size, payload_size, compressed, _, _, _, sm, _, _, flags, _, full = ENTRY.unpack(
        _exactly(read, at, ENTRY.size)
    )
    if mark != 0x101:
        raise FatbinError(f"an entry of the unknown version {mark:#x}")
    if header_size < ENTRY.size or header_size % 8 or payload_size % 8:
        raise FatbinError("an entry of an odd size")
    if header_size + payload_size > stop - at:
        raise FatbinError("an entry reaches beyond its fatbin")
    if compressed > payload_size:
        raise FatbinError("an entry whose compressed content is larger than its payload")
    return Entry(at, kind, sm, flags, header_size, payload_size, compressed, full)


def parse_section(read: Reader, offset: int, size: int) -> list[Fatbin]:
    """All fatbins of a section that holds nothing else but zeros between them. FatbinError where it holds more."""
    fatbins: list[Fatbin] = []
    entries = 0
    at, end = offset, offset + size
    while (at := _behind_zeros(read, at, end)) < end:
        if len(fatbins) == MAX_FATBINS:
            raise FatbinError(f"more than {MAX_FATBINS:,} fatbins")
        fatbin = parse_fatbin(read, at, end)
        entries += len(fatbin.entries)
        if entries > MAX_SECTION_ENTRIES:
            raise FatbinError(f"fatbins of more than {MAX_SECTION_ENTRIES:,} entries together")
        fatbins.append(fatbin)
        at = fatbin.end
    return fatbins


def _behind_zeros(read: Reader, at: int, end: int) -> int:
    """Where the next word of 8 bytes, counted from `at`, is that is not zero; `end` where there is none."""
    length = HEADER.size  # mostly a fatbin follows at once
    while at < end:
        block = _exactly(read, at, min(length, end - at))
        zeros = len(block) - len(block.lstrip(b"\0"))
        if zeros < len(block):
            return at + zeros - zeros % 8
        at += len(block)
        length = _ZERO_BLOCK
    return end


def _exactly(read: Reader, offset: int, length: int) -> bytes:
    try:
        return exactly(read, offset, length)
    except ElfError as error:
        raise FatbinError(str(error)) from None
