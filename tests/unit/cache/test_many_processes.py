"""Real processes that use one cache at once, one of which is cleared meanwhile; and disks that are full."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deadweight.image.transports import open_image
from support.caching import OPTIONS, cache_folder, cached_files, files_of, service, slim
from support.images import write_oci

HERE = "from deadweight.cli import main; import sys; raise SystemExit(main(sys.argv[1:]))"


def start(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", HERE, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ.copy()
    )


def test_processes_that_slim_at_once_and_one_that_prunes(tmp_path: Path) -> None:
    images = [service(f"import kernels\nprint({number % 2})\n".encode()) for number in range(4)]
    (tmp_path / "expected").mkdir()
    expected = [slim(tmp_path / "expected", image, "--no-cache").files for image in images[:2]]
    sources = [write_oci(tmp_path / f"in-{number}", image, "v") for number, image in enumerate(images)]
    for _ in range(2):  # with a cache that is empty, and one that is not
        out = tmp_path / "out"
        running = [
            start("slim", f"oci:{source}:v", "--to", f"oci:{out}-{number}:t", *OPTIONS)
            for number, source in enumerate(sources)
        ]
        pruning = [start("cache", "prune", "--all") for _ in range(3)]
        for each in (*running, *pruning):
            _, said = each.communicate(timeout=300)
            assert each.returncode == 0, said.decode()
        for number in range(len(images)):
            assert files_of(Path(f"{out}-{number}"), "t").keys() == expected[number % 2].keys()
            with open_image(f"oci:{out}-{number}:t") as image:
                for layer in image.layers:
                    layer.check()
    assert not [path for path in cached_files() if path.name.startswith(".partial-")]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k,mode=700", "tmpfs", str(place)]
    made = subprocess.run(mount, check=False, capture_output=True)
    if made.returncode:
        pytest.skip(f"cannot mount here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_costs_nothing_but_the_cache(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "expected").mkdir()
    expected = slim(tmp_path / "expected", service(), "--no-cache")
    monkeypatch.setenv("DEADWEIGHT_CACHE_DIR", str(small))
    (small / "fill").write_bytes(b"x" * 110_000)
    (tmp_path / "place").mkdir()
    for _ in range(2):
        assert slim(tmp_path / "place", service()) == expected
    (small / "fill").write_bytes(b"")
    assert slim(tmp_path / "place", service()) == expected


def test_a_cache_that_is_no_folder_or_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "expected").mkdir()
    expected = slim(tmp_path / "expected", service(), "--no-cache")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "place").mkdir()
    for name in ("file", "file/below", "/proc/none"):
        monkeypatch.setenv("DEADWEIGHT_CACHE_DIR", str(tmp_path / name))
        assert slim(tmp_path / "place", service()) == expected


def test_what_is_over_the_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "place").mkdir()
    slim(tmp_path / "place", service())
    full = sum(path.stat().st_size for path in cached_files())
    for name in ("known", "made", "layers"):
        subprocess.run(["rm", "-r", str(cache_folder() / name)], check=True)
    monkeypatch.setenv("DEADWEIGHT_CACHE_LIMIT", "50kB")
    expected = slim(tmp_path / "place", service(), "--no-cache")
    assert slim(tmp_path / "place", service()) == expected
    assert sum(path.stat().st_size for path in cached_files()) <= 50_000 < full
    monkeypatch.setenv("DEADWEIGHT_CACHE_LIMIT", "0")
    assert slim(tmp_path / "place", service()) == expected
