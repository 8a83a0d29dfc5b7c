"""Reads numpy's files, .npy and .npz, without numpy, and says how two arrays differ.

The format is that of NEP 1 and numpy.lib.format, versions 1.0, 2.0 and 3.0: a magic string, the length of a header, the
header as a Python dictionary of literals, then the elements. Files are hostile: lengths are checked before they are
believed, and nothing is unpickled.
"""

from __future__ import annotations

import ast
import io
import lzma
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MAGIC = b"\x93NUMPY"
HEADER_LIMIT = 10_000
"""Bytes of a header that are read, as numpy itself has it."""
DIMENSIONS = 64
MEMBERS = 10_000
_CHUNK = 1 << 16  # bytes that are compared at once before single elements are
_DTYPE = re.compile(r"[<>|](?:b1|[iu][1248]|f[248]|c8|c16|S\d{1,9}|U\d{1,8}|[mM]8(?:\[\w{1,20}\])?)\Z", re.ASCII)
FORMATS = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q",
    "f2": "e", "f4": "f", "f8": "d", "c8": "f", "c16": "d",
}  # fmt: skip
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, RuntimeError, ValueError, OverflowError),
)


class ArrayError(ValueError):
    """A file that holds no array that can be compared; the message says why."""


@dataclass(frozen=True)
class Array:
    """An array: its elements in C order, little-endian."""

    dtype: str
    """As numpy writes it, without the order of bytes: `f4`, `U10`."""
    shape: tuple[int, ...]
    data: bytes

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return _itemsize(self.dtype)


def read_arrays(name: str, data: bytes, limit: int) -> dict[str, Array]:
    """The arrays of a file, by name: `a.npy`, `b.npz:weights`. Raises ArrayError, which names the file.

    A .npz file may unpack to `limit` bytes.
    """
    if not name.endswith(".npz"):
        return {name: _named(name, data)}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _members(name, archive, limit)
    except ArrayError:
        raise
    except _ZIP_ERRORS as error:
        raise ArrayError(f"{name} is no sound zip file: {error}") from None


def _members(name: str, archive: zipfile.ZipFile, limit: int) -> dict[str, Array]:
    infos = archive.infolist()
    if len(infos) > MEMBERS or sum(info.file_size for info in infos) > limit:
        raise ArrayError(f"{name} unpacks to more than {limit:,} bytes")
    found = {}
    for info in infos:
        member = f"{name}:{info.filename.removesuffix('.npy')}"
        if member in found:
            raise ArrayError(f"{name} has two arrays of one name")
        with archive.open(info) as file:
            found[member] = _named(member, file.read(info.file_size + 1))
    return found


def _named(name: str, data: bytes) -> Array:
    try:
        return parse(data)
    except ArrayError as error:
        raise ArrayError(f"{name}: {error}") from None


def parse(data: bytes) -> Array:
    """The array of a .npy file. Raises ArrayError."""
    if data[:6] != MAGIC or len(data) < 12:
        raise ArrayError("no .npy file")
    if (data[6], data[7]) not in ((1, 0), (2, 0), (3, 0)):
        raise ArrayError(f"version {data[6]}.{data[7]} of the format")
    start = 10 if data[6] == 1 else 12
    length = int.from_bytes(data[8:start], "little")
    if length > HEADER_LIMIT or start + length > len(data):
        raise ArrayError(f"a header of {length:,} bytes")
    descr, fortran, shape = _header(data[start : start + length], "utf-8" if data[6] == 3 else "latin-1")
    dtype = descr.lstrip("<>|")
    size = _itemsize(dtype)
    content = data[start + length :]
    count = math.prod(shape)
    if count * size != len(content):
        raise ArrayError(f"{len(content):,} bytes of elements, and its header says {count * size:,}")
    if descr[0] == ">":
        unit = 4 if dtype[0] == "U" else size // 2 if dtype[0] == "c" else 1 if dtype[0] == "S" else size
        content = _swapped(content, unit)
    if fortran and content and sum(extent > 1 for extent in shape) > 1:
        content = b"".join(content[at * size : (at + 1) * size] for at in _c_order(shape))
    return Array(dtype, shape, content)


def _header(raw: bytes, encoding: str) -> tuple[str, bool, tuple[int, ...]]:
    try:
        header = ast.literal_eval(raw.decode(encoding).strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise ArrayError("a header that is no dictionary") from None
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ArrayError("a header that is no dictionary of descr, fortran_order and shape")
    descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    if isinstance(descr, str) and descr.lstrip("<>|") == "O":
        raise ArrayError("an array of Python objects, which would have to be unpickled")
    if not isinstance(descr, str):
        raise ArrayError("a structured array")
    if not _DTYPE.match(descr):
        raise ArrayError(f"an array of dtype {descr[:40]!a}")
    if not isinstance(fortran, bool):
        raise ArrayError("a header whose fortran_order is neither true nor false")
    if (
        not isinstance(shape, tuple)
        or len(shape) > DIMENSIONS
        or not all(type(extent) is int and 0 <= extent < 1 << 62 for extent in shape)
    ):
        raise ArrayError("a header whose shape is none")
    return descr, fortran, shape


def _itemsize(dtype: str) -> int:
    number = int(re.sub(r"\[.*", "", dtype[1:]))
    return 4 * number if dtype[0] == "U" else number


def _swapped(data: bytes, unit: int) -> bytes:
    swapped = bytearray(len(data))
    for place in range(unit):
        swapped[place::unit] = data[unit - 1 - place :: unit]
    return bytes(swapped)


def _c_order(shape: Sequence[int]) -> Iterator[int]:
    """Where the elements of an array in Fortran order are, in C order."""
    steps = [math.prod(shape[:axis]) for axis in range(len(shape))]

    def below(axis: int, base: int) -> Iterator[int]:
        if axis == len(shape) - 1:
            yield from range(base, base + steps[axis] * shape[axis], steps[axis])
            return
        for index in range(shape[axis]):
            yield from below(axis + 1, base + index * steps[axis])

    return below(0, 0)


# --- how two differ ------------------------------------------------------------------------------------


def apart(one: float, two: float, tolerance: float) -> bool:
    """Whether two numbers are further apart than `tolerance`: |a - b| > tolerance * max(1, |a|, |b|).

    A NaN is as good as another; an infinity is near itself only.
    """
    if one == two or (math.isnan(one) and math.isnan(two)):
        return False
    if not (math.isfinite(one) and math.isfinite(two)):
        return True
    return abs(one - two) > tolerance * max(1.0, abs(one), abs(two))


def array_difference(one: Array, two: Array, tolerance: float) -> str:
    """How two arrays differ, in words; empty when they do not.

    Without a tolerance every bit counts: zeros of two signs and two kinds of NaN differ, too.
    """
    if one.dtype != two.dtype:
        return f"dtype {one.dtype} -> {two.dtype}"
    if one.shape != two.shape:
        return f"shape {one.shape} -> {two.shape}"
    if one.data == two.data:
        return ""
    first, count, largest = -1, 0, -1.0
    values = ("", "")
    for index, a, b in _unequal(one, two):
        if tolerance and _near(a, b, tolerance):
            continue
        if not count:
            first, values = index, (_value(a), _value(b))
        count += 1
        if isinstance(a, (int, float, complex)) and isinstance(b, (int, float, complex)):
            largest = max(largest, _distance(a, b))
    if not count:
        return ""
    place = list(_place(first, one.shape))
    text = f"at {place}: {values[0]} -> {values[1]}; {count:,} of {math.prod(one.shape):,} values differ"
    return text + (f", the most by {largest:.3g}" if largest >= 0 else "")


def _unequal(one: Array, two: Array) -> Iterator[tuple[int, object, object]]:
    """The elements whose bytes differ, with their index in C order."""
    size = one.itemsize
    step = max(_CHUNK // size, 1) * size
    kind = one.dtype[0]
    form = FORMATS.get(one.dtype)
    unpack = struct.Struct("<" + form * (2 if kind == "c" else 1)).unpack if form else None

    def value(raw: bytes) -> object:
        if unpack is None:
            return raw
        parts = unpack(raw)
        return complex(*parts) if kind == "c" else parts[0]

    for start in range(0, len(one.data), step):
        a, b = one.data[start : start + step], two.data[start : start + step]
        if a == b:
            continue
        for at in range(0, len(a), size):
            x, y = a[at : at + size], b[at : at + size]
            if x != y:
                yield (start + at) // size, value(x), value(y)


def _near(a: object, b: object, tolerance: float) -> bool:
    if isinstance(a, (bool, bytes)):
        return False
    if isinstance(a, complex) and isinstance(b, complex):
        # The modulus of the difference, by the same rule; what is not finite is compared by its parts.
        if all(math.isfinite(part) for part in (a.real, a.imag, b.real, b.imag)):
            sizes = (math.hypot(value.real, value.imag) for value in (a, b))
            return math.isfinite(_distance(a, b)) and _distance(a, b) <= tolerance * max(1.0, *sizes)
        return not apart(a.real, b.real, tolerance) and not apart(a.imag, b.imag, tolerance)
    assert isinstance(a, (int, float))
    assert isinstance(b, (int, float))
    return not apart(a, b, tolerance)


def _distance(a: complex, b: complex) -> float:
    """|a - b|: exact for integers, infinite where one is no number, and none between two that are both none."""
    if isinstance(a, int) and isinstance(b, int):
        return abs(a - b)
    if a != a and b != b:  # noqa: PLR0124  (a NaN is not itself)
        return 0.0
    difference = a - b
    distance = math.hypot(difference.real, difference.imag)
    return math.inf if math.isnan(distance) else distance


def _value(value: object) -> str:
    return ascii(value[:40]) if isinstance(value, bytes) else repr(value)


def _place(index: int, shape: Sequence[int]) -> tuple[int, ...]:
    place = []
    for extent in reversed(shape):
        index, rest = divmod(index, extent)
        place.append(rest)
    return tuple(reversed(place))
