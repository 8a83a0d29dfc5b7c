"""`deadweight cache`, and what is said before any work is done."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deadweight.cli.main import main
from support.caching import cache_folder, cached_files, service, slim


def info(capfd: pytest.CaptureFixture[str]) -> dict[str, dict[str, int]]:
    capfd.readouterr()
    assert main(["cache", "info", "--json", "-"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["directory"] == str(cache_folder())
    assert found["bytes"] == sum(kind["bytes"] for kind in found["kinds"])
    return {kind["kind"]: kind for kind in found["kinds"]}


def test_info_and_prune(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert {kind["entries"] for kind in info(capfd).values()} == {0}
    slim(tmp_path, service(), compression="gzip")
    kinds = info(capfd)
    assert kinds["known"]["entries"] > 10
    assert kinds["layers"]["bytes"] >= sum(map(len, service().layers))
    assert main(["cache", "info"]) == 0
    assert "at most 20,000,000,000 bytes" in capfd.readouterr().out
    assert main(["cache", "prune", "--max-size", "40kB"]) == 0
    assert "left the cache" in capfd.readouterr().err
    assert 0 < sum(path.stat().st_size for path in cached_files()) <= 40_000
    assert main(["cache", "prune", "--all"]) == 0
    assert not cached_files()
    assert main(["cache", "dir"]) == 0
    assert capfd.readouterr().out == f"{cache_folder()}\n"


def test_what_was_used_last_stays(tmp_path: Path) -> None:
    slim(tmp_path, service())
    (old,) = [path for path in cached_files() if path.name == f"{service().diff_ids[0][7:]}.entries"]
    for path in cached_files():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    before = old.stat().st_mtime
    slim(tmp_path, service())
    assert old.stat().st_mtime > before, "it was used"
    assert main(["cache", "prune"]) == 0
    assert old.exists()
    assert not list(cache_folder().glob("made/*/*")), "what nobody asked for is too old"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["cache", "prune", "--all", "--max-size", "1GB"], 2, "--all and --max-size"),
        (["cache", "prune", "--max-size", "much"], 2, "is no size"),
        (["cache", "nothing"], 2, "No such command"),
        (["cache", "info", "--help"], 0, "Show what the cache holds"),
    ],
)
def test_usage(words: list[str], status: int, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(words) == status
    out, err = capfd.readouterr()
    assert said in out + err


def test_a_cache_of_others_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "info"]) == 0
    cache_folder().chmod(0o777)
    for words in (["info"], ["prune", "--all"]):
        assert main(["cache", *words]) == 4
        assert "is open to others" in capfd.readouterr().err


def test_a_limit_that_is_none_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DEADWEIGHT_CACHE_LIMIT", "much")
    assert main(["plan", "/no/such/image.tar"]) == 2
    assert "DEADWEIGHT_CACHE_LIMIT" in capfd.readouterr().err


def test_a_cache_that_is_a_link_is_said_to_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setenv("DEADWEIGHT_CACHE_DIR", str(tmp_path / "link"))
    assert main(["cache", "info"]) == 4
    said = capfd.readouterr().err
    assert "link' is a link" in said
    assert f"DEADWEIGHT_CACHE_DIR='{tmp_path / 'real'}'" in said
    assert not list((tmp_path / "real").iterdir())
    monkeypatch.setenv("DEADWEIGHT_CACHE_DIR", str(tmp_path / "real"))
    slim(tmp_path, service())
    assert (tmp_path / "real/CACHEDIR.TAG").exists()
