"""What files of models hold: told from headers, and nothing told of what is broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadweight.models.details import details
from deadweight.models.finding import find_models
from deadweight.models.onnx_file import Initializer, read_onnx_file
from deadweight.passes.weights import View
from deadweight.report.inspect import inspect_report
from support.contexts import context
from support.images import file
from support.weights import floats, model, weights


def field(number: int, content: bytes | int) -> bytes:
    """A field of a protobuf message."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def tensor(kind: int, *dims: int, packed: bool = False) -> bytes:
    shape = field(1, b"".join(map(varint, dims))) if packed else b"".join(field(1, dim) for dim in dims)
    return shape + field(2, kind) + field(8, b"name") + field(9, floats(*range(300)))


ONNX = field(1, 8) + field(
    7, field(1, b"a node") + field(5, tensor(1, 10, 300)) + field(5, tensor(3, 7, packed=True)) + field(2, b"name")
)


def test_an_onnx_file_tells_its_initializers() -> None:
    found = read_onnx_file(lambda at, length: ONNX[at : at + length], len(ONNX))
    assert found == [Initializer("float32", 3000), Initializer("int8", 7)]


@given(st.integers(0, len(ONNX)), st.binary(max_size=8))
def test_broken_onnx_files_are_refused_or_read(at: int, data: bytes) -> None:
    broken = ONNX[:at] + data + ONNX[at + len(data) :]
    try:
        read_onnx_file(lambda start, length: broken[start : start + length], len(broken))
    except ValueError:
        return


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08\x01" * 1_000_001, "more than 1,000,000 fields"),
        (field(7, b"\x08\x01" * 1_000_001), "more than 1,000,000 fields"),
        (field(7, field(5, tensor(1, *[(1 << 48) - 1] * 30))), "shape is none"),
        (field(7, field(5, tensor(1, *[1] * 65))), "shape is none"),
    ],
    ids=["fields", "fields of a graph", "product", "dimensions"],
)
def test_an_onnx_file_costs_little_whatever_it_says(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_onnx_file(lambda at, length: data[at : at + length], len(data))


def test_inspect_lists_models_by_format() -> None:
    more = [
        file("opt/m/onnx/model.onnx", ONNX),
        file("opt/m/pytorch_model.bin", b"PK\x03\x04" + b"data.pkl"),
        file("g.gguf", b"GGUF"),
    ]
    at = context(model("opt/m", *more))
    lines = inspect_report(at.ledger).models
    assert [(line.folder, line.format, line.files, line.numbers) for line in lines] == [
        ("/opt/m", "onnx", 1, 3007),
        ("/opt/m", "safetensors", 1, 64 + 3 + 64 + 4),
        ("/opt/m", "torch", 1, None),
        ("/", "gguf", 1, None),
    ]
    assert lines[1].dtypes == {"float32": 132, "int64": 3}
    assert sum(line.bytes for line in lines) == len(weights()) + sum(len(each.data) for each in more)


@pytest.mark.parametrize("data", [b"", b"\x08", b"x" * 50, b"\x08\x08" + b"\xff" * 20])
def test_nothing_is_told_of_what_is_broken(data: bytes) -> None:
    at = context(
        [file("m/a.safetensors", data), file("m/b.onnx", b"\x08" + data), file("m/c.pt", b"PK\x03\x04data.pkl" + data)]
    )
    for each in find_models(View(at.ledger)):
        for found in each.files:
            assert details(View(at.ledger), found).by_dtype == {}
