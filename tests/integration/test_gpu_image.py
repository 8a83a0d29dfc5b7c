"""An image with NVIDIA's own curand in it, slimmed for one GPU from the command line, and looked at by others."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest

from deadweight.binary.loadcheck import check_load
from support import cuda
from support.images import directory, file, make_image, make_tar, write_docker_archive
from support.records import records

pytestmark = pytest.mark.xdist_group("CUDA libraries")

SITE = "usr/local/lib/python3.11/site-packages"
LIBRARY = f"{SITE}/nvidia/curand/lib/libcurand.so.10"


class Slimmed(NamedTuple):
    """The image before, the plan, the report, and the image afterwards, as files."""

    before: Path
    plan: dict[str, Any]
    report: dict[str, Any]
    after: Path
    root: Path


def deadweight(*arguments: str | Path, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "deadweight", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def slimmed() -> Iterator[Slimmed]:
    with TemporaryDirectory(prefix="deadweight-gpu-", dir="/var/tmp") as folder:
        work = Path(folder)
        yield _slimmed(work)


def _slimmed(work: Path) -> Slimmed:
    installed = cuda.oracle("lib/python3*/site-packages")
    (info,) = (path for path in installed.glob("nvidia_curand_cu12-*.dist-info"))
    listed = [line.split(",")[0] for line in (info / "RECORD").read_text().splitlines()]
    members = [
        file(f"{SITE}/{name}", (installed / name).read_bytes()) for name in listed if not name.endswith((".pyc", ".h"))
    ]
    base = [directory("usr"), file("usr/local/bin/python3.11", mode=0o755), file("usr/local/lib/python3.11/os.py")]
    image = make_image(make_tar(*base), make_tar(*members), run={"Cmd": ["python3.11"]})
    before, after = work / "before.tar", work / "after.tar"
    write_docker_archive(before, image, tag="gpu:test")
    deadweight("plan", before, "--gpu", "h100", "--drop-ptx", "-o", work / "plan.json")
    slim: list[str | Path] = ["slim", before, "--gpu", "sm_90", "--drop-ptx", "--to", f"docker-archive:{after}"]
    report = json.loads(deadweight(*slim, "--json", "-"))
    deadweight("apply", work / "plan.json", "--from", after, "--to", f"rootfs:{work / 'no'}", status=3)
    deadweight("apply", work / "plan.json", "--to", f"rootfs:{work / 'root'}")
    return Slimmed(before, json.loads((work / "plan.json").read_text()), report, after, work / "root")


def test_the_library_is_smaller_as_predicted(slimmed: Slimmed) -> None:
    report = slimmed.report
    assert report["predicted_bytes"] == report["after_bytes"] < report["before_bytes"] - 100_000_000
    (cut,) = (cut for cut in report["cuts"] if cut["pass"] == "gpu-code")
    assert cut["path"] == LIBRARY
    assert cut["risk"] == "target"
    stripped = [cut for cut in report["cuts"] if cut["pass"] == "symbols" and cut["path"] == LIBRARY]
    size = (slimmed.root / LIBRARY).stat().st_size
    after = stripped[0]["after_bytes"] if stripped else cut["after_bytes"]
    assert size <= after < size + 1024


def test_it_loads_and_holds_what_the_gpu_needs(slimmed: Slimmed) -> None:
    path = slimmed.root / LIBRARY
    check_load(path, cuda.package_file("curand/lib/libcurand.so.10"))
    ctypes.CDLL(str(path))
    assert {arch for _, arch in cuda.cuobjdump_list(path)} == {"sm_90"}


def test_metadata_follow(slimmed: Slimmed) -> None:
    wrong, lines = records(slimmed.root)
    assert lines > 5
    assert {name for name in wrong if name.endswith((".so.10", "RECORD"))} == set()
    assert slimmed.plan["target"] == {"gpus": ["sm_90"], "keep_ptx": False, "raw_blobs": False, "recompress": False}


def test_the_image_says_for_whom_it_is(slimmed: Slimmed) -> None:
    document = json.loads((slimmed.root / "usr/share/deadweight/target.json").read_text())
    assert (document["gpus"], document["keep_ptx"]) == (["sm_90"], False)
    answer = deadweight("doctor", slimmed.after, "--gpu", "t4", status=1)
    assert "sm_90" in answer
    assert "sm_75" in answer
    deadweight("doctor", slimmed.after, "--gpu", "h200")
    labels = deadweight("inspect", slimmed.after, "--json", "-")
    assert json.loads(labels)["gpu_code"]


def test_slimmed_again_nothing_of_it_leaves(slimmed: Slimmed) -> None:
    plan = json.loads(deadweight("plan", slimmed.after, "--gpu", "sm_90", "--drop-ptx", "-o", "-"))
    assert [cut for cut in plan["cuts"] if cut["pass"] == "gpu-code"] == []


def test_without_a_gpu_nothing_is_touched_and_savings_are_named(slimmed: Slimmed) -> None:
    report = deadweight("plan", slimmed.before)
    assert "What declaring a GPU would save" in report
    assert "--gpu sm_90" in report
    assert "gpu-code" not in report
