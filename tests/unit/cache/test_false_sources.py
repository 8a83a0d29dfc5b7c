"""Images that are damaged, false, or changed in the midst fail or come out right, and teach the cache nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from deadweight.cache.known import code, proved, recall
from deadweight.cache.layers import Cache
from deadweight.cache.written import note_written
from deadweight.cli.main import main
from deadweight.errors import DigestError
from deadweight.image.bytes import file_state
from deadweight.image.edit import LayerEdit, layer_chunks
from deadweight.image.layer import read_entries
from deadweight.image.model import Layer
from deadweight.image.output import Written
from deadweight.image.pieces import Span
from deadweight.image.transports import open_image, write
from deadweight.image.transports.stream import write_layer
from support import hosts
from support.caching import OPTIONS, cache_folder, cached_files, gpu_library, service, slim
from support.careless import distribution
from support.fatbins import fatbin, sm
from support.images import FixtureImage, file, make_image, make_tar, write_oci


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layers that are made anew from their pieces."""
    done: list[int] = []

    def counted(image: Any, edit: LayerEdit) -> Any:
        done.append(edit.position)
        return layer_chunks(image, edit)

    monkeypatch.setattr("deadweight.apply.layer_chunks", counted)
    return done


def unsound(layout: Path) -> list[str]:
    """Blobs that are not what they are called."""
    blobs = (layout / "blobs" / "sha256").iterdir()
    return [path.name for path in blobs if hashlib.sha256(path.read_bytes()).hexdigest() != path.name]


def largest(layout: Path) -> Path:
    return max((layout / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)


def edit_in_place(path: Path) -> None:
    status = path.stat()
    with path.open("r+b") as blob:
        blob.seek(4096)
        blob.write(b"EVIL")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as whoever wants to hide it would


@pytest.mark.parametrize("command", ["plan", "slim"])
def test_a_false_layer_teaches_nothing_of_its_files(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digests of the files that the diff-id stands for are known; a false layer has other files."""
    image = service()
    slim(place, image)
    library = gpu_library()
    with tempfile.TemporaryDirectory() as folder:  # as long, and otherwise in other places
        fatbins = [fatbin(sm(80, size=400_000), sm(70, size=400_000)), fatbin(sm(86, size=400_000), sm(80))]
        other = hosts.build(hosts.LAYOUTS["symbols"], Path(folder), fatbins).read_bytes()
    assert len(other) == len(library)
    false = FixtureImage(tuple(layer.replace(library, other) for layer in image.layers), image.config)
    layout = write_oci(place / "false", false, "v")
    options = ("--all-layers", "--gpu", "sm_86")
    before = set((cache_folder() / "made" / code()).iterdir())
    words = [command, f"oci:{layout}:v", *options]
    status = main([*words, "--to", f"oci:{place / 'bad'}"] if command == "slim" else words)
    assert status == (0 if command == "plan" else DigestError.exit_status)
    assert set((cache_folder() / "made" / code()).iterdir()) == before
    monkeypatch.setattr("support.caching.OPTIONS", options)
    assert slim(place, image) == slim(place, image, "--no-cache")


@pytest.mark.parametrize("library", [b"no library", None])
def test_a_false_layer_has_not_the_pieces_of_what_is_known(library: bytes | None, place: Path) -> None:
    """They are lost, and what passes make of the false layer's file is nothing at all, or by chance the same."""
    image = service()
    slim(place, image)
    for path in cached_files():
        if ".edit-" in path.name or path.name.endswith(".pieces"):
            path.unlink()
    original = gpu_library()
    at = original.index(b".symtab") if library is None else 0
    other = original[:at] + (library or b".Symtab")
    other += original[len(other) :]
    false = FixtureImage(tuple(layer.replace(original, other) for layer in image.layers), image.config)
    assert false.layers != image.layers
    layout = write_oci(place / "false", false, "v")
    assert main(["slim", f"oci:{layout}:v", *OPTIONS, "--to", f"oci:{place / 'bad'}"]) == DigestError.exit_status
    assert not (place / "bad").exists()


def test_a_layer_that_is_edited_while_others_are_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = slim(place, service(), to=place / "a")
    edited: list[Path] = []

    def edit_first(*arguments: Any) -> Any:
        if not edited:
            edited.append(largest(place / "a"))
            edit_in_place(edited[0])
        return write_layer(*arguments)

    monkeypatch.setattr(write, "write_layer", edit_first)
    assert slim(place, service(), to=place / "b") == expected
    assert slim(place, service(), to=place / "b").files.keys() == expected.files.keys()
    assert unsound(place / "a")
    assert not unsound(place / "b")


def test_a_layer_that_is_edited_before_it_gets_a_second_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache")
    blob = tmp_path / "blob"
    blob.write_bytes(b"x" * 9000)
    diff_id = "sha256:" + hashlib.sha256(blob.read_bytes()).hexdigest()
    status = blob.lstat()
    cache.adopt(diff_id, blob, file_state(status))
    adopted = cache.root / "blobs" / diff_id[7:]
    assert cache.memory.vouches(diff_id, adopted.lstat())
    assert [path.name for path in adopted.parent.iterdir()] == [diff_id[7:]]
    adopted.unlink()
    link = os.link

    def edit_first(source: Path, *arguments: Any, **more: Any) -> None:
        blob.write_bytes(b"y" * 9000)
        link(source, *arguments, **more)

    monkeypatch.setattr(os, "link", edit_first)
    cache.adopt(diff_id, blob, file_state(blob.lstat()))
    assert not cache.memory.vouches(diff_id, adopted.lstat())


def test_only_what_is_still_whole_gets_a_second_name(tmp_path: Path) -> None:
    """What was written is noted by whoever wrote it; what somebody changed since is not taken."""
    cache = Cache(tmp_path / "cache")
    layer = make_tar(file("a", b"1" * 9000))
    layout = write_oci(tmp_path / "in", make_image(layer))
    with open_image(f"oci:{layout}") as image:
        (source,) = image.layers
        source.check()
        recall(image, cache)
        edits = (LayerEdit(0, (Span(0, 0, len(layer)),), len(layer)),)
        written = Written(layout, "", None, (source.diff_id,), (len(layer),), (len(layer),))
        copy = shutil.copytree(layout, tmp_path / "copy")
        note_written(cache, image, edits, written, copy)
        assert [path.name for path in (cache.root / "layers").iterdir()]
        assert not (cache.root / "blobs").exists(), "nobody knows that the copy is sound"
        note_written(cache, image, edits, written, layout)
        assert [path.name for path in (cache.root / "blobs").iterdir()] == [source.diff_id[7:]]


def test_what_was_made_of_layers_that_are_not_proved_is_not_noted(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    layer = make_tar(file("a", b"1" * 9000))
    layout = write_oci(tmp_path / "in", make_image(layer))
    with open_image(f"oci:{layout}") as image:
        recall(image, cache)
        edits = (LayerEdit(0, (Span(0, 0, 512),), 512),)
        written = Written(layout, "", None, ("sha256:" + "0" * 64,), (512,), (512,))
        note_written(cache, image, edits, written, None)
        assert not (cache.root / "layers").exists()
        image.layers[0].check()
        note_written(cache, image, edits, written, None)
        assert list((cache.root / "layers").iterdir())


def test_a_layer_that_is_touched_after_it_was_opened_is_not_proved(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    layout = write_oci(tmp_path / "in", make_image(make_tar(file("a", b"1" * 9000))))
    with open_image(f"oci:{layout}") as image:
        recall(image, cache)
        (layer,) = image.layers
        assert not proved(layer, cache)
        layer.check()
        assert proved(layer, cache)
        edit_in_place(layout / "blobs" / "sha256" / layer.diff_id[7:])
        assert not proved(layer, cache)


def test_entries_are_those_of_a_layer_as_long(place: Path) -> None:
    """The entries that are known of a diff-id lie beyond the end of a shorter layer that states it."""
    image = make_image(make_tar(file("a", b"1" * 9000)), make_tar(file("b", b"2" * 20000)), run={})
    slim(place, image)
    short = make_tar(file("b", b"3" * 10))
    layout = write_oci(place / "false", FixtureImage((image.layers[0], short), image.config), "v")
    with open_image(f"oci:{layout}:v") as false:
        recall(false, Cache(cache_folder()))
        assert "recalled" in false.layers[0].__dict__
        assert false.layers[1].entries == read_entries(false.layers[1].tar, "")


@pytest.mark.parametrize("command", ["plan", "slim"])
def test_nothing_is_believed_of_a_layer_that_is_not_as_long(command: str, place: Path) -> None:
    """What is known by the index of an entry would be of others."""
    lower = make_tar(file("a"))
    true = make_tar(file("tmp/x", b"1" * 9000), file("usr/share/man/man1/x.1", b"2"), file("etc/passwd", b"3"))
    false = make_tar(*(file(f"etc/{number}", b"4") for number in range(40)))
    image = make_image(lower, true, run={})
    slim(place, image)
    layout = write_oci(place / "false", FixtureImage((lower, false), image.config), "v")
    words = [command, f"oci:{layout}:v", "--all-layers"]
    status = main([*words, "--to", f"oci:{place / 'bad'}"] if command == "slim" else words)
    assert status == (0 if command == "plan" else DigestError.exit_status)


def needing(test: bytes) -> tuple[FixtureImage, bytes]:
    """A service whose pytest stays because of one requirement alone, and the layer that says so."""
    files = {"needs/__init__.py": b"x = 1\n"}
    layer = make_tar(*distribution("needs", "1.0", files, requires=("pytest",)))
    image = service(b"import needs\n", (layer,))
    return image, layer.replace(b"Requires-Dist: pytest", b"Requires-Dist: " + test)


@pytest.mark.parametrize("options", [(), ("--no-cache",), ("-c", "none")])
def test_a_plan_does_not_follow_a_layer_that_is_not_what_it_states(options: tuple[str, ...], place: Path) -> None:
    """Where the destination has the true layer already, and so nothing of the false one is copied."""
    image, changed = needing(b"pytesx")
    out = place / "out"
    slim(place, image, to=out)
    layers = tuple(changed if b"Requires-Dist: pytest\n" in layer else layer for layer in image.layers)
    assert layers != image.layers
    layout = write_oci(place / "false", FixtureImage(layers, image.config), "v")
    index = (out / "index.json").read_bytes()
    words = ["slim", f"oci:{layout}:v", *OPTIONS, "--to", f"oci:{out}:n", *options]
    assert main(words) == DigestError.exit_status
    assert (out / "index.json").read_bytes() == index


def test_layers_that_are_proved_are_not_hashed_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = write_oci(place / "in", service(), "v")
    words = ["slim", f"oci:{layout}:v", *OPTIONS, "--to"]
    assert main([*words, f"oci:{place / 'out'}:a"]) == 0
    monkeypatch.setattr(Layer, "check", lambda *_: pytest.fail("it is hashed again"))
    assert main([*words, f"oci:{place / 'out'}:b"]) == 0
    assert main([*words, f"oci:{place / 'other'}:b"]) == 0


def test_a_layout_that_is_removed_leaves_its_layers_to_the_next(place: Path, made: list[int]) -> None:
    expected = slim(place, service(), to=place / "a")
    assert made
    made.clear()
    for number in range(3):
        shutil.rmtree(place / "a" if number == 0 else place / f"b{number - 1}")
        assert slim(place, service(), to=place / f"b{number}") == expected
        assert not made, number
    edit_in_place(next((cache_folder() / "blobs").glob(largest(place / "b2").name)))
    shutil.rmtree(place / "b2")
    assert slim(place, service(), to=place / "c") == expected
    assert len(made) == 1
    made.clear()
    assert slim(place, service(), to=place / "d") == expected
    assert not made, "the sound one has taken the place of the other"
    assert not unsound(place / "d")
    blobs = cache_folder() / "blobs"
    assert not [path for path in blobs.iterdir() if hashlib.sha256(path.read_bytes()).hexdigest() != path.name]


@pytest.mark.parametrize("command", ["inspect", "check"])
def test_a_false_layer_is_shown_as_it_is(tmp_path: Path, command: str) -> None:
    """It states the diff-id of one that is known: what only looks never compares the two, and believes it of none."""
    image = make_image(make_tar(file("opt/a/make", b"x" * 600, mode=0o755)))
    slim(tmp_path, image)
    false = write_oci(tmp_path / "false", image, "v", "none")
    largest(false).write_bytes(make_tar(file("usr/bin/gcc", b"x" * 600, mode=0o755)))
    found = []
    more = ["--no-command", "gcc"] if command == "check" else []
    for cache in ([], ["--no-cache"]):
        to = tmp_path / f"report{len(cache)}.json"
        status = main([command, f"oci:{false}:v", *more, "--json", str(to), *cache])
        found.append((status, _without_seconds(json.loads(to.read_bytes()))))
    assert found[0] == found[1]
    assert found[0][0] == 1 if command == "check" else "usr/bin" in str(found[0])


def _without_seconds(value: Any) -> Any:
    """A report without what differs from run to run."""
    if isinstance(value, dict):
        return {key: _without_seconds(each) for key, each in value.items() if "seconds" not in key}
    return [_without_seconds(each) for each in value] if isinstance(value, list) else value
