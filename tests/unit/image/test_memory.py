"""Blobs that a layout has already: not written again where that is certain, and whole afterwards in any case."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deadweight.errors import DigestError
from deadweight.image.bytes import ByteRange
from deadweight.image.output import NewImage, OutputLayer, keep_image
from deadweight.image.reference import parse_destination
from deadweight.image.transports import CompressionChoice, open_image, write_image
from deadweight.image.transports.memory import Memory
from deadweight.image.transports.stream import Stored
from support.images import digest, dump, simple_image, write_oci

DATA = bytes(range(256)) * 2048


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path / "memory")


class Source:
    """A layer, and how often it was read."""

    def __init__(self, data: bytes = DATA, diff_id: str | None = None) -> None:
        self.data, self.reads = data, 0
        self.diff_id = diff_id or digest(data)

    def layer(self, file: ByteRange | None = None) -> OutputLayer:
        return OutputLayer(len(self.data), self.chunks, diff_id=self.diff_id, file=file)

    def chunks(self) -> Iterator[bytes]:
        self.reads += 1
        yield self.data


def new_image(*layers: OutputLayer) -> NewImage:
    def config(diff_ids: list[str]) -> bytes:
        return dump({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}})

    return NewImage(layers, config, "x")


def write(
    tmp_path: Path, source: Source, memory: Memory | None, compression: CompressionChoice = "keep", tag: str = "a"
) -> None:
    destination = parse_destination(f"oci:{tmp_path / 'out'}:{tag}")
    write_image(new_image(source.layer()), destination, compression=compression, memory=memory)
    with open_image(destination) as image:
        image.layers[0].check()
        assert image.layers[0].blob.size == blob(tmp_path, image.layers[0].digest or "").stat().st_size
        assert image.layers[0].tar.size == len(source.data)


def blob(tmp_path: Path, name: str) -> Path:
    return tmp_path / "out/blobs/sha256" / name[7:]


@pytest.mark.parametrize("compression", ["keep", "none", "gzip", "zstd"])
def test_a_layer_that_is_there_is_not_read_again(
    tmp_path: Path, memory: Memory, compression: CompressionChoice
) -> None:
    source = Source()
    write(tmp_path, source, memory, compression)
    assert source.reads == 1
    write(tmp_path, source, memory, compression)
    write(tmp_path, source, memory, compression, "b")
    assert source.reads == 1
    (tmp_path / "out").rename(tmp_path / "moved")  # wherever the layout is
    (tmp_path / "moved").rename(tmp_path / "out")
    write(tmp_path, source, memory, compression)
    assert source.reads == 1


def test_without_a_memory_nothing_is_taken_for_granted(tmp_path: Path, memory: Memory) -> None:
    source = Source()
    write(tmp_path, source, None)
    write(tmp_path, source, None)
    assert source.reads == 2


def test_a_blob_that_nobody_vouches_for_is_hashed(
    tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source()
    write(tmp_path, source, None)
    hashed: list[str] = []
    real = hashlib.file_digest

    def counted(file: Any, name: Any) -> Any:
        hashed.append(name)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    write(tmp_path, source, memory)
    assert (source.reads, len(hashed)) == (1, 1)
    write(tmp_path, source, memory)
    assert (source.reads, len(hashed)) == (1, 1)


def damage(path: Path, *, hide: bool) -> None:
    """Changes a byte; `hide` puts the time of change back as far as anybody can."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    if hide:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("hide", [False, True])
def test_a_damaged_blob_is_written_again(tmp_path: Path, memory: Memory, hide: bool) -> None:
    source = Source()
    write(tmp_path, source, memory)
    damage(blob(tmp_path, source.diff_id), hide=hide)
    write(tmp_path, source, memory)
    assert source.reads == 2
    assert blob(tmp_path, source.diff_id).read_bytes() == DATA


def test_a_blob_that_is_gone_or_a_link_is_written_again(tmp_path: Path, memory: Memory) -> None:
    source = Source()
    write(tmp_path, source, memory)
    blob(tmp_path, source.diff_id).unlink()
    write(tmp_path, source, memory)
    assert source.reads == 2
    elsewhere = tmp_path / "elsewhere"
    blob(tmp_path, source.diff_id).rename(elsewhere)
    blob(tmp_path, source.diff_id).symlink_to(elsewhere)
    write(tmp_path, source, memory)
    assert source.reads == 3
    assert not blob(tmp_path, source.diff_id).is_symlink()


def test_an_untouched_layer_of_another_image_is_known_too(tmp_path: Path, memory: Memory) -> None:
    place = write_oci(tmp_path / "in", simple_image(), compression="gzip")
    destination = parse_destination(f"oci:{tmp_path / 'out'}:a")
    for _ in range(2):
        with open_image(f"oci:{place}") as image:
            write_image(keep_image(image), destination, memory=memory)
    for path in (place / "blobs/sha256").iterdir():
        if path.stat().st_size > 400:
            path.chmod(0o600)
    with open_image(destination) as image:
        for layer in image.layers:
            assert layer.compression == "gzip"
            assert layer.tar.size


def test_a_stream_is_held_to_the_digest_that_it_is_known_by(tmp_path: Path, memory: Memory) -> None:
    source = Source(diff_id=digest(b"other"))
    with pytest.raises(DigestError, match="layer 1"):
        write(tmp_path, source, memory)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive"])
def test_a_layer_that_lies_in_a_file_is_copied_from_there(tmp_path: Path, memory: Memory, transport: str) -> None:
    data = os.urandom(3_000_000) + b"odd"
    (tmp_path / "blob").write_bytes(b"before" + data + b"after")
    source = Source(data)
    destination = parse_destination(f"{transport}:{tmp_path / 'copy'}")
    with (tmp_path / "blob").open("rb") as file:
        layer = source.layer(ByteRange(file.fileno(), 6, len(data)))
        written = write_image(new_image(layer, layer), destination, memory=memory)
    assert (source.reads, written.sizes) == (0, (len(data),) * 2)
    with open_image(destination) as image:
        for one in image.layers:
            assert b"".join(one.blob.chunks()) == data


def test_what_is_remembered_is_no_part_of_the_result(tmp_path: Path) -> None:
    """Whatever becomes of the memory's files, and where none can be written."""
    memory = Memory(tmp_path / "memory")
    source = Source()
    write(tmp_path, source, memory, "zstd")
    for path in memory.folder.iterdir():
        path.write_bytes(b"[1, 2")
    write(tmp_path, source, memory, "zstd")
    (tmp_path / "file").touch()
    write(tmp_path, source, Memory(tmp_path / "file"), "zstd")
    assert source.reads == 3


def test_what_is_remembered_is_of_its_own_name_and_no_other(tmp_path: Path, memory: Memory) -> None:
    one, other = Source(), Source(DATA[1:])
    write(tmp_path, one, memory, "zstd")
    write(tmp_path, other, memory, "zstd", "b")
    place = memory.folder / f"zstd-{one.diff_id[7:]}"
    place.write_bytes((memory.folder / f"zstd-{other.diff_id[7:]}").read_bytes())
    assert memory.packed(one.diff_id, "zstd") is None
    assert memory.packed(other.diff_id, "zstd") is not None
    write(tmp_path, one, memory, "zstd", "c")  # which reads the layer again, and holds it to its diff-id
    place.unlink()
    os.mkfifo(place)
    assert memory.packed(one.diff_id, "zstd") is None, "and does not wait for somebody who writes"


@pytest.mark.parametrize("name", ["", "sha256:../../x", "sha256:" + "g" * 64])
def test_a_digest_that_is_none_is_not_remembered(memory: Memory, name: str) -> None:
    diff_id = digest(b"x")
    memory.note_packed(Stored(diff_id, name, 1, 1, "zstd"))
    assert memory.packed(diff_id, "zstd") is None


def test_repositories_that_have_a_blob_newest_first(memory: Memory) -> None:
    name = digest(b"x")
    for number in range(12):
        memory.note_repository(name, "one:5000", f"app{number}")
    memory.note_repository(name, "other", "app")
    memory.note_repository(name, "one:5000", "app8")
    assert memory.repositories(name, "one:5000") == [f"app{n}" for n in (8, 11, 10, 9, 7, 6, 5)]
    assert memory.repositories(name, "other") == ["app"]
    assert memory.repositories(name, "one") == memory.repositories(digest(b"y"), "other") == []
