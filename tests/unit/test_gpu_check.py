"""bench/gpu_check.py where there is no GPU: what it skips, how it judges, and its whole course over a stand-in torch.

The stand-in makes numpy do what two probes ask of torch, says that there is a GPU when DEADWEIGHT_FAKE holds "cuda",
and fails there as a GPU without code would. All else is real: processes, copies, `deadweight prune`, numpy.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from gpu_check import other_gpu
from gpu_children import Runner, run_probes
from gpu_find import closure, files_of
from gpu_kit import digest, error_text, flatten
from gpu_record import default_out
from gpu_trees import CannotCheck, Stack, Tree, environment, find_stack, shadowed
from gpu_verdicts import Judged, Outcome, all_clear, all_same, as_records, judge, judge_elsewhere

ROOT = Path(__file__).parents[2]
NO_KERNEL = "AcceleratorError: CUDA error: no kernel image is available for execution on the device"

TORCH = """
import os, sys, time
from types import SimpleNamespace
import numpy
from torch import cuda

MODE = os.environ.get("DEADWEIGHT_FAKE", "")
TREE = os.path.basename(os.path.dirname(os.path.dirname(__file__)))
__version__ = "0.1"
float32 = "float32"
version = SimpleNamespace(cuda="13.0")
backends = SimpleNamespace(cudnn=SimpleNamespace(version=lambda: 91002))
_C = SimpleNamespace(_cuda_getArchFlags=lambda: "sm_75 sm_80 sm_90 compute_120")
use_deterministic_algorithms = set_float32_matmul_precision = lambda *_, **__: None

class Tensor(numpy.ndarray):
    def to(self, _): return self
    def abs(self): return abs(self)

def manual_seed(_):
    if TREE == "pruned" and "differs" in MODE:
        raise RuntimeError("only here")
    if (flag := os.environ.get("DEADWEIGHT_ONCE")) and os.path.exists(flag):
        os.remove(flag)
        os.abort() if "crash" in MODE else time.sleep(60)

def on_gpu(value):
    if TREE == "other":
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\\nmore")
    return value

class Generator:
    def manual_seed(self, seed):
        self.source = numpy.random.default_rng(seed)
        return self

def randn(shape, generator): return generator.source.standard_normal(shape).view(Tensor)
def ones(*shape, device): return numpy.ones(shape).view(Tensor)
same = lambda value, *_: on_gpu(value)
special = SimpleNamespace(airy_ai=same, bessel_j0=same, i0e=same, zeta=same, gammainc=same, chebyshev_polynomial_t=same)
nn = SimpleNamespace(functional=SimpleNamespace(conv2d=lambda image, kernel: image))
"""
CUDA = """
import os
def is_available(): return "cuda" in os.environ.get("DEADWEIGHT_FAKE", "")
def init(): raise RuntimeError("no driver here\\nmore")
def get_device_capability(_): return 9, 0
def get_device_name(_): return "NVIDIA Fake 80GB"
def mem_get_info(_=0): return 60, 100
def synchronize(): pass
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A directory to import the stand-in from, as if it was installed there."""
    files = {
        "torch/__init__.py": TORCH,
        "torch/cuda/__init__.py": CUDA,
        "torch/cuda/nccl.py": "def version(): return 2, 27, 5\n",
        "torch-0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: torch\nVersion: 0.1\nRequires-Dist: numpy\n",
    }
    place = tmp_path / "site"
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    (place / "torch-0.1.dist-info/RECORD").write_text("".join(f"{name},,\n" for name in files))
    return place


def check(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "bench/gpu_check.py"
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env={**os.environ, **more},
    )


def test_without_torch_it_is_skipped(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    done = check("--python", bare)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("skipped: ")
    assert "has no torch" in done.stdout
    assert done.stdout.count("\n") == 1
    absent = check("--python", tmp_path / "absent")
    assert (absent.returncode, absent.stdout.split(":")[0]) == (0, "skipped")


def test_without_a_gpu_it_is_skipped(stand_in: Path) -> None:
    done = check(PYTHONPATH=str(stand_in))
    assert (done.returncode, done.stdout, done.stderr) == (0, "skipped: no GPU: no driver here\n", "")


def test_a_cpu_needs_to_know_what_to_prune_for() -> None:
    assert check("--device", "cpu").returncode == 2


def course(stand_in: Path, mode: str, *more: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """The whole course of a check, with two probes; nothing may be left of the copies."""
    work, out = stand_in.parent / "work", stand_in.parent / "record.json"
    work.mkdir()
    arguments = ["--probes", "special_functions,numpy", "--runs", "1", "--work", str(work), "--out", str(out), *more]
    done = check(*arguments, PYTHONPATH=str(stand_in), DEADWEIGHT_FAKE=mode)
    assert not list(work.iterdir())
    record = json.loads(out.read_text())
    assert record["schema"] == "deadweight.gpu-check/1"
    assert record["problems"] == record["not_done"] == [], done.stderr
    return done, record


def test_the_course_on_a_gpu(stand_in: Path) -> None:
    done, record = course(stand_in, "cuda")
    assert (done.returncode, record["same"]) == (0, True), done.stdout + done.stderr
    assert {each["name"]: each["verdict"] for each in record["probes"]} == {
        "special_functions": "same",
        "numpy": "same",
    }
    digests = record["probes"][1]["original"][0]["outputs"]
    assert digests["solve"].startswith("float64[80] sha256:")
    assert record["target"] == "sm_90"
    assert record["other_gpu"]["target"] == "sm_80"
    assert [each["verdict"] for each in record["other_gpu"]["probes"]] == ["no kernel image"]
    assert set(record["trees"]) == {"original", "pruned", "other"}
    assert record["trees"]["pruned"]["bytes"] < record["trees"]["original"]["bytes"]
    assert record["trees"]["pruned"]["prune"]["schema"] == "deadweight.prune/1"
    assert set(record["measures"]) == {"lazy", "eager"}
    assert record["measures"]["lazy"]["pruned"]["first_matmul_gpu_bytes"] == 40
    machine = record["machine"]
    assert (machine["gpu"], machine["capability"], machine["nccl"]) == ("NVIDIA Fake 80GB", 90, "2.27.5")
    assert record["versions"]["torch"] == "0.1"
    assert record["deadweight"]["version"]
    assert any(" prune " in line and "--gpu sm_90 --drop-ptx" in line for line in record["commands"])
    assert "2 same" in done.stdout
    assert "1 no kernel image" in done.stdout
    assert "verdict: the same" in done.stdout


def test_a_difference_is_told_and_fails(stand_in: Path) -> None:
    done, record = course(stand_in, "differs", "--device", "cpu", "--gpu", "sm_90")
    assert (done.returncode, record["same"]) == (1, False)
    numpy = record["probes"][1]
    assert (numpy["name"], numpy["verdict"]) == ("numpy", "differs")
    assert numpy["pruned"] == [{"kind": "error", "seconds": 0.0, "text": "RuntimeError: only here"}]
    assert "looking again at special_functions, numpy" in done.stderr
    assert "DIFFERENT" in done.stdout


@pytest.mark.parametrize("mode", ["crash", "hang"])
def test_a_process_that_ends_takes_one_probe_along(stand_in: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(stand_in))
    stack = find_stack(sys.executable)
    flag = stand_in.parent / "once"
    flag.touch()
    more = {"DEADWEIGHT_FAKE": mode, "DEADWEIGHT_ONCE": str(flag)}
    runner = Runner(stack.python, environment(stand_in.parent) | more, "cpu", time.monotonic() + 60, patience=5)
    said: list[str] = []
    ran = run_probes(runner, stack.tree, ["special_functions", "numpy"], said.append)
    first, second = ran.outcomes["special_functions"], ran.outcomes["numpy"]
    assert (first.kind, first.text) == (mode, "signal 6" if mode == "crash" else "no answer")
    assert second.kind == "ok"
    assert len(said) == len(ran.errors) == 1
    assert any("libscipy_openblas" in path for path in ran.libraries)
    assert shadowed(stack, stack.tree, ran.libraries) == []
    spent = Runner(stack.python, runner.environment, "cpu", time.monotonic() - 1)
    assert run_probes(spent, stack.tree, ["numpy"], said.append).outcomes["numpy"].kind == "not run"


def ok(*digests: str) -> Outcome:
    return Outcome("ok", outputs=tuple((f"output {i}", text) for i, text in enumerate(digests)))


ONE, TWO, OTHER = ok("a", "b"), ok("a", "c"), ok("a", "d")
FAILS, FAILS_ELSE = Outcome("error", "RuntimeError: no"), Outcome("error", "RuntimeError: not at all")
CRASH, SKIP = Outcome("crash", "signal 11"), Outcome("skipped", "no torchvision")


@pytest.mark.parametrize(
    ("original", "pruned", "verdict", "why"),
    [
        ([ONE, ONE], [ONE, ONE], "same", ""),
        ([ONE], [ONE], "same", ""),
        ([ONE, ONE], [TWO, TWO], "differs", "1 of 2 outputs: output 1"),
        ([ONE, ONE], [ONE, TWO], "differs", "1 of 2 outputs: output 1"),
        ([ONE, TWO], [ONE, ONE], "not reproducible", "in the original: 1 of 2 outputs: output 1"),
        ([ONE, TWO], [OTHER, OTHER], "not reproducible", "in the original: 1 of 2 outputs: output 1"),
        ([ONE, TWO], [FAILS, FAILS], "differs", "ok / error RuntimeError: no"),
        ([ONE, ONE], [FAILS, FAILS], "differs", "ok / error RuntimeError: no"),
        ([ONE, ONE], [CRASH, CRASH], "differs", "ok / crash signal 11"),
        ([FAILS, FAILS], [FAILS, FAILS], "same error", "error: RuntimeError: no"),
        (
            [FAILS, FAILS],
            [FAILS_ELSE, FAILS_ELSE],
            "differs",
            "error RuntimeError: no / error RuntimeError: not at all",
        ),
        ([FAILS, FAILS], [ONE, ONE], "differs", "error RuntimeError: no / ok"),
        ([SKIP, SKIP], [SKIP, SKIP], "skipped", "skipped: no torchvision"),
        ([SKIP, SKIP], [FAILS, FAILS], "differs", "skipped no torchvision / error RuntimeError: no"),
        ([CRASH], [], "skipped", "in the original: crash signal 11"),
        ([ONE, ONE], [], "not run", ""),
        ([], [], "not run", ""),
    ],
)
def test_judging(original: list[Outcome], pruned: list[Outcome], verdict: str, why: str) -> None:
    assert judge("x", original, pruned) == Judged("x", verdict, why)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("original", "found", "verdict"),
    [
        ([ONE, ONE], Outcome("error", NO_KERNEL), "no kernel image"),
        ([ONE, ONE], FAILS, "another error"),
        ([ONE, ONE], ONE, "same"),
        ([ONE, ONE], TWO, "wrong"),
        ([ONE, TWO], OTHER, "not reproducible"),
        ([ONE, ONE], CRASH, "wrong"),
        ([ONE, TWO], Outcome("hang", "no answer"), "wrong"),
        ([ONE, ONE], Outcome("not run"), "not run"),
    ],
)
def test_judging_for_a_gpu_that_is_not_there(original: list[Outcome], found: Outcome, verdict: str) -> None:
    assert judge_elsewhere("x", original, found).verdict == verdict


def test_seconds_take_no_part() -> None:
    slow = Outcome("ok", outputs=ONE.outputs, seconds=9.0)
    assert judge("x", [ONE], [slow]).verdict == "same"
    assert as_records([ONE, slow]) == [{"kind": "ok", "seconds": 0.0, "outputs": {"output 0": "a", "output 1": "b"}}]


def test_the_answer() -> None:
    same, skipped, differs = Judged("a", "same"), Judged("b", "skipped"), Judged("c", "differs")
    not_run, failing = Judged("d", "not run"), Judged("e", "same error")
    assert all_same([same, skipped, failing]) is True
    assert all_same([same, differs, not_run]) is False
    assert all_same([same, not_run]) is None
    assert all_same([failing, skipped]) is None  # nothing worked: nothing was shown
    clear, wrong, unclear = Judged("a", "no kernel image"), Judged("b", "wrong"), Judged("c", "another error")
    assert all_clear([clear, same, unclear]) is True
    assert all_clear([clear, wrong]) is False
    assert all_clear([unclear]) is False
    assert all_clear([]) is all_clear([clear, not_run]) is None


def test_another_gpu_is_of_another_generation() -> None:
    built = ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_120", "compute_120"]
    assert [other_gpu(built, number) for number in (75, 80, 89, 90, 120)] == [
        "sm_80",
        "sm_90",
        "sm_90",
        "sm_80",
        "sm_80",
    ]
    assert other_gpu(["sm_90", "sm_110"], 90) == "sm_110"
    with pytest.raises(CannotCheck, match="one generation alone"):
        other_gpu(["sm_80", "sm_86"], 89)


def test_digests() -> None:
    numpy = pytest.importorskip("numpy")
    whole = numpy.arange(6, dtype="int16").reshape(2, 3)
    assert digest(whole).startswith("int16[2x3] sha256:")
    assert digest(whole) != digest(whole.astype("int32"))
    assert digest(whole) != digest(whole.reshape(3, 2))
    assert digest(numpy.array([1.0, float("nan")])).endswith(" not finite")
    assert digest(3) == "3"
    assert list(flatten({"a": [1, (2, 3)], "b": {"c": 4}})) == ["a 0", "a 1 0", "a 1 1", "b c"]


def test_errors_read_the_same_in_two_trees() -> None:
    one = error_text(RuntimeError("cannot open /x/tree/libfoo.so at 0xdeadbeef\nmore"), ["/x/tree"])
    other = error_text(RuntimeError("cannot open /tmp/copy/pruned/libfoo.so at 0x12\nless"), ["/tmp/copy/pruned"])
    assert one == other == "RuntimeError: cannot open TREE/libfoo.so at 0x.."


def test_what_the_stack_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {
        "torch": ["cuda-toolkit[cublas]==13.0; platform_system == 'Linux'", "optree>=0.13; extra == 'optree'"],
        "cuda-toolkit": ["nvidia-cublas==13.*; extra == 'cublas'"],
        "nvidia-cublas": [],
        "optree": [],
        "absent-from-here": [],
    }
    for name, requirements in needs.items():
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        lines = [f"Requires-Dist: {requirement}" for requirement in requirements]
        (folder / "METADATA").write_text(
            "\n".join(["Metadata-Version: 2.1", f"Name: {name}", "Version: 1.0", *lines, ""])
        )
    monkeypatch.syspath_prepend(tmp_path)
    found = closure(["torch"])
    assert set(found) == {"torch", "cuda-toolkit", "nvidia-cublas"}
    # No RECORD, as Debian's packages: by the name.
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").touch()
    assert files_of("torch", found["torch"]) == ["torch/__init__.py"]
    cached = f"torch/__pycache__/__init__.{sys.implementation.cache_tag}.pyc"
    (tmp_path / "torch/__pycache__").mkdir()
    (tmp_path / cached).touch()
    (tmp_path / "torch-1.0.dist-info/RECORD").write_text("torch/__init__.py,,\n../../bin/torchrun,,\ntorch/gone.py,,\n")
    assert files_of("torch", closure(["torch"])["torch"]) == ["torch/__init__.py", cached]


def test_nothing_of_the_environment_changes_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toolkit, driver = tmp_path / "toolkit", tmp_path / "driver"
    for folder, name in ((toolkit, "libcudart.so.13"), (driver, "libcuda.so.1"), (driver, "libnvidia-ml.so.1")):
        folder.mkdir(exist_ok=True)
        (folder / name).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{toolkit}:{driver}:")
    for name in ("PYTHONPATH", "CUDA_FORCE_PTX_JIT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = environment(tmp_path)
    assert found["LD_LIBRARY_PATH"] == str(driver)
    assert not {"PYTHONPATH", "CUDA_FORCE_PTX_JIT"} & set(found)
    assert found["CUDA_VISIBLE_DEVICES"] == "1"


def test_libraries_from_elsewhere_are_found(tmp_path: Path) -> None:
    tree = Tree("pruned", (str(tmp_path),), 0, 0)
    files = (("/site", "nvidia/lib/libcublas.so.13"), ("/site", "sklearn/_random.cpython-312.so"))
    stack = Stack("python", "3.12", {}, tree, files)
    loaded = [f"{tmp_path}/nvidia/lib/libcublas.so.13", "/usr/lib/libc.so.6", "/usr/lib/_random.cpython-312.so"]
    assert shadowed(stack, tree, loaded) == []
    assert shadowed(stack, tree, [*loaded, "/usr/local/cuda/libcublas.so.13"]) == ["/usr/local/cuda/libcublas.so.13"]


def test_the_name_of_a_record() -> None:
    record = {"machine": {"gpu": "NVIDIA H100 80GB HBM3"}, "date": "2026-11-24T10:00:00+00:00"}
    given = Namespace(device="cuda", raw_blobs=False, recompress=False)
    assert default_out(record, "sm_90", given) == ROOT / "docs/evidence/gpu-check-h100-80gb-hbm3-2026-11-24.json"
    given = Namespace(device="cpu", raw_blobs=True, recompress=False)
    assert default_out(record, "sm_90", given).name == "gpu-check-cpu-sm-90-raw-blobs-2026-11-24.json"
