"""torch's real CPU build takes the place of a GPU build, is slimmed like all else, and computes what it did."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deadweight import open_image
from deadweight.cli import main
from deadweight.errors import BadInputError
from deadweight.files.cpu_wheel import CpuWheel, Runs, Sources, find_cpu_wheel
from support import mini
from support.careless import untrue_records, urlsafe
from support.images import Member, file
from support.layers import merged_view

VERSION = "2.13.0"
NEEDED = (
    "filelock",
    "typing-extensions",
    "setuptools",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "markupsafe",
    "fsspec",
)
GPU_NEEDS = ("nvidia-cublas", "triton")
SPEC = """
[[probe]]
kind = "run"
name = "computes"
code = '''
import os, torch
torch.manual_seed(0)
layer = torch.nn.Linear(64, 32)
out = layer(torch.randn(8, 64)).softmax(-1)
print(torch.__version__, torch.version.cuda, [round(x, 6) for x in out[0].tolist()])
'''
must = true
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> CpuWheel:
    runs = Runs(mini.VERSION, platform.machine(), tuple(map(int, platform.libc_ver()[1].split("."))))  # type: ignore[arg-type]
    try:
        return find_cpu_wheel("torch", VERSION, runs, Sources(), tmp_path_factory.mktemp("wheel"))
    except BadInputError as error:
        pytest.skip(f"pip has no CPU build to test with: {error}")


def gpu_build(wheel: CpuWheel) -> list[Member]:
    """The CPU build, as it would be installed if it were a GPU build: pip's sources here may have no real one."""
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(wheel.path) as archive:
        for name in archive.namelist():
            if not name.startswith((f"torch-{wheel.version}.dist-info/", "torch/test/", "torch/include/")):
                files[name] = archive.read(name)
    files["torch/version.py"] = files["torch/version.py"].replace(wheel.version.encode(), f"{VERSION}+cu130".encode())
    files["torch/lib/libtorch_cuda.so"] = bytes(4 << 20)
    needs = "".join(f"Requires-Dist: {name}\n" for name in (*NEEDED, *GPU_NEEDS))
    info = f"torch-{VERSION}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: torch\nVersion: {VERSION}\n{needs}\n".encode()
    record = "".join(f"{name},{urlsafe(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    return [
        file(f"{mini.SITE}/{name}", data, mode=0o755 if name == "torch/bin/torch_shm_manager" else 0o644)
        for name, data in files.items()
    ]


@pytest.mark.slow
def test_torch_as_a_cpu_build(wheel: CpuWheel, tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site)]
    subprocess.run([*command, "pip", *NEEDED], check=True)
    members = [*gpu_build(wheel), *mini.installed("pip", *NEEDED, where=site)]
    members += mini.site({"triton": {"triton/__init__.py": b"x = 1\n"}, "nvidia_cublas": {"nvidia/cublas/x": b"x"}})
    image = mini.mini_image(tmp_path, members)
    members.clear()
    (tmp_path / "spec.toml").write_text(SPEC)
    plan, report, again = tmp_path / "plan.json", tmp_path / "report.json", tmp_path / "again.tar"
    words = ["slim", image, "--to", f"docker-archive:{tmp_path / 'cpu.tar'}", "--swap", f"torch={wheel.path}"]
    words += ["--verify", str(tmp_path / "spec.toml"), "--tolerance", "1e-5"]
    status = main([*words, "--plan-out", str(plan), "--json", str(report)])
    found = json.loads(report.read_bytes())
    failed = [probe for probe in found["verdict"]["probes"] if not probe["ok"]]
    assert (status, failed) == (0, [])
    probes = {probe["name"]: probe for probe in found["verdict"]["probes"]}
    assert "No broken requirements" in probes["pip check"]["after"]
    assert f"{VERSION}+cu130 -> {wheel.version}" in " ".join(probes["computes"]["notes"])
    assert found["swaps"][0]["after"] == wheel.version
    assert found["after_bytes"] == found["predicted_bytes"]
    with open_image(f"docker-archive:{tmp_path / 'cpu.tar'}") as slim:
        view = merged_view([b"".join(layer.tar.chunks()) for layer in slim.layers])
        config = slim.config_bytes
    # RECORD of the others lists bytecode that is not in this image, before and after.
    assert not [line for line in untrue_records(view) if "/torch-" in line]
    assert not any("triton" in path and "dist-info" in path for path in view)
    assert f"{mini.SITE}/torch/bin/torch_shm_manager" in view
    assert f"{mini.SITE}/torch/bin/test_api" not in view  # a program of Google Test
    view.clear()
    assert main(["apply", str(plan), "--to", f"docker-archive:{again}"]) == 0
    with open_image(f"docker-archive:{again}") as other:
        assert other.config_bytes == config
