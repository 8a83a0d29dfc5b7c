"""Which numbers an ONNX file has: its initializers, found by walking the protobuf messages and reading no content.

ModelProto has the graph in field 7, GraphProto its initializers in field 5, and TensorProto dims in 1 and data_type in
2 (onnx/onnx.proto). Lengths are checked before they are believed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from deadweight.image.content import Reader

_GRAPH, _INITIALIZER, _DIMS, _TYPE = 7, 5, 1, 2
_FIELDS: Final = 1_000_000  # of all the messages that are walked: some seconds
_TOO_MANY: Final = 1 << 48  # numbers of a tensor
_HEAD: Final = 64  # bytes that hold any tag and its length
_TYPES: Final = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}


class Initializer(NamedTuple):
    """Numbers of a model."""

    dtype: str
    numbers: int


class _Field(NamedTuple):
    number: int
    start: int
    """Where its content begins."""
    end: int
    value: int
    """Of a field that is a number; 0 for others."""
    is_number: bool


def read_onnx_file(read: Reader, size: int) -> list[Initializer]:
    """The initializers of a file. Raises ValueError where it is no such file."""
    found: list[Initializer] = []
    budget = [_FIELDS]
    for graph in _fields(read, 0, size, budget):
        if graph.number != _GRAPH or graph.is_number:
            continue
        for initializer in _fields(read, graph.start, graph.end, budget):
            if initializer.number == _INITIALIZER and not initializer.is_number:
                found.append(_initializer(read, initializer, budget))
    return found


def _initializer(read: Reader, field: _Field, budget: list[int]) -> Initializer:
    dims: list[int] = []
    kind = 0
    for each in _fields(read, field.start, field.end, budget):
        if each.number == _DIMS and each.is_number:
            dims.append(each.value)
        elif each.number == _DIMS:
            dims.extend(_packed(read(each.start, min(each.end - each.start, 1024))))
        elif each.number == _TYPE and each.is_number:
            kind = each.value
        if len(dims) > 64:
            break
    numbers = math.prod(dims) if len(dims) <= 64 else _TOO_MANY
    if any(dim >= _TOO_MANY for dim in dims) or numbers >= _TOO_MANY:
        raise ValueError("a tensor's shape is none")
    return Initializer(_TYPES.get(kind, f"type {kind}"), numbers)


def _fields(read: Reader, start: int, end: int, budget: list[int]) -> Iterator[_Field]:
    """The fields of a message that lies from `start` to `end`; each costs 1 of the budget."""
    at = start
    while at < end:
        budget[0] -= 1
        if budget[0] < 0:
            raise ValueError(f"it has more than {_FIELDS:,} fields")
        head = read(at, min(_HEAD, end - at))
        tag, used = _varint(head, 0)
        kind = tag & 7
        if kind == 0:
            value, used = _varint(head, used)
            yield _Field(tag >> 3, at + used, at + used, value, True)
            at += used
            continue
        if kind == 2:
            length, used = _varint(head, used)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("it is no protobuf message")
        if length > end - at - used:
            raise ValueError("a field is longer than what it is in")
        yield _Field(tag >> 3, at + used, at + used + length, 0, False)
        at += used + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= len(data):
            raise ValueError("it ends in a number")
        value |= (data[at + place] & 0x7F) << (7 * place)
        if not data[at + place] & 0x80:
            return value, at + place + 1
    raise ValueError("a number has no end")


def _packed(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value
