"""--gpu and what goes with it: into the plan, into the report, and nowhere without --gpu."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deadweight.cli import main
from deadweight.report.terminal import target_line
from support.service import save


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(tmp_path_factory.mktemp("image")))


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "COLUMNS", "DEADWEIGHT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("deadweight.binary.recompress.encoder", lambda: "lz4 1.0")


PLAIN = {"gpus": ["sm_90"], "keep_ptx": True, "raw_blobs": False, "recompress": False}


@pytest.mark.parametrize(
    ("options", "target"),
    [
        ([], {}),
        (["--gpu", "h100"], PLAIN),
        (["--gpu", "9.0,a100", "-g", "sm_90"], {**PLAIN, "gpus": ["sm_80", "sm_90"]}),
        (["--gpu", "none"], {**PLAIN, "gpus": []}),
        (["--gpu", "h100", "--keep-ptx"], PLAIN),
        (["--keep-ptx"], {}),
        (["--gpu", "h100", "--drop-ptx", "--raw-blobs"], {**PLAIN, "keep_ptx": False, "raw_blobs": True}),
        (["--gpu", "h100", "--recompress"], {**PLAIN, "recompress": True, "encoder": "lz4 1.0"}),
    ],
)
def test_what_is_declared_is_in_the_plan(
    options: list[str], target: dict[str, Any], image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan, report = tmp_path / "plan.json", tmp_path / "report.json"
    to = f"docker-archive:{tmp_path / 'out.tar'}"
    assert main(["plan", image, "-o", str(plan), *options]) == 0
    assert json.loads(plan.read_bytes())["target"] == target
    line = f"for {target_line(target)}\n" if target else "bytes leave\n"
    assert line in capfd.readouterr().out
    assert main(["slim", image, "--to", to, *options, "--json", str(report)]) == 0
    assert json.loads(report.read_bytes())["target"] == target
    assert line in capfd.readouterr().out
    assert main(["apply", str(plan), "--to", to, "--force", "--json", "-"]) == 0
    assert json.loads(capfd.readouterr().out)["target"] == target


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--drop-ptx"], "--drop-ptx says what to do about GPU code"),
        (["--raw-blobs"], "--raw-blobs says"),
        (["--recompress"], "--recompress says"),
        (["--gpu", ""], "no GPU is named"),
        (["--gpu", "none,h100"], "cannot be given together"),
        (["--gpu", "h10000"], "no GPU known here"),
        (["--gpu", "\x1b[31m"], r"\x1b[31m"),
    ],
)
@pytest.mark.parametrize("command", ["plan", "slim"])
def test_what_cannot_be_meant_is_refused_before_the_image_is_read(
    command: str, options: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    to = ["--to", f"oci:{tmp_path / 'out'}"] if command == "slim" else []
    assert main([command, str(tmp_path / "missing.tar"), *to, *options]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert message in err
    assert "\x1b" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_another_encoder_is_bad_input(
    image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plan.json"
    assert main(["plan", image, "-o", str(plan), "--gpu", "h100", "--recompress"]) == 0
    monkeypatch.setattr("deadweight.binary.recompress.encoder", lambda: "lz4 2.0")
    assert main(["apply", str(plan), "--to", f"oci:{tmp_path / 'out'}"]) == 3
    assert "'lz4 1.0', here it is 'lz4 2.0'" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({}, "sm_90, PTX kept"),
        ({"gpus": ["sm_80", "sm_90"], "keep_ptx": False}, "sm_80, sm_90, PTX dropped"),
        ({"gpus": []}, "machines without a GPU"),
        ({"raw_blobs": True}, "sm_90, PTX kept, GPU code outside fatbin sections as well"),
        ({"recompress": True, "encoder": "lz4 1\x1b"}, r"sm_90, PTX kept, recompressed by lz4 1\x1b"),
    ],
)
def test_targets_in_a_line(change: dict[str, Any], line: str) -> None:
    assert target_line({**PLAIN, **change}) == line
