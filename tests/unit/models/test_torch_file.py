"""Files of torch.save are told without unpickling, and nothing in them is believed."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deadweight.models.torch_file import Stored, TorchFileError, read_torch_file
from support.weights import floats


def saved(pickled: bytes, *storages: bytes, stored: bool = True, **more: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in enumerate(storages):
            archive.writestr(f"archive/data/{key}", data)
        for name, data in more.items():
            archive.writestr(f"archive/{name}", data)
    return out.getvalue()


def text(word: str) -> bytes:
    return b"X" + len(word).to_bytes(4, "little") + word.encode()


def rebuilt(name: str, kind: str, key: str, offset: int, shape: bytes, steps: bytes) -> bytes:
    """An entry of a state dictionary, as torch pickles it."""
    storage = b"(" + text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu") + b"K\x04tQ"
    return (
        text(name)
        + b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"K"
        + bytes([offset])
        + shape
        + steps
        + b"\x89}tR"
    )


def dictionary(*entries: bytes) -> bytes:
    return b"\x80\x02}(" + b"".join(entries) + b"u."


TWO = b"K\x02K\x02\x86"
STEPS = b"K\x02K\x01\x86"
TURNED = b"K\x01K\x02\x86"
GOOD = dictionary(
    rebuilt("a", "FloatStorage", "0", 0, TWO, STEPS), rebuilt("b", "HalfStorage", "1", 1, b"K\x01\x85", b"K\x01\x85")
)


def read(data: bytes) -> tuple[Stored, ...]:
    return read_torch_file(lambda at, length: data[at : at + length], len(data))


def test_tensors_are_told_with_their_places() -> None:
    data = saved(GOOD, floats(1, 2, 3, 4), b"abcd")
    a, b = read(data)
    assert a[:3] == ("a", "F32", (2, 2))
    assert b[:3] == ("b", "F16", (1,))
    assert data[a.start : a.start + 16] == floats(1, 2, 3, 4)
    assert data[b.start : b.start + 2] == b"cd"


@pytest.mark.parametrize(
    "data",
    [
        saved(dictionary(rebuilt("a", "FloatStorage", "0", 0, TWO, TURNED)), floats(1, 2, 3, 4)),  # transposed
        saved(GOOD, floats(1, 2, 3, 4), stored=False),
        saved(GOOD, floats(1, 2, 3, 4), byteorder=b"big"),
        saved(GOOD),
    ],
)
def test_numbers_that_do_not_lie_there_in_order_have_no_place(data: bytes) -> None:
    assert read(data)[0].start == -1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no zip file"),
        (b"PK\x03\x04", "no zip file"),
        (saved(b"\x80\x02N."), "no dictionary of tensors"),
        (saved(b""), "broken"),
        (saved(b"\x80\x02"), "broken|no end"),
        (saved(b"\x80\x02cos\nsystem\n" + text("true") + b"\x85R."), "no dictionary of tensors"),
        (saved(b"\x80\x02iposix\nsystem\n."), "its pickle has INST"),
        (saved(b"\x80\x04" + b"." * 3), "broken"),
        (saved(b"\x80\x02h\x05."), "broken"),
        (saved(b"\x80\x02}" + b"(" * 50_000 + b"u."), "no dictionary|broken"),
        (saved(dictionary(rebuilt("a", "OtherStorage", "0", 0, TWO, STEPS))), "not known here"),
        (saved(dictionary(rebuilt("a", "FloatStorage", "0", 0, TWO, b"K\x01\x85"))), "is none"),
        (saved(pickle.dumps({"a": 1}, protocol=5)), "no dictionary of tensors"),
    ],
)
def test_what_is_none_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(TorchFileError, match=reason):
        read(data)


def damaged() -> bytes:
    data = bytearray(saved(bytes(range(256)) * 20, stored=False))
    data[60:120] = bytes(byte ^ 0xFF for byte in data[60:120])
    return bytes(data)


def encrypted() -> bytes:
    data = bytearray(saved(GOOD))
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


@pytest.mark.parametrize("data", [damaged(), encrypted()], ids=["deflated", "encrypted"])
def test_damaged_archives_are_refused(data: bytes) -> None:
    with pytest.raises(TorchFileError, match="no sound zip file"):
        read(data)


def test_of_the_order_of_bytes_little_is_read() -> None:
    data = saved(GOOD, floats(1, 2, 3, 4), stored=False, byteorder=b"little" + bytes(64 << 20))
    tracemalloc.start()
    try:
        read(data)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@example(12, b"\x00\\")  # a text with an escape that is none
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=6))
def test_damaged_pickles_are_refused_or_read(at: int, data: bytes) -> None:
    try:
        read(saved(GOOD[:at] + data + GOOD[at + len(data) :], floats(1, 2, 3, 4)))
    except TorchFileError:
        return


def test_a_zip_file_with_too_long_a_list_is_not_read() -> None:
    end = b"PK\x05\x06" + bytes(8) + (1 << 30).to_bytes(4, "little") + bytes(6)
    with pytest.raises(TorchFileError, match="too many members"):
        read(b"PK\x03\x04" + bytes(100) + end)
