"""Holds a file with smaller numbers to its original, by what the numbers are and not by how they were made.

Each number of fewer bits has to be the nearest to the one that it came from; every other byte is as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from deadweight.errors import shown
from deadweight.image.content import Reader
from deadweight.models.int8 import described
from deadweight.models.numbers import DTYPES, from_half, numpy
from deadweight.models.safetensors import SIZES, Checkpoint, Tensor, read_checkpoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUMBERS: Final = 1 << 20  # that are compared at once
_INT8_PARTS: Final = ("_scale", "_qdata", "_zero_point")


class _Side:
    """A file's tensors, and how to read them."""

    def __init__(self, read: Reader, size: int) -> None:
        self.read = read
        self.checkpoint: Checkpoint = read_checkpoint(read, size)
        self.tensors: dict[str, Tensor] = {tensor.name: tensor for tensor in self.checkpoint.tensors}

    def chunk(self, tensor: Tensor, first: int, count: int) -> bytes:
        """The bytes of elements of a tensor."""
        size = SIZES[tensor.dtype]
        data = self.read(self.checkpoint.data + tensor.start + first * size, count * size)
        if len(data) != count * size:
            raise ValueError("the file ended early while it was read")
        return data


def check_converted(read_old: Reader, old_size: int, read_new: Reader, new_size: int, to: str) -> None:
    """Raises ValueError unless the new file is the old one with its float32 as `to`, or as they were."""
    old, new = _Side(read_old, old_size), _Side(read_new, new_size)
    seen: set[str] = set()
    int8: set[str] = set()
    for tensor in old.checkpoint.tensors:
        same = new.tensors.get(tensor.name)
        if same is not None:
            seen.add(tensor.name)
            _check_tensor(old, new, tensor, same, "fp16" if to == "int8" else to)
        elif to == "int8":
            seen.update(_check_int8(old, new, tensor))
            int8.add(tensor.name)
        else:
            raise ValueError(f"the tensor {shown(tensor.name)} is gone")
    more = new.tensors.keys() - seen
    if more:
        raise ValueError(f"the tensor {shown(min(more))} is new")
    _check_metadata(old.checkpoint, new.checkpoint, int8)


def _check_metadata(old: Checkpoint, new: Checkpoint, int8: set[str]) -> None:
    if not int8:
        if old.metadata != new.metadata:
            raise ValueError("its metadata are other ones")
        return
    found = dict(new.metadata or {})
    found.pop("tensor_names", None)
    for tensor in old.tensors:
        if found.pop(tensor.name, "") != described(tensor, int8=tensor.name in int8):
            raise ValueError(f"its metadata say something else of {shown(tensor.name)}")
    if found != (old.metadata or {"format": "pt"}):
        raise ValueError("its metadata are other ones")


def _check_tensor(old: _Side, new: _Side, one: Tensor, two: Tensor, to: str) -> None:
    if one.shape != two.shape:
        raise ValueError(f"the tensor {shown(one.name)} has another shape")
    if two.dtype == one.dtype:
        for first, count in _ranges(one.numbers):
            if old.chunk(one, first, count) != new.chunk(two, first, count):
                raise ValueError(f"the tensor {shown(one.name)} has other numbers")
        return
    if one.dtype != "F32" or two.dtype != DTYPES[to]:
        raise ValueError(f"the tensor {shown(one.name)} was {one.dtype}, and is {two.dtype}")
    for first, count in _ranges(one.numbers):
        good = _nearest(old.chunk(one, first, count), new.chunk(two, first, count), to)
        if not good.all():
            where = first + int((~good).argmax())
            raise ValueError(f"number {where:,} of the tensor {shown(one.name)} is not the nearest to what it was")


def _ranges(count: int) -> Iterator[tuple[int, int]]:
    return ((first, min(_NUMBERS, count - first)) for first in range(0, count, _NUMBERS))


def _nearest(old: bytes, new: bytes, to: str) -> NDArray[Any]:
    """For each number, whether none of its format is nearer; of two as near, the even one."""
    np = numpy()
    wide, bits = np.frombuffer(old, "<f4").astype("f8"), np.frombuffer(new, "<u2")
    magnitude = (bits & 0x7FFF).astype("i4")
    infinity = 0x7C00 if to == "fp16" else 0x7F80
    beyond = 65536.0 if to == "fp16" else 2.0**128  # what would come behind the largest

    def value(number: NDArray[Any]) -> NDArray[Any]:
        exact = from_half(np.minimum(number, infinity).astype("<u2").tobytes(), to).astype("f8")
        return np.where(number >= infinity, beyond, exact)  # type: ignore[no-any-return]

    size = np.abs(wide)
    with np.errstate(invalid="ignore"):
        below = np.where(magnitude > 0, (value(magnitude - 1) + value(magnitude)) / 2, -1.0)
        above = (value(magnitude) + value(magnitude + 1)) / 2
        even = (magnitude & 1) == 0
        near = ((size > below) | (even & (size == below))) & ((size < above) | (even & (size == above)))
    near = np.where(np.isinf(wide), magnitude == infinity, near & (magnitude < infinity))
    same_sign = np.signbit(wide) == ((bits >> 15) == 1)
    return np.where(np.isnan(wide), magnitude > infinity, near & same_sign)  # type: ignore[no-any-return]


def _check_int8(old: _Side, new: _Side, tensor: Tensor) -> list[str]:
    """Holds what a tensor has become to it; gives the names of the parts."""
    np = numpy()
    stem, _, base = tensor.name.rpartition(".")
    names = [f"{stem}._{base}{part}" if stem else f"_{base}{part}" for part in _INT8_PARTS]
    found = [new.tensors.get(name) for name in names]
    if any(part is None for part in found):
        raise ValueError(f"the tensor {shown(tensor.name)} is gone")
    scale, codes, zero = (part for part in found if part is not None)
    if len(tensor.shape) != 2 or tensor.dtype != "F32":
        raise ValueError(f"the tensor {shown(tensor.name)} is none that int8 is for")
    rows, columns = tensor.shape
    told = [(part.dtype, part.shape) for part in (scale, codes, zero)]
    if told != [("F32", (rows, 1)), ("I8", (rows, columns)), ("I8", (rows, 1))]:
        raise ValueError(f"the parts of the tensor {shown(tensor.name)} have other shapes")
    if any(new.chunk(zero, 0, rows)):
        raise ValueError(f"the tensor {shown(tensor.name)} has zero points that are not 0")
    step = max(_NUMBERS // columns, 1) if columns else rows or 1
    for first in range(0, rows, step):
        count = min(step, rows - first)
        wide = np.frombuffer(old.chunk(tensor, first * columns, count * columns), "<f4").reshape(count, columns)
        code = np.frombuffer(new.chunk(codes, first * columns, count * columns), "i1").reshape(count, columns)
        scales = np.frombuffer(new.chunk(scale, first, count), "<f4").astype("f8")[:, None]
        largest = np.abs(wide).max(axis=1, keepdims=True)
        if not (np.abs(scales - np.maximum(largest / 127.5, 2.0**-23)) <= scales * 1e-6).all():
            raise ValueError(f"the tensor {shown(tensor.name)} has a scale that is not its row's")
        # At half a step at most, but for the last bits of a float32: the largest of a row is 127.5 steps.
        if not (np.abs(wide - code * scales) <= scales * (0.5 + 1e-4)).all():
            raise ValueError(f"the tensor {shown(tensor.name)} has a number that is not the nearest step")
    return names
