"""Whatever is in the cache, the plan and the image are the same to the byte; what is in it is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deadweight.cli.main import main
from deadweight.entries import keep, load
from deadweight.errors import DigestError
from deadweight.image.bytes import ByteRange
from deadweight.image.layer import Entry
from deadweight.image.model import Layer
from deadweight.ledger import ledger, python
from deadweight.passes import base, gpu_code, imports, leftovers, symbols
from support.caching import OPTIONS, Slimmed, cache_folder, cached_files, kernels, pass_of_others, service, slim
from support.images import FixtureImage, file, make_image, make_tar, write_oci

WORK = {
    "shrink_gpu_code": gpu_code,
    "drop_leftovers": leftovers,
    "strip_symbols": symbols,
    "mentions": imports,
    "parse_headers": python,
    "record_names": python,
    "held_in": ledger,
}
"""What is looked up, by the modules that call it."""
CODE = b"import kernels\nprint('changed')\n"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Slimmed]:
    """What comes without a cache."""
    place = tmp_path_factory.mktemp("expected")
    images = {"first": service(), "changed": service(CODE)}
    return {name: slim(place, image, "--no-cache") for name, image in images.items()}


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was worked out, and not found in the cache."""
    done: list[str] = []
    for name, module in WORK.items():
        original = getattr(module, name)

        def counted(*arguments: object, name: str = name, original: object = original) -> object:
            done.append(name)
            return original(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(module, name, counted)
    entries = Layer.entries.func  # type: ignore[attr-defined]

    def read(layer: Layer) -> list[Entry]:
        done.append("entries")
        found: list[Entry] = entries(layer)
        return found

    monkeypatch.setattr(Layer.entries, "func", read)
    return done


def test_a_second_image_is_the_same_with_a_cache_and_without(
    expected: dict[str, Slimmed], place: Path, work: list[str]
) -> None:
    out = place / "out"
    assert slim(place, service(), to=out) == expected["first"]
    assert {"entries", *WORK} <= set(work)
    blobs = {path.name for path in (out / "blobs" / "sha256").iterdir()}
    work.clear()
    assert slim(place, service(CODE), to=out) == expected["changed"]
    assert work.count("entries") == 1, "only the application's layer is read"
    assert not (WORK.keys() - {"mentions"}).intersection(work)
    new = {path.name for path in (out / "blobs" / "sha256").iterdir()} - blobs
    assert len(new) == 3, "the application's layer, configuration and manifest"


def test_layers_that_were_made_are_taken_from_the_cache(
    expected: dict[str, Slimmed], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slim(place, service())
    monkeypatch.setattr("deadweight.apply.layer_chunks", lambda *_: pytest.fail("it is made again"))
    assert slim(place, service()) == expected["first"], "in another layout"


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_layers(compression: str, place: Path) -> None:
    without = slim(place, service(CODE), "--no-cache", compression=compression)  # type: ignore[arg-type]
    slim(place, service(), compression=compression)  # type: ignore[arg-type]
    assert slim(place, service(CODE), compression=compression) == without  # type: ignore[arg-type]
    assert slim(place, service(CODE), compression=compression) == without  # type: ignore[arg-type]


def test_compressed_layers_are_unpacked_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[str] = []
    original = Layer.unpack

    def unpack(layer: Layer, *arguments: Any) -> ByteRange:
        unpacked.append(layer.diff_id)
        return original(layer, *arguments)

    monkeypatch.setattr(Layer, "unpack", unpack)
    first, changed = service(), service(CODE)
    slim(place, first, compression="gzip")
    assert sorted(unpacked) == sorted(first.diff_ids)
    unpacked.clear()
    slim(place, changed, compression="gzip")
    assert unpacked == changed.diff_ids[-1:]
    unpacked.clear()
    monkeypatch.setenv("DEADWEIGHT_CACHE_LIMIT", "10kB")
    slim(place, make_image(make_tar(file("a", os.urandom(9000)))), compression="gzip")
    assert not [path for path in cached_files() if path.stat().st_size > 9000], "there is no room to keep it"


def test_a_byte_that_flips_in_unpacked_layers_changes_nothing(place: Path) -> None:
    expected = slim(place, service(), "--no-cache", compression="gzip")
    slim(place, service(), compression="gzip")
    flipped = [path for path in cached_files() if path.name in {each[7:] for each in service().diff_ids}]
    assert len(flipped) == len(service().diff_ids)
    for path in flipped:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert slim(place, service(), compression="gzip") == expected


def test_a_blob_that_unpacks_to_something_else_is_not_believed(place: Path) -> None:
    image = service()
    slim(place, image, compression="gzip")
    other = FixtureImage((*image.layers[:4], make_tar(file("app/run.py", b"print()"))), image.config)
    layout = write_oci(place / "false", other, "v", "gzip")  # its last diff-id is one that the cache has
    assert main(["slim", f"oci:{layout}:v", "--to", f"oci:{place / 'bad'}", *OPTIONS]) == DigestError.exit_status


def test_what_one_image_had_pruned_costs_another_nothing(place: Path, work: list[str]) -> None:
    other = make_image(make_tar(file("other", b"x" * 3000)), kernels(), run={})
    expected = slim(place, other, "--no-cache")
    slim(place, service())
    work.clear()
    assert slim(place, other) == expected
    assert "shrink_gpu_code" not in work


def test_a_file_that_another_layer_had_is_known_by_its_digest(place: Path, work: list[str]) -> None:
    slim(place, service())
    renamed = make_image(make_tar(file("etc/a")), kernels("others"), run={})
    work.clear()
    with_cache = slim(place, renamed)
    assert "shrink_gpu_code" not in work
    assert with_cache == slim(place, renamed, "--no-cache")


def test_a_byte_that_flips_in_the_cache_changes_nothing(expected: dict[str, Slimmed], place: Path) -> None:
    slim(place, service())
    assert len(cached_files()) > 20
    for number, path in enumerate(cached_files()):
        data = bytearray(path.read_bytes())
        data[(number * 997) % len(data)] ^= 1 + number % 255
        path.write_bytes(data)
    assert slim(place, service()) == expected["first"]
    assert slim(place, service(CODE)) == expected["changed"]


def test_entries_that_are_cut_or_strange_change_nothing(expected: dict[str, Slimmed], place: Path) -> None:
    slim(place, service())
    for number, path in enumerate(cached_files()):
        data = path.read_bytes()
        path.write_bytes([b"", data[:-1], data[:40], data + b"x"][number % 4])
    some = cached_files()[0]
    some.unlink()
    some.mkdir()
    assert slim(place, service()) == expected["first"]


def test_entries_that_are_others_change_nothing(expected: dict[str, Slimmed], place: Path) -> None:
    slim(place, service())
    files = [path for path in cached_files() if path.parent.name != "blobs"]
    contents = [path.read_bytes() for path in files]
    for path, data in zip(files, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(data)
    assert slim(place, service(CODE)) == expected["changed"]


def forget_edits() -> None:
    """What edits made of layers is lost, so that they are made anew from their pieces."""
    for path in cached_files():
        if ".edit-" in path.name:
            path.unlink()


@pytest.mark.parametrize("how", ["as they are", "lost", "another's"])
def test_pieces_are_those_of_what_is_known_or_worked_out(
    how: str, expected: dict[str, Slimmed], place: Path, work: list[str]
) -> None:
    """What a pass made of a file is kept in two parts, and the second is only asked for where a layer is made anew."""
    slim(place, service())
    forget_edits()
    pieces = [path for path in cached_files() if path.name.endswith(".pieces")]
    assert any("gpu-code" in path.name for path in pieces)
    for path in pieces if how != "as they are" else ():
        table = load(path, dict[int | str, Any])
        if how == "lost":
            path.unlink()
        else:
            keep(path, {name: [b"another", *found] for name, found in table.items()})
    work.clear()
    assert slim(place, service(CODE), to=place / "new") == expected["changed"]
    assert ("shrink_gpu_code" in work) == (how != "as they are")
    if how == "lost":  # they are there again
        forget_edits()
        work.clear()
        assert slim(place, service(), to=place / "again") == expected["first"]
        assert "shrink_gpu_code" not in work


def test_layers_that_are_not_what_they_state_teach_nothing(expected: dict[str, Slimmed], place: Path) -> None:
    image = service()
    false = list(image.layers)
    at = false[3].index(b"import ctypes")
    false[3] = false[3][:at] + b"IMPORT" + false[3][at + 6 :]
    # Blobs go by their own digests, so that only the diff-ids tell.
    layout = write_oci(place / "false", FixtureImage(tuple(false), image.config), "v")

    words = [f"oci:{layout}:v", *OPTIONS]
    assert main(["plan", *words]) == 0
    assert main(["slim", *words, "--to", f"oci:{place / 'bad'}"]) == DigestError.exit_status
    assert not (place / "bad").exists()
    assert not [path for path in cached_files() if path.name.startswith(image.diff_ids[3][7:])]
    assert slim(place, image) == expected["first"]


def test_a_plan_alone_teaches_nothing_of_layers_that_nobody_has_hashed(place: Path) -> None:

    layout = write_oci(place / "in", service(), "v")
    assert main(["plan", f"oci:{layout}:v", *OPTIONS]) == 0
    assert not list(cache_folder().glob("known/*/*"))
    assert main(["slim", f"oci:{layout}:v", *OPTIONS, "--to", f"oci:{place / 'out'}"]) == 0
    assert list(cache_folder().glob("known/*/*.entries"))


def test_an_untrusted_cache_is_not_used(
    expected: dict[str, Slimmed], place: Path, capfd: pytest.CaptureFixture[str], work: list[str]
) -> None:
    slim(place, service())
    cache_folder().chmod(0o777)
    work.clear()
    capfd.readouterr()
    assert slim(place, service()) == expected["first"]
    assert "is open to others" in capfd.readouterr().err
    assert "shrink_gpu_code" in work


def test_another_version_believes_nothing(place: Path, work: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    slim(place, service())
    work.clear()
    monkeypatch.setattr("deadweight.cache.known.code", lambda: "other")
    slim(place, service())
    assert "shrink_gpu_code" in work
    work.clear()
    slim(place, service())
    assert not work, "and it learns, though the layers that it would make are there"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written(expected: dict[str, Slimmed], place: Path) -> None:
    slim(place, service())
    for folder in [cache_folder(), *(path for path in cache_folder().rglob("*") if path.is_dir())]:
        folder.chmod(0o500)
    assert slim(place, service(CODE)) == expected["changed"]


names = st.sampled_from(["app/run.py", "app/new.py", "app/sub/x.py", "app/tests/test_a.py", "usr/lib/libbase.txt"])
codes = st.sampled_from(
    [
        b"",
        b"import kernels\n",
        b"import kernels.tests.helpers\n",
        b"import pytest\n",
        b"from numlib import tests\n",
        b"(",
    ]
)
edits = st.lists(st.dictionaries(names, codes, max_size=3), min_size=1, max_size=3)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits)
def test_any_changes_on_top_of_layers_that_are_known(
    tmp_path_factory: pytest.TempPathFactory, changes: list[dict[str, bytes]]
) -> None:
    """The cache is that of all examples, so that each finds what others have left."""
    place = tmp_path_factory.mktemp("any")
    for change in changes:
        more = (make_tar(*(file(name, data) for name, data in change.items())),)
        image = service(b"# x\n", more)
        assert slim(place, image) == slim(place, image, "--no-cache")


def test_passes_of_others_are_worked_out_each_time() -> None:
    """What a pass makes of a file is kept where the pass says what it depends on: deadweight's own do."""
    said = {one.name for one in base.all_passes() if one.recipe is not None}
    assert said == {"gpu-code", "leftovers", "symbols"}


def test_a_pass_of_others_is_worked_out_each_time_whatever_it_says(place: Path) -> None:
    """Its code is not known with deadweight's version: it may be another one the next time."""
    for text in (b"version 1", b"version 2"):
        with pass_of_others(place, "app/run.py", text):
            for slimmed in (slim(place, service()), slim(place, service())):
                assert any(text in blob for blob in slimmed.files.values())
    assert not any(b"version 2" in blob for blob in slim(place, service()).files.values())
