"""Compresses GPU code harder: LZ4 at its highest level, in the format that every CUDA driver reads.

Compilers use LZ4's fastest level, or none. What is written is decoded again and compared first. LTO-IR is never
touched: its payload is neither plain LZ4 nor zstd. The result depends on the encoder's version, so plans name it.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import lz4
import lz4.block

from deadweight.binary.elf import exactly
from deadweight.binary.fatbin import CUBIN, ENTRY, FLAG_LZ4, FLAG_ZSTD, PTX, Entry
from deadweight.image.bytes import ByteRange
from deadweight.image.content import Reader

LEVEL: Final = 12
"""The highest of LZ4-HC; decoding is as fast as ever."""
MAX_SIZE: Final = 128 << 20
"""Bytes of an entry's content that are still compressed anew; more stays as it is. NCCL has entries about as large."""
MAX_TOTAL: Final = 16
"""How many times larger than all entries their contents together may be: single ones of compilers reach 70."""
_LARGE: Final = 16 << 20  # bytes of content from which on an entry is worked on alone: it takes three times as much
_LZ4_RATIO: Final = 255  # there is no more in the format
_WORKERS: Final = 2
_AHEAD: Final = 2 * _WORKERS  # entries that are worked on or wait to be written


def encoder() -> str:
    """Which encoder makes the bytes."""
    return f"lz4 {lz4.library_version_string()} level {LEVEL}"


class _Spool:
    """A temporary file without a name, which is there as long as this is."""

    def __init__(self) -> None:
        self.fd, path = tempfile.mkstemp(prefix="deadweight-")
        Path(path).unlink()
        weakref.finalize(self, os.close, self.fd)


class _Aside(ByteRange):
    """A range of a temporary file, which is there as long as a range of it is."""

    __slots__ = ("_file",)

    def __init__(self, file: _Spool, start: int, size: int) -> None:
        super().__init__(file.fd, start, size)
        self._file = file

    def window(self, offset: int, length: int) -> ByteRange:
        part = super().window(offset, length)
        return _Aside(self._file, part.start, part.size)


def recompress(read: Reader, entries: Iterable[Entry]) -> dict[int, ByteRange]:
    """The entries that become smaller, by their offset: header and payload, in a temporary file."""
    file: _Spool | None = None
    found: dict[int, ByteRange] = {}
    end = 0
    with ThreadPoolExecutor(_WORKERS) as pool:
        for entry, new in _all_smaller(pool, read, _affordable(entries)):
            if new is not None:
                file = file or _Spool()
                os.pwrite(file.fd, new, end)
                found[entry.offset] = _Aside(file, end, len(new))
                end += len(new)
    return found


def _affordable(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The first of the entries, until what is in them is far too much for their size."""
    stored, content = _LARGE, 0
    for entry in entries:
        stored += entry.payload_size
        content += max(entry.payload_size, entry.full_size)
        if content > MAX_TOTAL * stored:
            return
        yield entry


def _all_smaller(
    pool: ThreadPoolExecutor, read: Reader, entries: Iterable[Entry]
) -> Iterator[tuple[Entry, bytes | None]]:
    """Every entry, in order, with what `smaller` makes of it; few are in memory at a time."""
    waiting: deque[tuple[Entry, Future[bytes | None]]] = deque()
    for entry in entries:
        large = max(entry.payload_size, entry.full_size) > _LARGE
        while waiting and (large or len(waiting) == _AHEAD):
            first, future = waiting.popleft()
            yield first, future.result()
        if large:
            yield entry, smaller(read, entry)
        else:
            waiting.append((entry, pool.submit(smaller, read, entry)))
    for last, future in waiting:
        yield last, future.result()


def smaller(read: Reader, entry: Entry) -> bytes | None:
    """An entry with its payload compressed harder; None where that cannot be done or gains nothing."""
    if entry.kind not in (CUBIN, PTX) or entry.flags & FLAG_ZSTD or max(entry.payload_size, entry.full_size) > MAX_SIZE:
        return None
    header = bytearray(exactly(read, entry.offset, entry.header_size))
    content = plain(entry, exactly(read, entry.payload, entry.payload_size))
    if not content:
        return None
    packed: bytes = lz4.block.compress(content, mode="high_compression", compression=LEVEL, store_size=False)
    padded = packed.ljust(-(-len(packed) // 8) * 8, b"\0")
    if len(padded) >= entry.payload_size or lz4.block.decompress(packed, uncompressed_size=len(content)) != content:
        return None
    fields = list(ENTRY.unpack_from(header))
    fields[3:5] = len(padded), len(packed)
    fields[11] |= FLAG_LZ4
    fields[13] = len(content)
    ENTRY.pack_into(header, 0, *fields)
    return bytes(header) + padded


def plain(entry: Entry, payload: bytes) -> bytes | None:
    """What is in a payload, decompressed; None for formats that are not known, for damage, and for too much of it."""
    if entry.compression is None:
        if entry.compressed_size or entry.flags & (FLAG_LZ4 | FLAG_ZSTD):
            return None
        return payload
    if entry.compression != "lz4" or not 0 < entry.full_size <= min(MAX_SIZE, _LZ4_RATIO * entry.compressed_size):
        return None
    try:
        content: bytes = lz4.block.decompress(payload[: entry.compressed_size], uncompressed_size=entry.full_size)
    except lz4.block.LZ4BlockError:
        return None
    return content if len(content) == entry.full_size else None
