"""Layers that are not made from their chunks, since the result is there already: what they come from is checked."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from msgspec.structs import replace

from deadweight.errors import DigestError
from deadweight.image.bytes import ByteRange, state_of
from deadweight.image.output import NewImage, OutputLayer, keep_layer
from deadweight.image.reference import parse_destination
from deadweight.image.transports import engine, open_image, write_image
from deadweight.image.transports.memory import Memory
from deadweight.image.transports.registry_settings import Settings, using
from deadweight.image.transports.store import FolderStore
from support.bad_registry import bad_registry
from support.images import digest, dump, file, make_image, make_tar, write_oci

DATA = bytes(range(256)) * 2048


def new_image(*layers: OutputLayer) -> NewImage:
    def config(diff_ids: list[str]) -> bytes:
        return dump({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}})

    return NewImage(layers, config, "x")


def chunks() -> Iterator[bytes]:
    yield DATA


def false(_: Callable[[int], None] | None) -> None:
    raise DigestError("the original is damaged")


@pytest.fixture
def known() -> OutputLayer:
    """A layer whose original is checked when its chunks are not read."""
    return OutputLayer(len(DATA), chunks, diff_id=digest(DATA))


def test_a_layout_that_has_the_layer(known: OutputLayer, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "memory")
    write_image(new_image(known), parse_destination(f"oci:{tmp_path / 'out'}:a"), memory=memory)
    other = new_image(replace(known, check=false))
    with pytest.raises(DigestError, match="original"):
        write_image(other, parse_destination(f"oci:{tmp_path / 'out'}:b"), memory=memory)
    with open_image(f"oci:{tmp_path / 'out'}") as image:  # which has no other
        assert image.tag == "a"


def test_a_registry_that_has_the_layer(known: OutputLayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    memory = Memory(tmp_path / "memory")
    with using(Settings(tries=2, pause=0.01, timeout=10.0)), ExitStack() as stack:
        registry = stack.enter_context(bad_registry())
        write_image(new_image(known), parse_destination(f"docker://{registry.host}/a:a"), memory=memory)
        other = new_image(replace(known, check=false))
        with pytest.raises(DigestError, match="original"):
            write_image(other, parse_destination(f"docker://{registry.host}/a:b"), memory=memory)


def test_an_engine_that_has_the_layer(known: OutputLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: object, produce: Callable[[BinaryIO], None]) -> None:
        produce(io.BytesIO())

    monkeypatch.setattr(engine, "load", load)
    monkeypatch.setattr(engine, "inspect", lambda *_: None)
    place: Any = None
    layer = replace(known, check=false)
    sent, _ = engine._send(place, new_image(layer), 0, None)
    assert [one.diff_id for one in sent.layers] == [digest(DATA)], "the chunks are checked by whoever makes them"
    with pytest.raises(DigestError, match="original"):
        engine._send(place, new_image(layer), 1, None)


def test_a_layer_that_lies_in_a_file(known: OutputLayer, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(DATA)
    with (tmp_path / "blob").open("rb") as source:
        layer = replace(known, file=ByteRange(source.fileno(), 0, len(DATA)), check=false)
        with pytest.raises(DigestError, match="original"):
            write_image(new_image(layer), parse_destination(f"oci:{tmp_path / 'out'}:a"))
    assert not (tmp_path / "out").exists()


def test_a_file_that_changes_while_it_is_copied_is_not_what_is_written(
    known: OutputLayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(DATA)
    original = os.copy_file_range
    edits: list[int] = []

    def edit_first(*arguments: int) -> int:
        status = blob.stat()
        blob.write_bytes(DATA[:-1] + b"!")
        os.utime(blob, ns=(status.st_atime_ns, status.st_mtime_ns))
        edits.append(1)
        return original(*arguments)

    monkeypatch.setattr(os, "copy_file_range", edit_first)
    with blob.open("rb") as source:
        part = ByteRange(source.fileno(), 0, len(DATA))
        layer = replace(known, file=part, file_state=state_of(part))
        write_image(new_image(layer), parse_destination(f"oci:{tmp_path / 'out'}:a"))
    assert edits
    with open_image(f"oci:{tmp_path / 'out'}") as image:
        assert b"".join(image.layers[0].blob.chunks()) == DATA


def test_a_blob_of_another_content_is_replaced(known: OutputLayer, tmp_path: Path) -> None:
    """Also where nothing is remembered: what was just hashed is there, and what was there is not."""
    destination = parse_destination(f"oci:{tmp_path / 'out'}:a")
    written = write_image(new_image(known), destination)
    blob = tmp_path / "out/blobs/sha256" / written.diff_ids[0][7:]
    blob.write_bytes(b"!" * len(DATA))
    write_image(new_image(replace(known, diff_id=None)), destination)
    assert blob.read_bytes() == DATA


def test_a_blob_that_is_edited_as_soon_as_it_has_its_name(
    known: OutputLayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = Memory(tmp_path / "memory")
    settle = FolderStore._settle

    def edited(store: FolderStore, partial: Path, name: str) -> None:
        settle(store, partial, name)
        if name == digest(DATA):
            (partial.parent / name[7:]).write_bytes(b"!" * len(DATA))

    monkeypatch.setattr(FolderStore, "_settle", edited)
    write_image(new_image(known), parse_destination(f"oci:{tmp_path / 'out'}:a"), memory=memory)
    blob = tmp_path / "out/blobs/sha256" / digest(DATA)[7:]
    assert not memory.vouches(digest(DATA), blob.lstat())


def test_a_layer_that_is_there_twice_is_sent_once_and_checked_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    layout = write_oci(tmp_path / "in", make_image(make_tar(file("a", DATA))))
    with using(Settings(tries=2, pause=0.01, timeout=10.0)), ExitStack() as stack:
        registry = stack.enter_context(bad_registry())
        image = stack.enter_context(open_image(f"oci:{layout}"))
        layer = keep_layer(image.layers[0])
        with pytest.raises(DigestError, match="original"):
            write_image(
                new_image(layer, replace(layer, check=false)), parse_destination(f"docker://{registry.host}/a:a")
            )
