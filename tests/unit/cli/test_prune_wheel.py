"""`deadweight prune` and `deadweight wheel`: what they say, to people and to programs, and the exit statuses."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from deadweight.cli import main
from support import elf, hosts
from support.service import tables
from support.wheels import make_wheel

LAYOUT = hosts.LAYOUTS["library"]
NOT_UTF8 = os.fsdecode(b"\xff\x1b[31m.so")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    hosts.build(LAYOUT, folder).rename(folder / "gpu.so")
    (folder / "plain.so").write_bytes(elf.library(folder))
    return folder


@pytest.fixture
def tree(tmp_path: Path, built: Path) -> Path:
    tree = tmp_path / "tree"
    for name, source in {"a/gpu.so": "gpu.so", "b/plain.so": "plain.so", "c/x.o": "plain.so"}.items():
        (tree / name).parent.mkdir(parents=True)
        shutil.copy(built / source, tree / name)
    return tree


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "COLUMNS", "DEADWEIGHT_DEBUG"):
        monkeypatch.delenv(name, raising=False)


class Run:
    """What a call gave."""

    def __init__(self, capfd: pytest.CaptureFixture[str], *arguments: object) -> None:
        self.status = main([str(each) for each in arguments])
        self.out, self.err = capfd.readouterr()

    @property
    def document(self) -> dict[str, Any]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def test_prune_for_programs(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    dry = Run(capfd, "prune", tree, "--gpu", "h100", "--dry-run", "--json", "-").document
    run = Run(capfd, "prune", tree, "--gpu", "h100", "--check-load", "--json", "-")
    assert (run.status, run.err) == (0, "")
    document = run.document
    assert (dry.pop("dry_run"), document.pop("dry_run")) == (True, False)
    assert dry == document
    assert document["schema"] == "deadweight.prune/1"
    assert (document["gpus"], document["keep_ptx"]) == (["sm_90"], True)
    assert document["before_bytes"] - document["after_bytes"] == sum(
        file["before_bytes"] - file["after_bytes"] for file in document["files"]
    )
    assert [file["path"] for file in document["files"]] == ["a/gpu.so", "b/plain.so"]
    assert [(file["path"], file["what"]) for file in document["left"]] == [("c/x.o", "file")]
    again = Run(capfd, "prune", tree, "--gpu", "sm_90", "--json", "-").document
    assert (again["files"], again["before_bytes"]) == ([], again["after_bytes"])


def test_prune_for_people(tree: Path, built: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copy(built / "plain.so", tree / "b" / NOT_UTF8)
    (tree / "b/link.so").symlink_to(built / "gpu.so")
    dry = Run(capfd, "prune", tree, "--gpu", "h100", "--dry-run")
    assert "nothing was changed" in dry.out
    run = Run(capfd, "prune", tree, "--gpu", "h100", "--json", tmp_path / "report.json", "-n", "1")
    assert (run.status, run.err) == (0, "")
    found = tables(run.out)
    document = json.loads((tmp_path / "report.json").read_bytes())
    saved = document["before_bytes"] - document["after_bytes"]
    assert {name: numbers[-1] for name, numbers in found.items()} == {
        "Saved, by package": saved,
        "Saved, by library": saved,
    }
    assert [len(found[name]) for name in ("Saved, by package", "Saved, by library")] == [3, 3]
    for said in ("for sm_90; PTX stays", "an object file", "c/x.o", "--link-mode copy", "not followed"):
        assert said in " ".join(run.out.split()), said
    assert all(line.isprintable() for line in run.out.splitlines())
    again = Run(capfd, "prune", tree, "--gpu", "h100")
    assert "nothing to drop" in again.out
    assert tables(again.out) == {}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpu", "none"], "for machines without a GPU"),
        ([], "no GPU declared: GPU code stays"),
        (["--gpu", "l4,a100", "--drop-ptx"], "for sm_80, sm_89; PTX leaves: newer GPUs are out"),
        (["--gpu", "h100", "--keep-symbols"], "symbols 0 bytes"),
    ],
)
def test_options_reach_the_work(options: list[str], said: str, tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = Run(capfd, "prune", tree, *options)
    assert run.status == 0
    assert said in run.out


def test_what_patchelf_left_behind_is_told_apart(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tree / "b/plain.so").write_bytes(elf.patched_library(tree.parent))
    run = Run(capfd, "prune", tree, "--keep-symbols")
    assert run.status == 0
    assert re.search(r"symbols 0 bytes \(0 B\), leftovers [\d,]+ bytes", run.out)
    assert re.search(r"1 file: leftovers \d", run.out)


def test_wheel(tmp_path: Path, built: Path, capfd: pytest.CaptureFixture[str]) -> None:
    index = tmp_path / "index"
    index.mkdir()
    wheel = make_wheel(tmp_path, {"gpu_thing/libgpu.so": (built / "gpu.so").read_bytes()})
    (tmp_path / "pure").mkdir()
    pure = make_wheel(
        tmp_path / "pure",
        {"pure.py": b""},
        name="pure-1-py3-none-any.whl",
        info="pure-1.dist-info",
        metadata="Metadata-Version: 2.1\nName: pure\nVersion: 1\n",
    )
    run = Run(capfd, "wheel", wheel, pure, "--gpu", "h100", "--to", index)
    assert (run.status, run.err) == (0, "")
    assert "gpu_thing-2.9.0+sm90-py3-none-any.whl" in run.out
    assert "nothing to drop: no wheel was written" in run.out
    assert len(list(index.iterdir())) == 1
    run = Run(capfd, "wheel", wheel, pure, "--gpu", "h100", "--to", index, "--force", "--json", "-", "--same-version")
    assert run.status == 0
    assert run.document["schema"] == "deadweight.wheel/1"
    one, two = run.document["wheels"]
    assert (Path(one["wheel"]).name, one["version"], two["wheel"]) == (wheel.name, "2.9.0", None)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["prune", "TREE/none"], 3, "No such file"),
        (["prune", "TREE/a/gpu.so"], 3, "Not a directory"),
        (["prune", "TREE", "--gpu", "sm_9000"], 2, "deadweight gpus"),
        (["prune", "TREE", "--drop-ptx"], 2, "--gpu"),
        (["prune", "TREE", "--gpu", "h100", "--json", "TREE/x/y"], 2, "no directory"),
        (["prune"], 2, "DIR"),
        (["wheel", "--to", "TREE", "--gpu", "h100"], 2, "FILE.whl"),
        (["wheel", "TREE/x-1-py3-none-any.whl", "--gpu", "h100"], 2, "--to"),
        (["wheel", "TREE/x-1-py3-none-any.whl", "--to", "TREE"], 2, "--gpu"),
        (["wheel", "TREE/x-1-py3-none-any.whl", "--to", "TREE", "--gpu", "h100"], 3, "cannot read"),
        (["wheel", "TREE/a/gpu.so", "--to", "TREE", "--gpu", "h100"], 3, "damaged"),
        (["wheel", "TREE/a/gpu.so", "--to", "TREE", "--gpu", "h100", "--json", "TREE/a/gpu.so"], 2, "an input"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_changes_nothing(
    arguments: list[str], status: int, said: str, tree: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.lstat().st_ino for path in tree.rglob("*")}
    run = Run(capfd, *(text.replace("TREE", str(tree)) for text in arguments))
    assert run.status == status, run.err
    assert run.out == ""
    assert said in run.err
    if run.err.startswith("deadweight"):
        assert run.err.count("\n") == 1
    assert {path: path.lstat().st_ino for path in tree.rglob("*")} == before


@pytest.mark.parametrize("command", ["prune", "wheel"])
def test_help_has_examples_in_80_columns(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    text = Run(capfd, command, "--help").out
    assert "Examples:\n" in text
    assert max(map(len, text.splitlines())) <= 80
    for word in {"prune": ("--check-load", "--dry-run"), "wheel": ("===2.9.0", "--same-version", "lock")}[command]:
        assert word in text
