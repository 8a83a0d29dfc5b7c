"""A swap and smaller weights in one plan: each is done, and both are proved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deadweight import open_image
from deadweight.cli import main
from support.images import file
from support.layers import merged_view
from support.swapping import SITE, cpu_wheel, gpu_image, installed, saved
from support.weights import weights


def test_both_are_done_and_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    more = [
        *installed("transformers", "5.24.0", {"transformers/__init__.py": b""}, ("safetensors",)),
        *installed("safetensors", "0.8.0", {"safetensors/__init__.py": b""}),
        file("srv/model/config.json", b'{"model_type": "bert"}'),
        file("srv/model/model.safetensors", weights(rows=64)),
        file("app/more.py", b"import transformers\n"),
    ]
    image, wheel = saved(tmp_path, gpu_image(*more)), cpu_wheel(tmp_path / "wheels")
    to, plan, verdict = f"oci:{tmp_path / 'out'}", tmp_path / "plan.json", tmp_path / "verdict.json"
    planning = ["--swap", f"torch={wheel}", "--weights", "fp16", "--all-layers"]
    assert main(["slim", image, "--to", to, *planning, "--plan-out", str(plan)]) == 0
    with open_image(to) as opened:
        view = merged_view([b"".join(layer.tar.chunks()) for layer in opened.layers])
    assert len(view["srv/model/model.safetensors"].content) < len(weights(rows=64))
    assert json.loads(view["srv/model/config.json"].content)["torch_dtype"] == "float32"
    assert f"{SITE}/torch-2.9.0+cpu.dist-info/METADATA" in view
    again = f"oci:{tmp_path / 'again'}"
    assert main(["apply", str(plan), "--to", again]) == 0
    with open_image(to) as one, open_image(again) as two:
        assert [layer.diff_id for layer in one.layers] == [layer.diff_id for layer in two.layers]
    proving = ["verify", image, to, "--plan", str(plan), "--static-only", "--json", str(verdict)]
    assert main(proving) in (0, 4)
    found = json.loads(verdict.read_bytes())["verdict"]["probes"]
    assert [probe["details"] for probe in found] == [[], []]
    assert any("weights to the nearest number" in note for note in found[0]["notes"])
