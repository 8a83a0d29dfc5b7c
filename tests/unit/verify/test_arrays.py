"""numpy's files without numpy, which is the oracle here."""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

import numpy as np
import pytest

from deadweight.verify.arrays import ArrayError, array_difference, parse, read_arrays

LIMIT = 1_000_000
DTYPES = ["?", "b", "h", "i", "q", "B", "H", "I", "Q", "e", "f", "d", "F", "D", "S5", "U3", "M8[ns]", "m8[s]"]
SHAPES: list[tuple[int, ...]] = [(), (0,), (3, 0, 2), (1,), (7,), (3, 4), (2, 3, 4), (2, 1, 3, 2)]


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(text: str, content: bytes = b"", version: bytes = b"\1\0") -> bytes:
    raw = text.encode()
    form = "<H" if version[:1] == b"\1" else "<I"
    return b"\x93NUMPY" + version + struct.pack(form, len(raw)) + raw + content


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_are_read_as_numpy_has_them(dtype: str, big: bool) -> None:
    random = np.random.default_rng(7)
    for shape in SHAPES:
        raw = np.frombuffer(random.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize), np.dtype(dtype))
        if dtype == "U3":  # not every number is a letter
            raw = random.integers(0, 10**6, raw.shape).astype("U3")
        array = raw.reshape(shape)
        for layout in ("C", "F"):
            stored = np.asarray(array.astype(array.dtype.newbyteorder(">" if big else "<")), order=layout)
            found = parse(saved(stored))
            little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
            assert found.shape == shape
            assert found.data == little.tobytes()
            assert found.dtype == little.dtype.str.lstrip("<|>")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(version: tuple[int, int]) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.arange(5), version)
    assert parse(file.getvalue()).data == np.arange(5).tobytes()


def test_members_of_npz_files_have_names_of_both() -> None:
    file = io.BytesIO()
    arrays: dict[str, Any] = {"weights": np.ones(3), "a/b": np.zeros(2)}
    np.savez_compressed(file, **arrays)
    assert set(read_arrays("out.npz", file.getvalue(), LIMIT)) == {"out.npz:weights", "out.npz:a/b"}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no .npy file"),
        (b"\x93NUMPY\4\0" + bytes(100), "version 4.0"),
        (saved(np.ones(3))[:-1], "23 bytes of elements, and its header says 24"),
        (saved(np.ones(3)) + b"x", "25 bytes of elements"),
        (saved(np.array([{}], dtype=object)), "Python objects"),
        (saved(np.zeros(2, dtype=[("a", "f4"), ("b", "i4")])), "structured"),
        (saved(np.zeros(2, dtype=np.longdouble)), "dtype '<f16'"),
        (saved(np.zeros(2, dtype="V3")), "dtype '|V3'"),
        (header("(" * 9000), "no dictionary"),
        (header("9" * 9000), "no dictionary"),
        (header("__import__('os').abort()"), "no dictionary"),
        (header("{'descr': '<f8'}"), "dictionary of descr"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}"), "shape is none"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (True,)}", bytes(8)), "shape is none"),
        (header("{'descr': '<f8', 'fortran_order': 0, 'shape': ()}", bytes(8)), "fortran_order"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387903, 99)}"), "0 bytes of elements"),
        (header("{'descr': '<f8', 'fortran_order': False, 'shape': ()}" + " " * 20_000, bytes(8)), "a header of 20,0"),
        (b"\x93NUMPY\2\0" + b"\xff\xff\xff\x7f" + bytes(100), "a header of 2,147,483,647 bytes"),
    ],
)
def test_hostile_files_are_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(ArrayError) as caught:
        read_arrays("a.npy", data, LIMIT)
    assert str(caught.value).startswith("a.npy: ")
    assert why in str(caught.value)


def test_an_empty_array_of_a_huge_shape_costs_nothing() -> None:
    text = "{'descr': '<f8', 'fortran_order': True, 'shape': (4611686018427387903, 0, 4611686018427387903)}"
    assert parse(header(text)).data == b""


def test_zip_bombs_and_damaged_zip_files_are_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(2 * LIMIT))
    with pytest.raises(ArrayError, match=r"b\.npz unpacks to more than 1,000,000 bytes"):
        read_arrays("b.npz", file.getvalue(), LIMIT)
    good = io.BytesIO()
    np.savez(good, x=np.arange(100))
    data = good.getvalue()
    for damaged in (b"PK", data[:-30], data[:200] + b"\xff" + data[201:]):
        with pytest.raises(ArrayError, match=r"c\.npz is no sound zip file"):
            read_arrays("c.npz", damaged, LIMIT)


def difference(one: Any, two: Any, tolerance: float = 0.0) -> str:
    return array_difference(parse(saved(np.asarray(one))), parse(saved(np.asarray(two))), tolerance)


def test_without_a_tolerance_every_bit_counts() -> None:
    assert difference([0.0, 1.0], [0.0, 1.0]) == ""
    assert difference([0.0], [-0.0]) == "at [0]: 0.0 -> -0.0; 1 of 1 values differ, the most by 0"
    quiet, other = (np.frombuffer(struct.pack("<Q", bits), "<f8") for bits in (0x7FF8 << 48, (0x7FF8 << 48) + 1))
    assert difference(quiet, quiet) == ""
    assert difference(quiet, other) == "at [0]: nan -> nan; 1 of 1 values differ, the most by 0"


def test_the_first_value_and_the_largest_deviation_are_named() -> None:
    one = np.arange(200_000, dtype="f4").reshape(1000, 200)
    two = one.copy()
    two[700, 3] += 2
    two[900, 7] -= 500
    expected = "at [700, 3]: 140003.0 -> 140005.0; 2 of 200,000 values differ, the most by 500"
    assert difference(one, two) == expected
    assert difference(np.asfortranarray(one), two) == expected


@pytest.mark.parametrize(
    ("one", "two", "near"),
    [
        ([1.0], [1.0009], True),
        ([1.0], [1.0011], False),
        ([0.0], [0.0009], True),  # below 1 the tolerance is absolute
        ([1e6], [1e6 + 999], True),  # above it is relative
        ([1e6], [1e6 + 1002], False),
        ([np.nan], [-np.nan], True),
        ([np.nan], [0.0], False),
        ([np.inf], [np.inf], True),
        ([np.inf], [1e308], False),
        ([1e308], [-1e308], False),
        ([1 + 1j], [1.0005 + 1j], True),
        ([1 + 1j], [1 + 1.1j], False),
        ([complex(1e308, 1e308)], [complex(-1e308, 1e308)], False),
        ([complex(np.nan, 1)], [complex(np.nan, 1.0001)], True),
        ([2**63 - 1], [2**63 - 2], True),
        ([5], [6], False),
        ([True], [False], False),
        (["a"], ["b"], False),
    ],
)
def test_what_a_tolerance_of_a_thousandth_allows(one: Any, two: Any, near: bool) -> None:
    assert (difference(one, two, 1e-3) == "") is near


def test_types_and_shapes_differ_by_name() -> None:
    assert difference(np.zeros(3, "f4"), np.zeros(3, "f8"), 1.0) == "dtype f4 -> f8"
    assert difference(np.zeros((3, 1)), np.zeros(3), 1.0) == "shape (3, 1) -> (3,)"
