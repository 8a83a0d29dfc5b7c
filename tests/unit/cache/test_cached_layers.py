"""The cache: layers are whole or absent, and what is not known to be sound is not used."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NoReturn

import pytest

from deadweight.build.pack import Item, Packed, pack
from deadweight.cache.keeping import trim, trim_when_due
from deadweight.cache.layers import Cache
from deadweight.cache.place import TAG, default_folder, distrust, limit, make_folder
from deadweight.cli.main import main
from deadweight.errors import UsageError
from support.images import simple_image, write_oci


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def make(cache: Cache, key: str, text: bytes = b"x") -> str:
    with ExitStack() as resources:
        return cache.make(
            key, lambda file: pack([Item("a", text, mode=0o644)], file, 0), resources, lambda: (("note",), {"n": 1})
        ).record.diff_id


def there(cache: Cache, key: str) -> bool:
    with ExitStack() as resources:
        found = cache.layer(key, resources)
        if found is None:
            return False
        assert found.blob.size == found.record.bytes
        assert (found.record.notes, found.record.about) == (("note",), {"n": 1})
        return True


def blob(cache: Cache, diff_id: str) -> Path:
    return cache.root / "blobs" / diff_id[7:]


def test_a_layer_is_there_again_until_its_blob_changes(cache: Cache) -> None:
    diff_id = make(cache, "k")
    assert there(cache, "k")
    assert not there(cache, "other")
    path = blob(cache, diff_id)
    data = bytearray(path.read_bytes())
    status = path.stat()
    data[600] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as whoever wants to hide it would
    assert not there(cache, "k")
    make(cache, "k")
    assert there(cache, "k")


def test_a_blob_that_was_copied_is_hashed_and_then_known(cache: Cache) -> None:
    path = blob(cache, make(cache, "k"))
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    assert not cache.memory.vouches(f"sha256:{path.name}", path.stat())
    assert there(cache, "k")
    assert cache.memory.vouches(f"sha256:{path.name}", path.stat())


@pytest.mark.parametrize("name", ["layers/k", "blobs"])
def test_half_of_anything_is_nothing(cache: Cache, name: str) -> None:
    diff_id = make(cache, "k")
    path = blob(cache, diff_id) if name == "blobs" else cache.root / name
    path.write_bytes(path.read_bytes()[:-3])
    assert not there(cache, "k")


def test_a_failure_leaves_nothing(cache: Cache) -> None:
    def fail(file: BinaryIO) -> Packed:
        file.write(b"some")
        raise KeyboardInterrupt

    with ExitStack() as resources, pytest.raises(KeyboardInterrupt):
        cache.make("k", fail, resources)
    assert list((cache.root / "blobs").iterdir()) == []
    assert not there(cache, "k")


def test_old_and_many_layers_leave_but_never_those_in_use(cache: Cache) -> None:
    ids = {key: make(cache, key, key.encode() * 3000) for key in ("a", "b", "c", "d")}
    now = time.time()
    for age, key in enumerate(("d", "c", "b", "a")):
        os.utime(cache.root / "layers" / key, (now - age * 100, now - age * 100))
        os.utime(blob(cache, ids[key]), (now - 9999, now - 9999))
    size = blob(cache, ids["a"]).stat().st_blocks * 512 + (cache.root / "layers" / "a").stat().st_size
    shutil.rmtree(cache.root / "memory")
    assert trim(cache, 2 * size, {"a"}) == 2 * size
    assert [key for key in ids if there(cache, key)] == ["a", "d"]
    assert {path.name for path in (cache.root / "blobs").iterdir()} == {ids["a"][7:], ids["d"][7:]}
    trim(cache, 10**9, {"a"}, age=-1)
    assert [key for key in ids if there(cache, key)] == ["a"]


def test_a_blob_whose_record_is_to_come_stays(cache: Cache) -> None:
    diff_id = make(cache, "k")
    (cache.root / "layers" / "k").unlink()
    trim(cache, 10**9)
    assert blob(cache, diff_id).exists()


def test_what_killed_builds_left_unfinished_leaves_after_a_day(cache: Cache) -> None:
    day = 86400
    there = {}
    for folder in ("layers", "environments"):
        for name, age in ((".partial-old", 2 * day), (".partial-young", day // 2), ("whole", 2 * day)):
            place = there[f"{folder}/{name}"] = cache.root / folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if folder == "layers":
                place.touch()
            else:
                (place / "bin").mkdir(parents=True)
            os.utime(place, (time.time() - age, time.time() - age))
    trim(cache, 10**9)
    gone = {name for name, place in there.items() if not place.exists()}
    assert gone == {"layers/.partial-old", "environments/.partial-old", "layers/whole"}  # which is no record


def test_a_workplace_vanishes_and_takes_those_of_killed_builds_along(cache: Cache) -> None:
    dead, living, young = (cache.root / "work" / name for name in ("dead", "living", "young"))
    for place in (dead, living, young):
        place.mkdir(parents=True)
        (place / "file").touch()
    for place in (dead, living):
        os.utime(place, (1, 1))
    fd = os.open(living, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with cache.workplace() as mine:
        assert mine.stat().st_mode & 0o777 == 0o700
        assert {path.name for path in (cache.root / "work").iterdir()} == {"living", "young", mine.name}
    assert not mine.exists()
    os.close(fd)


def test_the_usual_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEADWEIGHT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_folder() == Path("/x/deadweight")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    monkeypatch.setenv("HOME", "/h")
    assert default_folder() == Path("/h/.cache/deadweight")
    monkeypatch.setenv("DEADWEIGHT_CACHE_DIR", "/y")
    assert default_folder() == Path("/y")


def test_the_limit_is_said_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limit() == 20_000_000_000
    monkeypatch.setenv("DEADWEIGHT_CACHE_LIMIT", "5GB")
    assert limit() == 5_000_000_000
    monkeypatch.setenv("DEADWEIGHT_CACHE_LIMIT", "much")
    with pytest.raises(UsageError, match="DEADWEIGHT_CACHE_LIMIT"):
        limit()


def test_a_folder_that_others_can_come_to_is_not_trusted(tmp_path: Path) -> None:
    place = tmp_path / "cache"
    assert distrust(place) is None
    place.mkdir(0o777)
    make_folder(place)
    assert place.stat().st_mode & 0o7777 == 0o700, "of an empty one that is made true"
    assert distrust(place) is None
    for mode in (0o770, 0o710, 0o701, 0o755):
        place.chmod(mode)
        make_folder(place)
        assert "is open to others" in (distrust(place) or "")
    place.chmod(0o700)
    (tmp_path / "link").symlink_to(place)
    assert "is a link" in (distrust(tmp_path / "link") or "")
    (tmp_path / "file").touch()
    assert "no directory" in (distrust(tmp_path / "file") or "")
    if os.geteuid() == 0:
        os.chown(place, 12345, -1)
        assert "another user" in (distrust(place) or "")


@pytest.mark.parametrize("tag", [None, b"", b"Signature: 8a477f597d28d172789f06886806bc55\n# of somebody else\n"])
def test_a_folder_that_is_somebodys_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tag: bytes | None
) -> None:
    """What is old or no record leaves a cache: nothing of that may be the user's."""
    mine = tmp_path / "mine"
    kept = ["layers/weights.bin", "blobs/m.bin", "environments/prod/main.tf", "known/notes.txt"]
    for name in kept:
        (mine / name).parent.mkdir(parents=True)
        (mine / name).write_bytes(b"mine")
    if tag is not None:
        (mine / TAG).write_bytes(tag)
    for path in mine.rglob("*"):
        os.utime(path, (1, 1))
    monkeypatch.setenv("DEADWEIGHT_CACHE_DIR", str(mine))
    place = write_oci(tmp_path / "in", simple_image(), "v")
    assert main(["slim", f"oci:{place}:v", "--all-layers", "--to", f"oci:{tmp_path / 'out'}:v"]) == 0
    assert "holds what deadweight did not write" in capsys.readouterr().err
    assert main(["cache", "prune", "--all"]) == 4
    assert main(["cache", "info"]) == 4
    assert all((mine / name).read_bytes() == b"mine" for name in kept)
    shutil.rmtree(mine)
    mine.mkdir()
    assert main(["slim", f"oci:{place}:v", "--all-layers", "--to", f"oci:{tmp_path / 'again'}:v"]) == 0
    assert (mine / "known").exists(), "an empty folder may become a cache"
    assert main(["cache", "prune", "--all"]) == 0


def test_two_runs_may_make_the_folder_at_once(tmp_path: Path) -> None:

    def reason(root: Path) -> str | None:
        make_folder(root)
        return distrust(root)

    with ThreadPoolExecutor(8) as pool:
        for number in range(40):
            assert list(pool.map(reason, [tmp_path / "cache" / str(number)] * 8)) == [None] * 8


def test_a_limit_that_is_no_size_is_found_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEADWEIGHT_CACHE_LIMIT", "much")
    place = write_oci(tmp_path / "in", simple_image(), "v")
    assert main(["slim", f"oci:{place}:v", "--to", f"oci:{tmp_path / 'out'}:v"]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("words", "status"), [(["slim", "--to", "OUT"], 0), (["plan"], 0), (["cache", "dir"], 4)])
def test_without_a_home_there_is_no_cache(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
) -> None:
    """As in a container whose user is a number."""
    for name in ("DEADWEIGHT_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(number: int) -> NoReturn:
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    image = [f"oci:{write_oci(tmp_path / 'in', simple_image(), 'v')}:v"] if status == 0 else []
    out = f"oci:{tmp_path / 'out'}:v"
    assert main([words[0], *image, *(out if word == "OUT" else word for word in words[1:])]) == status
    assert "no home" in capsys.readouterr().err


def test_little_that_is_new_is_no_reason_to_go_through_all(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    (tmp_path / "known").mkdir()
    old = tmp_path / "known" / "old"

    def trimmed(new: int, limit: int = 10**9, age: float = 0.0) -> bool:
        old.write_bytes(b"x")
        os.utime(old, (1, 1))
        os.utime(tmp_path, (time.time() - age,) * 2)
        trim_when_due(cache, limit, new)
        return not old.exists()

    assert not trimmed(999_999)
    assert trimmed(2 << 20)
    assert trimmed(1000, limit=1_000_000)
    assert trimmed(1, age=3601.0)
    assert not trimmed(1, age=3500.0)
    assert trimmed(1, age=-60.0)  # a clock that was set back
    assert not trimmed(0, age=3601.0)
