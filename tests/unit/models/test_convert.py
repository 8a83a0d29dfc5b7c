"""Conversion: each number is the nearest, all else is as it was, and the check sees every flipped bit."""

from __future__ import annotations

import json
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deadweight.image.content import Content, Reader
from deadweight.models.check import check_converted
from deadweight.models.config import new_config
from deadweight.models.convert import NOTHING, convert
from deadweight.models.numbers import HALVES, RowInt8, RowScales, overflows
from deadweight.models.safetensors import read_checkpoint
from support.weights import floats, safetensors, weights

BITS = st.integers(0, 2**32 - 1)
# Near the borders of half precision: between two numbers, below its least, at its most.
EDGES = st.sampled_from(
    [
        *(0.0, -0.0, 1.0, 1 + 2**-11, 1 + 3 * 2**-11, 2**-24, 2**-25, 1.5 * 2**-25, 65504.0, 65519.99, 65520.0),
        *(3.3895e38, 3.4e38, math.inf, -math.inf, math.nan, 2.0**-126, 2.0**-149, 1 + 2**-8, 1 + 3 * 2**-8),
    ]
)


def reader(data: bytes) -> Reader:
    return lambda offset, length: data[offset : offset + length]


def whole(content: Content, data: bytes) -> bytes:
    return content.reader(reader(data))(0, content.size)


def made(data: bytes, to: str) -> bytes:
    return whole(convert(reader(data), len(data), to).content, data)


def checked(old: bytes, new: bytes, to: str) -> None:
    check_converted(reader(old), len(old), reader(new), len(new), to)


def bfloat16(bits: int) -> int:
    """The nearest of bfloat16, by exact fractions: an oracle that is slow and plain."""
    number = struct.unpack("<f", struct.pack("<I", bits))[0]
    if math.isnan(number):
        return -1
    below = bits >> 16
    candidates = [below, below + 1]

    def value(half: int) -> float:
        if half & 0x7FFF == 0x7F80:
            return math.copysign(2.0**128, -1 if half & 0x8000 else 1)
        return float(struct.unpack("<f", struct.pack("<I", (half & 0xFFFF) << 16))[0])

    if math.isinf(number):
        return below
    return min(candidates, key=lambda half: (abs(value(half) - number), half & 1))


@given(st.lists(BITS, min_size=1, max_size=40))
def test_bfloat16_is_the_nearest_to_even(bits: list[int]) -> None:
    made = np.frombuffer(HALVES["bf16"](struct.pack(f"<{len(bits)}I", *bits)), "<u2").tolist()
    for one, half in zip(bits, made, strict=True):
        wanted = bfloat16(one)
        if wanted < 0:
            assert half & 0x7FFF > 0x7F80  # a NaN stays one
        else:
            assert half == wanted, hex(one)


@given(st.lists(st.one_of(EDGES, st.floats(width=32)), min_size=1, max_size=40))
def test_float16_is_the_nearest_to_even(numbers: list[float]) -> None:
    made = HALVES["fp16"](floats(*numbers))
    for at, number in enumerate(struct.unpack(f"<{len(numbers)}f", floats(*numbers))):
        half = made[2 * at : 2 * at + 2]
        try:
            wanted = struct.pack("<e", number)
        except OverflowError:  # too large: the standard library refuses what becomes infinite
            assert half == struct.pack("<e", math.copysign(math.inf, number))
            continue
        if math.isnan(number):
            assert math.isnan(struct.unpack("<e", half)[0])
        else:
            assert half == wanted


@pytest.mark.parametrize("to", ["fp16", "bf16"])
@given(numbers=st.lists(st.one_of(EDGES, st.floats(width=32)), min_size=1, max_size=60), flip=st.integers(0, 10**6))
def test_what_is_made_passes_its_check_and_a_flipped_bit_does_not(to: str, numbers: list[float], flip: int) -> None:
    old = safetensors({"a": ("F32", (1, len(numbers)), floats(*numbers))})
    if overflows(floats(*numbers), "fp16" if to == "fp16" else "bf16"):
        with pytest.raises(ValueError, match="has no room for"):
            made(old, to)
        return
    new = made(old, to)
    checked(old, new, to)
    start = read_checkpoint(reader(new), len(new)).data
    at = flip % (16 * len(numbers))
    damaged = bytearray(new)
    damaged[start + at // 8] ^= 1 << at % 8
    if math.isnan(struct.unpack("<f", floats(numbers[at // 16]))[0]):
        return  # one NaN is as good as another
    with pytest.raises(ValueError, match="is not the nearest to what it was"):
        checked(old, bytes(damaged), to)


def test_int8_is_what_torchao_makes() -> None:
    """Int8Tensor.from_hp(rows, PerRow()) of torchao 0.18.0 gave this."""
    rows = bytes.fromhex(
        "cdcccc3d000080be9a99993e3333333f5f7089305f7009b10000000059d900330000a0c0000020400000ff420000ffc2"
        "00000000000000000000000000000000f4fd543c0000003f48e1fabe0000803e"
    )
    assert RowScales(4)(rows).hex() == "1ae7b33b000000340000803f000000348180803b"
    codes = [18, -46, 55, 127, 0, 0, 0, 0, -5, 2, 127, -128, 0, 0, 0, 0, 3, 127, -125, 64]
    assert struct.unpack("<20b", RowInt8(4)(rows)) == tuple(codes)


@pytest.mark.parametrize("to", ["fp16", "bf16", "int8"])
def test_a_file_converts_whole_and_in_parts(to: str) -> None:
    old = weights()
    content = convert(reader(old), len(old), to).content
    new = whole(content, old)
    assert content.size == len(new) == sum(len(content.reader(reader(old))(at, 7)) for at in range(0, len(new), 7))
    assert b"".join(content.reader(reader(old))(at, 7) for at in range(0, len(new), 7)) == new
    checked(old, new, to)
    found = read_checkpoint(reader(new), len(new))
    assert found.data % 8 == 0
    sizes = {"I64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1}
    assert all(tensor.start % sizes[tensor.dtype] == 0 for tensor in found.tensors)
    assert (found.metadata or {})["format"] == "pt"
    ids = next(tensor for tensor in found.tensors if tensor.name == "embeddings.ids")
    assert new[found.data + ids.start : found.data + ids.end] == struct.pack("<3q", 1, 2, 3)


@pytest.mark.parametrize("to", ["fp16", "bf16", "int8"])
def test_every_flipped_bit_of_a_file_is_seen(to: str) -> None:
    old = weights()
    new = made(old, to)
    start = read_checkpoint(reader(new), len(new)).data
    missed = []
    for at in range(8 * (start - 40), 8 * len(new)):
        damaged = bytearray(new)
        damaged[at // 8] ^= 1 << at % 8
        try:
            checked(old, bytes(damaged), to)
        except ValueError:
            continue
        missed.append(at)
    # A scale of int8 is held to its row within a millionth: its last bits could be another rounding's.
    assert len(missed) <= (4 * 4 if to == "int8" else 0)


def test_a_tensor_that_would_overflow_stays_and_is_named() -> None:
    old = safetensors({"a": ("F32", (2, 1), floats(1, 70000)), "b": ("F32", (1, 1), floats(2))})
    found = convert(reader(old), len(old), "fp16")
    assert (found.tensors, list(found.kept)) == (1, ["a"])
    checked(old, whole(found.content, old), "fp16")
    assert convert(reader(old), len(old), "bf16").kept == {}


def test_vectors_stay_as_they_are() -> None:
    """A number that half precision takes for zero can matter: a service's classifier had it times 1e63."""
    old = safetensors({"norm.bias": ("F32", (2,), floats(1e-33, 1)), "a": ("F32", (1, 2), floats(1e-33, 1))})
    new = made(old, "fp16")
    found = read_checkpoint(reader(new), len(new))
    assert {tensor.name: tensor.dtype for tensor in found.tensors} == {"norm.bias": "F32", "a": "F16"}
    assert new[found.data :][:8] == floats(1e-33, 1)


@pytest.mark.parametrize(
    ("data", "to", "reason"),
    [
        (safetensors({"a": ("F16", (1,), b"ab")}), "fp16", NOTHING),
        (safetensors({}), "fp16", NOTHING),
        (weights(), "fp8", "cannot become 'fp8'"),
        (weights()[:-1], "fp16", "its tensors take"),
        (safetensors({"a": ("F32", (1, 1), floats(1e6))}), "fp16", "has no room for"),
        (safetensors({"a": ("F32", (2,), floats(1, 2))}), "fp16", NOTHING),
        (
            safetensors(
                {"layers.0.a.weight": ("F32", (1, 1), floats(1)), "layers.0.a._weight_scale": ("F16", (1,), b"ab")}
            ),
            "int8",
            "already",
        ),
    ],
)
def test_what_cannot_be_converted_says_why(data: bytes, to: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        convert(reader(data), len(data), to)


def test_a_file_that_lost_gained_or_changed_a_tensor_is_seen() -> None:
    def file(**tensors: tuple[str, tuple[int, ...], bytes]) -> bytes:
        return safetensors(tensors)

    one, half = ("F32", (1,), floats(1)), ("F16", (1,), struct.pack("<e", 1))
    for new, reason in (
        (file(a=half), "'b' is gone"),
        (file(a=half, b=half, c=half), "'c' is new"),
        (file(a=half, b=("F16", (1, 1), half[2])), "another shape"),
        (file(a=half, b=("F32", (1,), floats(2))), "other numbers"),
        (file(a=half, b=("I16", (1,), half[2])), "was F32, and is I16"),
        (safetensors({"a": half, "b": half}, {"x": "y"}), "metadata"),
    ):
        with pytest.raises(ValueError, match=reason):
            checked(file(a=one, b=one), new, "fp16")


@pytest.mark.parametrize(
    ("old", "to", "new"),
    [
        (b'{\n  "a": 1e-12\n}', "float32", b'{\n  "torch_dtype": "float32",\n  "a": 1e-12\n}'),
        (b"{}", "float32", b'{\n  "torch_dtype": "float32"}'),
        (b'{"torch_dtype": null, "a": 1}', "float32", b'{\n  "torch_dtype": "float32",\n  "a": 1\n}'),
    ],
)
def test_a_configuration_says_what_to_compute_with(old: bytes, to: str, new: bytes) -> None:
    assert whole(new_config(old, to), old) == new


def test_a_configuration_that_says_enough_or_is_none_stays() -> None:
    for old, to, reason in (
        (b'{"dtype": "bfloat16"}', "float32", "already"),
        (b'{"quantization_config": {}}', "int8", "quantized already"),
        (b"[]", "float32", "no JSON object"),
        (b"\xef\xbb\xbf{}", "float32", "BOM"),
        (b"{" * 10, "float32", "property name"),
    ):
        with pytest.raises(ValueError, match=reason):
            new_config(old, to)
    says = json.loads(whole(new_config(b'{"dtype": "float32"}', "int8"), b'{"dtype": "float32"}'))
    assert says["quantization_config"]["quant_method"] == "torchao"
    assert "torch_dtype" not in says
