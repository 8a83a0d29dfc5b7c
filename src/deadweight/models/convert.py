"""A .safetensors file with smaller numbers: which tensors change, and the new file as pieces of the old one.

Nothing is held whole: tensors are converted when they are read. Only float32 changes, and only in matrices: vectors
(biases, scales of norms) are few, and can have numbers that half precision takes for zero though they matter. A tensor
that would overflow stays as it is, and is named.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

from deadweight.errors import shown
from deadweight.image.content import Content, ContentPiece, Reader, Recoded, joined
from deadweight.models.int8 import described, is_linear
from deadweight.models.numbers import DTYPES, HALVES, Half, RowInt8, RowScales, finite, overflows
from deadweight.models.safetensors import Checkpoint, Part, Tensor, in_order, read_checkpoint, write_header

Weights = Literal["fp16", "bf16", "int8"]
WEIGHTS: Final[tuple[Weights, ...]] = ("fp16", "bf16", "int8")
"""What weights can become."""
NOTHING: Final = "no matrix of float32 in it"
_CHUNK: Final = 8 << 20


class Converted(NamedTuple):
    """A file with smaller numbers."""

    content: Content
    tensors: int
    """How many of its tensors changed."""
    kept: dict[str, str]
    """Tensors that might have changed and did not, by name, and why."""


class Step(NamedTuple):
    """A tensor, and what becomes of it."""

    tensor: Tensor
    to: str
    """`fp16`, `bf16` or `int8`; empty: it stays as it is."""


def convert(read: Reader, size: int, to: str) -> Converted:
    """The file with its matrices of float32 as `to`: fp16, bf16, or int8 as torchao has it (the rest is fp16 then).

    Raises ValueError, with the reason, for what is no sound file, and where nothing changes.
    """
    if to not in WEIGHTS:
        raise ValueError(f"weights cannot become {shown(to)}, only {', '.join(WEIGHTS)}")
    checkpoint = read_checkpoint(read, size)
    kept: dict[str, str] = {}
    steps = [_step(checkpoint, tensor, to, read, kept) for tensor in checkpoint.tensors]
    changed = sum(1 for step in steps if step.to)
    if not changed:
        raise ValueError(next(iter(kept.values())) if kept else NOTHING)
    parts: dict[str, tuple[Part, ContentPiece]] = {}
    for step in steps:
        for part, piece in _parts(checkpoint, step):
            if part.name in parts:
                raise ValueError(f"it has a tensor {shown(part.name)} already")
            parts[part.name] = part, piece
    order = in_order(part for part, _ in parts.values())
    header = write_header(order, new_metadata(checkpoint, steps))
    return Converted(joined([header, *(parts[part.name][1] for part in order)]), changed, kept)


def _step(checkpoint: Checkpoint, tensor: Tensor, to: Weights, read: Reader, kept: dict[str, str]) -> Step:
    if tensor.dtype != "F32" or not tensor.numbers or len(tensor.shape) < 2:
        return Step(tensor, "")
    if to == "int8":
        if is_linear(tensor):
            if all(map(finite, _chunks(checkpoint, tensor, read))):
                return Step(tensor, "int8")
            kept[tensor.name] = "it has numbers that are not finite"
            return Step(tensor, "")
        to = "fp16"
    half: Half = to
    if any(overflows(data, half) for data in _chunks(checkpoint, tensor, read)):
        kept[tensor.name] = f"it has numbers that {half} has no room for"
        return Step(tensor, "")
    return Step(tensor, half)


def _chunks(checkpoint: Checkpoint, tensor: Tensor, read: Reader) -> Iterator[bytes]:
    for at in range(tensor.start, tensor.end, _CHUNK):
        length = min(_CHUNK, tensor.end - at)
        data = read(checkpoint.data + at, length)
        if len(data) != length:
            raise ValueError("the file ended early while it was read")
        yield data


def _parts(checkpoint: Checkpoint, step: Step) -> Iterator[tuple[Part, ContentPiece]]:
    """What a tensor becomes: parts of the new file, with their bytes."""
    tensor, to = step
    start, count = checkpoint.data + tensor.start, tensor.numbers
    if not to:
        size = tensor.end - tensor.start
        yield Part(tensor.name, tensor.dtype, tensor.shape, size), (start, size)
    elif to == "int8":
        rows, columns = tensor.shape
        stem, _, base = tensor.name.rpartition(".")
        prefix = f"{stem}._{base}" if stem else f"_{base}"
        yield (
            Part(f"{prefix}_scale", "F32", (rows, 1), 4 * rows),
            _recoded(RowScales(columns), 4 * columns, 4, start, rows),
        )
        yield (
            Part(f"{prefix}_qdata", "I8", (rows, columns), count),
            _recoded(RowInt8(columns), 4 * columns, columns, start, rows),
        )
        yield Part(f"{prefix}_zero_point", "I8", (rows, 1), rows), bytes(rows)
    else:
        yield Part(tensor.name, DTYPES[to], tensor.shape, 2 * count), _recoded(HALVES[to], 4, 2, start, count)


def _recoded(recode: Any, unit: int, made: int, start: int, units: int) -> Recoded:
    return Recoded(recode, unit, made, start, 0, units * made)


def new_metadata(checkpoint: Checkpoint, steps: list[Step]) -> dict[str, str] | None:
    """The metadata of the new file: the old ones, and for int8 what torchao says of each tensor."""
    if not any(step.to == "int8" for step in steps):
        return checkpoint.metadata
    found = dict(checkpoint.metadata or {"format": "pt"})
    for tensor, to in steps:
        if tensor.name in found:
            raise ValueError(f"its metadata have {shown(tensor.name)} already")
        found[tensor.name] = described(tensor, int8=to == "int8")
    found["tensor_names"] = json.dumps([step.tensor.name for step in steps])
    return found
