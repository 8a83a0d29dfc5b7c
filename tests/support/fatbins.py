"""Fatbins as bytes, with entries of every kind, compression and header that compilers write.

`support.hosts` embeds them into programs and libraries. The cubins are ELF files that NVIDIA's cuobjdump lists; what
they hold where a kernel would be is noise, so that nothing compresses that should not.
"""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterable
from typing import Final, Literal

import lz4.block
from backports import zstd

from deadweight.binary import fatbin as format_

Compression = Literal["", "lz4", "zstd"]

HOST_FLAGS: Final = 0x11
"""What every entry for Linux on 64 bits has in its flags."""
BLACKWELL_FLAG: Final = 0x1000000
LTO_FLAG: Final = 0x10000
OTHER_KIND: Final = 0x10
"""Of entries that no GPU runs, and nobody documents."""
OPTIONS: Final = "-maxrregcount=128 --compile-only  "
_VARIANTS: Final = {"": 0, "a": format_.FLAG_A, "f": format_.FLAG_F}
_COMPRESSIONS: Final = {"": 0, "lz4": format_.FLAG_LZ4, "zstd": format_.FLAG_ZSTD}
_HEADERS = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")


def fatbin(*entries: bytes) -> bytes:
    """A fatbin of entries, a multiple of 8 bytes long."""
    body = b"".join(entries)
    return format_.HEADER.pack(format_.MAGIC, 1, format_.HEADER.size, len(body)) + body


def sm(number: int, variant: str = "", *, size: int = 12_000, compress: Compression = "", options: str = "") -> bytes:
    """An entry of machine code: sm(90, "a") is sm_90a. `size` is that of the cubin, in bytes."""
    flags = _VARIANTS[variant] | (BLACKWELL_FLAG if number >= 100 else 0)
    return entry(format_.CUBIN, number, cubin(number, size), flags=flags, compress=compress, options=options)


def compute(
    number: int, variant: str = "", *, size: int = 12_000, compress: Compression = "lz4", options: str = ""
) -> bytes:
    """An entry of PTX, compressed as all of nvcc's are; `size` is that of the text, in bytes."""
    text = ptx(f"{number}{variant}", size)
    return entry(format_.PTX, number, text, flags=_VARIANTS[variant], compress=compress, options=options)


def lto(number: int, *, size: int = 12_000) -> bytes:
    """An entry of LTO-IR: its flags say zstd, its payload is neither zstd nor LZ4, and a reserved word is set."""
    noise = random.Random(number).randbytes(size - size % 8)
    made = bytearray(entry(format_.LTO_IR, number, noise, flags=LTO_FLAG | format_.FLAG_ZSTD, options=" " * 40))
    struct.pack_into("<I", made, 16, len(noise))
    struct.pack_into("<QQ", made, 48, 0x60, 3 * len(noise))
    return bytes(made)


def entry(
    kind: int,
    number: int,
    payload: bytes,
    *,
    flags: int = 0,
    compress: Compression = "",
    options: str = "",
    name: str = "",
) -> bytes:
    """Any entry: a header of 64 bytes and more, with compiler options and the source's name, and a padded payload."""
    stored = payload
    if compress == "lz4":
        stored = lz4.block.compress(payload, store_size=False)
    elif compress == "zstd":
        stored = zstd.compress(payload)
    extra, options_at, name_at = b"", 0, 0
    if options or kind == format_.PTX:  # cuobjdump insists
        options_at = format_.ENTRY.size
        extra += struct.pack("<II", options_at + 8, len(options)) + options.encode() + b"\0"
        extra += bytes(-len(extra) % 8)
    if name:
        name_at = format_.ENTRY.size + len(extra)
        extra += name.encode() + b"\0"
        extra += bytes(-len(extra) % 8)
    padding = bytes(-len(stored) % 8)
    header = format_.ENTRY.pack(
        kind,
        0x101,
        format_.ENTRY.size + len(extra),
        len(stored) + len(padding),
        len(stored) if compress else 0,
        options_at,
        8 if kind == format_.PTX or number >= 100 else 7,
        8 if kind == format_.PTX else 1,
        number,
        name_at,
        len(name),
        HOST_FLAGS | flags | _COMPRESSIONS[compress],
        0,
        len(payload) if compress else 0,
    )
    return header + extra + stored + padding


def cubin(number: int, size: int = 12_000) -> bytes:
    """An ELF file for the GPU of about `size` bytes (304 at least), with one section of noise and no kernel."""
    new = number >= 100
    ident = b"\x7fELF\2\1\1" + (b"\x41\x08" if new else b"\x33\x07") + bytes(7)
    flags = 0x06000002 | number << 8 if new else number << 16 | 0x500 | number
    names = b"\0.shstrtab\0.nv.noise\0".ljust(24, b"\0")
    noise = random.Random(number).randbytes(max(24, size - 64 - len(names) - 3 * _SECTION.size) // 8 * 8)
    sections = _HEADERS.size + len(names) + len(noise)
    header = _HEADERS.pack(ident, 2, 190, 1 if new else 0x81, 0, 0, sections, flags, 64, 56, 0, 64, 3, 1)
    table = bytes(_SECTION.size)
    table += _SECTION.pack(1, 3, 0, 0, _HEADERS.size, len(names), 0, 0, 1, 0)
    table += _SECTION.pack(11, 1, 0, 0, _HEADERS.size + len(names), len(noise), 0, 0, 8, 0)
    return header + names + noise + table


def ptx(target: str, size: int = 12_000) -> bytes:
    """PTX of about `size` bytes that compiles: an empty kernel, and comments that are hardly alike."""
    lines = [".version 8.7", f".target sm_{target}", ".address_size 64", ".visible .entry nothing() { ret; }"]
    chance = random.Random(target)
    while sum(map(len, lines)) < size:
        lines.append(f"// {chance.randbytes(60).hex()}")
    return "\n".join(lines).encode() + b"\n\0"


def assorted(size: int = 12_000) -> list[bytes]:
    """Fatbins as one library may have them, each a case of its own; `size` is about that of each payload.

    For sm_90: 0 keeps one cubin of many, 1 an `a` variant, 2 nothing but PTX for newer GPUs, 3 the PTX that the GPU
    needs, 4 nothing at all, 5 an entry of unknown use, 6 nothing, 7 LTO-IR for newer GPUs too.
    """
    return [
        fatbin(*(sm(number, size=size) for number in (70, 75, 80, 86, 90)), compute(90, size=size)),
        fatbin(
            sm(80, size=size, compress="lz4", options=OPTIONS),
            sm(90, "a", size=size, compress="zstd"),
            sm(100, size=size, compress="zstd", options=OPTIONS),
            sm(120, "f", size=size),
        ),
        fatbin(sm(75, size=size), compute(120, size=size, options=OPTIONS)),
        fatbin(sm(80, size=size), compute(70, size=size, compress="zstd"), compute(80, size=size)),
        fatbin(sm(50, size=size), sm(60, size=size, options="-g")),
        fatbin(
            sm(75, size=size),
            entry(OTHER_KIND, 75, b"of unknown use!!", options=2 * OPTIONS, name="/home/user/kernels/attention.cu"),
            sm(80, size=size),
        ),
        fatbin(*(sm(number, size=size) for number in (80, 86, 87))),
        fatbin(sm(90, size=size), lto(80, size=size), lto(120, size=size)),
    ]


def checksum(fatbins: Iterable[bytes]) -> int:
    """What `gpu_checksum` of a host file returns (see `support.hosts`) whose wrappers point at these, in order."""
    total = 1
    for each in fatbins:
        total = zlib.adler32(each, total)
    return total
