"""The safetensors format: sound files are read, and no lie in a header is believed."""

from __future__ import annotations

import json

import pytest

from deadweight.image.content import Reader
from deadweight.models.safetensors import SafetensorsError, read_checkpoint
from support.weights import floats, safetensors, weights


def reader(data: bytes) -> Reader:
    return lambda offset, length: data[offset : offset + length] if offset >= 0 else b""


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def said(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_a_sound_file_is_read() -> None:
    data = weights()
    found = read_checkpoint(reader(data), len(data))
    assert [tensor.name for tensor in found.tensors][1] == "embeddings.ids"
    assert found.tensors[0].shape == (8, 8)
    assert found.metadata == {"format": "pt"}
    assert data[found.data + found.tensors[1].start :][:8] == (1).to_bytes(8, "little")


def test_a_hundred_thousand_tensors_are_read() -> None:
    data = safetensors({f"t{i}": ("F32", (1,), floats(i)) for i in range(100_000)})
    assert len(read_checkpoint(reader(data), len(data)).tensors) == 100_000


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too short"),
        (raw({}, length=1 << 62), "a header of 4,611,686,018,427,387,904 bytes in a file of 10"),
        (raw({}, length=100), "a header of 100 bytes"),
        (raw(b"[]"), "no JSON object"),
        (raw(b'{"a":'), "no JSON"),
        (raw(b'{"a":' * 100_000), "no JSON"),
        (raw(b"{\xff}"), "no JSON"),
        (raw(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":1}', b"1234"), "one name twice"),
        (raw({"a": 1}), "not described"),
        (raw({"a": {**said(), "more": 1}}, b"1234"), "not described"),
        (raw({"a": said("F99")}, b"1234"), "not known here"),
        (raw({"a": said(shape=[-1])}, b"1234"), "a shape that is none"),
        (raw({"a": said(shape=[True])}, b"1234"), "a shape that is none"),
        (raw({"a": said(shape=[1] * 65)}, b"1234"), "a shape that is none"),
        (raw({"a": said(shape=[1 << 61, 1 << 61])}, b"1234"), "its shape does not take"),
        (raw({"a": said("F64")}, b"1234"), "its shape does not take"),
        (raw({"a": said(offsets=[0, 4, 8])}, b"1234"), "offsets that are none"),
        (raw({"a": said(offsets=[4, 0])}, b"1234"), "its shape does not take"),
        (raw({"a": said(offsets=[1e300, 4])}, b"1234"), "offsets that are none"),
        (raw({"a": said(), "b": said()}, b"1234"), "begins at 0, not at 4"),
        (raw({"a": said(offsets=[2, 6])}, b"123456"), "begins at 2, not at 0"),
        (raw({"a": said()}, b"12"), "its tensors take 4 bytes, and 2 are there"),
        (raw({"a": said()}, b"12345678"), "its tensors take 4 bytes, and 8 are there"),
        (raw({"__metadata__": {"a": 1}}), "metadata that are not texts"),
        (raw({"__metadata__": []}), "metadata that are not texts"),
    ],
)
def test_lies_are_not_believed(data: bytes, reason: str) -> None:
    with pytest.raises(SafetensorsError, match=reason.replace("(", r"\(")):
        read_checkpoint(reader(data), len(data))
