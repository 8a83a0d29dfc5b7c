"""prune_tree with weights: models get smaller in place, and RECORD says so."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deadweight.cli import main
from deadweight.models.check import check_converted
from deadweight.prune import prune_tree
from support.records import records
from support.sites import snapshot, temporary_files
from support.weights import weights

CONFIG = b'{\n  "model_type": "bert"\n}\n'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A distribution with a model, installed beside transformers, with RECORD files."""
    root = tmp_path / "site-packages"
    files = {
        "ours/__init__.py": b"",
        "ours/model/config.json": CONFIG,
        "ours/model/model.safetensors": weights(rows=64),
    }
    for name, version, mine in (
        ("ours", "1", files),
        ("transformers", "5.24.0", {"transformers/__init__.py": b""}),
        ("torchao", "0.18.0", {"torchao/__init__.py": b""}),
    ):
        for path, data in mine.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        info = root / f"{name}-{version}.dist-info"
        info.mkdir()
        lines = [f"{path},sha256={_urlsafe(data)},{len(data)}" for path, data in mine.items()]
        (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/RECORD,,"]) + "\n")
    return root


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@pytest.mark.parametrize("to", ["fp16", "bf16", "int8"])
def test_models_get_smaller_and_record_follows(site: Path, to: str) -> None:
    old = weights(rows=64)
    found = prune_tree(site, None, symbols=False, weights=to)
    new = (site / "ours/model/model.safetensors").read_bytes()
    check_converted(
        lambda at, length: old[at : at + length], len(old), lambda at, length: new[at : at + length], len(new), to
    )
    config = json.loads((site / "ours/model/config.json").read_bytes())
    assert config["torch_dtype"] == "float32"
    assert ("quantization_config" in config) == (to == "int8")
    assert found.weights_bytes == sum(file.weights_bytes for file in found.files)
    assert {file.path: file.after_bytes for file in found.files}["ours/model/model.safetensors"] == len(new)
    assert found.after_bytes == found.before_bytes - found.weights_bytes
    assert sum(file.before_bytes - file.after_bytes for file in found.files) == found.weights_bytes
    wrong, _ = records(site)
    assert wrong == set()
    assert temporary_files(site) == []
    before = snapshot(site)
    again = prune_tree(site, None, symbols=False, weights=to)
    assert snapshot(site) == before
    assert again.files == []


def test_a_dry_run_says_the_same(site: Path) -> None:
    before = snapshot(site)
    dry = prune_tree(site, None, symbols=False, weights="fp16", dry_run=True)
    assert snapshot(site) == before
    assert dry.files == prune_tree(site, None, symbols=False, weights="fp16").files


def test_names_of_one_file_stay_one_file_and_names_outside_keep_the_old(site: Path, tmp_path: Path) -> None:
    path, copy, cache = site / "ours/model/model.safetensors", site / "ours/again/model.safetensors", tmp_path / "cache"
    copy.parent.mkdir()
    (copy.parent / "config.json").write_bytes(CONFIG)
    os.link(path, copy)
    os.link(path, cache)
    old = path.read_bytes()
    found = prune_tree(site, None, symbols=False, weights="fp16")
    assert copy.samefile(path)
    assert cache.read_bytes() == old != path.read_bytes()
    assert [file.links for file in found.files if file.links] == [["ours/model/model.safetensors"]]


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_what_a_model_that_stays_shares_stays(site: Path, link: Callable[[Path, Path], None]) -> None:
    path, other = site / "ours/model/model.safetensors", site / "ours/gpt2/model.safetensors"
    other.parent.mkdir()
    (other.parent / "config.json").write_bytes(b'{"model_type": "gpt2"}')
    link(path, other)
    before = snapshot(site)
    found = prune_tree(site, None, symbols=False, weights="int8")
    assert snapshot(site) == before
    assert any("ours/gpt2/model.safetensors is a file of it, too" in left.reason for left in found.left)


def test_what_stays_says_why(site: Path) -> None:
    (site / "ours/model/config.json").write_bytes(b"{}")
    found = prune_tree(site, None, symbols=False, weights="fp16")
    assert found.files == []
    assert "no config.json of transformers is beside it" in found.left[0].reason
    assert found.left[0].what == "weights"


def test_damaged_models_stay_with_their_configuration(site: Path) -> None:
    path = site / "ours/model/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    before = snapshot(site)
    found = prune_tree(site, None, symbols=False, weights="fp16")
    assert snapshot(site) == before
    assert any("its tensors take" in left.reason for left in found.left)


def test_the_command_says_what_it_saved(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", str(site), "--weights", "fp16", "--keep-symbols"]) == 0
    assert "weights 2," in capsys.readouterr().out
