"""The format of .safetensors files: which tensors a file has, and where.

A file is the length of a header (8 bytes, little-endian), the header as JSON, then the tensors' bytes, without gaps or
overlaps (README.md and safetensors/src/tensor.rs of huggingface/safetensors). Files are hostile: everything is checked
before it is believed, as the library itself does it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from deadweight.errors import shown
from deadweight.image.content import Reader

HEADER_LIMIT: Final = 100_000_000
"""Bytes of a header that are read, as the library has it."""
TENSOR_LIMIT: Final = 1_000_000
_ALIGNMENT: Final = 8
_DIMENSIONS: Final = 64

SIZES: Final = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 8),
}
"""Bytes of an element, by the names of dtypes."""


class SafetensorsError(ValueError):
    """A file that is no sound safetensors file; the message says how."""


class Tensor(NamedTuple):
    """A tensor: its elements lie from `start` to `end`, counted from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


class Checkpoint(NamedTuple):
    """What a file says of itself."""

    tensors: tuple[Tensor, ...]
    """In the order of their bytes."""
    metadata: dict[str, str] | None
    data: int
    """Where the first tensor begins."""


def read_checkpoint(read: Reader, size: int) -> Checkpoint:
    """The tensors of a file of `size` bytes. Raises SafetensorsError."""
    head = read(0, 8)
    if len(head) < 8:
        raise SafetensorsError("too short for a header")
    length = int.from_bytes(head, "little")
    if length > HEADER_LIMIT or 8 + length > size:
        raise SafetensorsError(f"a header of {length:,} bytes in a file of {size:,}")
    raw = read(8, length)
    if not raw.startswith(b"{"):
        raise SafetensorsError("a header that is no JSON object")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_twins)
    except SafetensorsError:
        raise
    except (ValueError, RecursionError) as error:
        raise SafetensorsError(f"a header that is no JSON: {shown(str(error))[1:-1]}") from None
    if not isinstance(header, dict):
        raise SafetensorsError("a header that is no JSON object")
    metadata = header.pop("__metadata__", None)
    if metadata is not None and not (isinstance(metadata, dict) and all(type(v) is str for v in metadata.values())):
        raise SafetensorsError("metadata that are not texts by name")
    if len(header) > TENSOR_LIMIT:
        raise SafetensorsError(f"{len(header):,} tensors")
    tensors = sorted((_tensor(name, said) for name, said in header.items()), key=lambda t: (t.start, t.end))
    end = 0
    for tensor in tensors:
        if tensor.start != end:
            raise SafetensorsError(f"the tensor {shown(tensor.name)} begins at {tensor.start:,}, not at {end:,}")
        end = tensor.end
    if 8 + length + end != size:
        raise SafetensorsError(f"its tensors take {end:,} bytes, and {size - 8 - length:,} are there")
    return Checkpoint(tuple(tensors), metadata, 8 + length)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise SafetensorsError("a header with one name twice")
    return found


def _tensor(name: str, said: Any) -> Tensor:
    if not isinstance(said, dict) or said.keys() != {"dtype", "shape", "data_offsets"}:
        raise SafetensorsError(f"the tensor {shown(name)} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = said["dtype"], said["shape"], said["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise SafetensorsError(f"the tensor {shown(name)} has a dtype that is not known here: {shown(str(dtype), 40)}")
    if not isinstance(shape, list) or len(shape) > _DIMENSIONS or not all(map(_is_size, shape)):
        raise SafetensorsError(f"the tensor {shown(name)} has a shape that is none")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_size, offsets)):
        raise SafetensorsError(f"the tensor {shown(name)} has offsets that are none")
    start, end = offsets
    if math.prod(shape) * SIZES[dtype] != end - start:
        raise SafetensorsError(f"the tensor {shown(name)} has {end - start:,} bytes, which its shape does not take")
    return Tensor(name, dtype, tuple(shape), start, end)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


class Part(NamedTuple):
    """A tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    """Bytes of its elements."""


def in_order(parts: Iterable[Part]) -> list[Part]:
    """Parts in an order in which each is aligned to its elements: those with the largest come first."""
    return sorted(parts, key=lambda part: -SIZES[part.dtype])


def write_header(parts: Iterable[Part], metadata: Mapping[str, str] | None) -> bytes:
    """The header, length and padding included, of a file that has these parts one behind the other."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for part in parts:
        header[part.name] = {"dtype": part.dtype, "shape": list(part.shape), "data_offsets": [at, at + part.size]}
        at += part.size
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % _ALIGNMENT)
    return len(raw).to_bytes(8, "little") + raw
