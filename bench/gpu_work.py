"""The work of gpu_check.py, inside one fresh process over one tree of packages; JSON lines on standard output.

    python -s -S -B gpu_work.py facts|probes|measure --device cuda|cpu --path TREE... [--probes NAME,...]

Without the site module (-S) the paths given are all that there is beside the standard library, so that nothing else can
be imported. What libraries print goes to standard error.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from gpu_kernels import KERNELS
from gpu_kit import Kit, Outputs, Skip, digest, error_text, flatten
from gpu_math import MATH, MATH_ON_GPU
from gpu_models import COMPILED, HOST, MODELS, MODELS_ON_GPU

ANYWHERE: dict[str, Callable[[Kit], Outputs]] = {**MATH, **KERNELS, **MODELS}
ON_GPU: dict[str, Callable[[Kit], Outputs]] = {**ANYWHERE, **MATH_ON_GPU, **MODELS_ON_GPU}
PROBES: dict[str, Callable[[Kit], Outputs]] = {**ON_GPU, **HOST, **COMPILED}


def names_for(device: str, compiled: bool) -> list[str]:
    """The probes that make sense on a device, torch.compile's on request: it needs a C compiler."""
    return [*(ON_GPU if device == "cuda" else ANYWHERE), *HOST, *(COMPILED if compiled else ())]


def import_torch(paths: list[str]) -> Any:
    """torch out of the paths given. Raises ImportError when it comes from elsewhere."""
    torch = importlib.import_module("torch")
    place = os.path.realpath(str(torch.__file__))
    if not any(place.startswith(os.path.realpath(path) + os.sep) for path in paths):
        raise ImportError(f"torch was imported from {place}, outside {paths}")
    return torch


def settle(torch: Any) -> None:
    """What makes two runs comparable: deterministic algorithms where there are any, no TF32, no trying out."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


def facts(torch: Any) -> dict[str, object]:
    """The GPU and the versions of what runs on it; `gpu` is null and `why` says why where there is none."""
    found: dict[str, object] = {"torch": torch.__version__, "cuda": torch.version.cuda, "gpu": None}
    if torch.version.cuda is None:
        return {**found, "why": "this torch is built without CUDA"}
    found["architectures"] = (torch._C._cuda_getArchFlags() or "").split()
    if not torch.cuda.is_available():
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            return {**found, "why": f"no GPU: {str(error).splitlines()[0]}"}
        return {**found, "why": "no GPU"}
    major, minor = torch.cuda.get_device_capability(0)
    return {
        **found,
        "gpu": torch.cuda.get_device_name(0),
        "capability": major * 10 + minor,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, importlib.import_module("torch.cuda.nccl").version())),
        "memory": torch.cuda.mem_get_info(0)[1],
    }


def run(kit: Kit, name: str, places: list[str]) -> dict[str, object]:
    """What one probe gives: digests of its outputs, its error, or why it was skipped."""
    torch, begin = kit.torch, time.perf_counter()
    result: dict[str, object] = {"probe": name}
    try:
        torch.manual_seed(0)
        outputs = flatten(PROBES[name](kit))
        result["outputs"] = {part: digest(value) for part, value in outputs.items()}
    except Skip as reason:
        result["skipped"] = str(reason)
    except Exception as error:  # whatever a library raises is the probe's result
        result["error"] = error_text(error, places)
    return {**result, "seconds": round(time.perf_counter() - begin, 3)}


def usable(kit: Kit) -> bool:
    """Whether the GPU still answers: some errors end the process's context, and say nothing about later probes."""
    if kit.device != "cuda":
        return True
    try:
        kit.torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def measure(paths: list[str], device: str) -> dict[str, float]:
    """Seconds to import torch, to the first kernel after that, and to the first matrix product; bytes then in use."""
    begin = time.perf_counter()
    torch = import_torch(paths)
    imported = time.perf_counter()
    found = {"import_seconds": imported - begin}

    def stage(name: str, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
            free, total = torch.cuda.mem_get_info()
            found[f"{name}_gpu_bytes"] = total - free
        found[f"{name}_seconds"] = time.perf_counter() - start

    stage("first_kernel", lambda: torch.ones(1000, device=device) + 1)
    matrix = torch.ones(1024, 1024, device=device)
    stage("first_matmul", lambda: matrix @ matrix)
    image = matrix.reshape(1, 1, 1024, 1024)
    stage("first_convolution", lambda: torch.nn.functional.conv2d(image, image[..., :3, :3]))
    # Without pages of files: how many of those are mapped depends on how a file came into the page cache, and a copy of
    # the pruned tree maps fewer than the pruned tree itself.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    found["own_memory_bytes"] = int(status["RssAnon"].split()[0]) * 1024
    return found


def libraries() -> list[str]:
    """The shared libraries that this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6 and ".so" in fields[5]})


def work(given: argparse.Namespace, out: TextIO) -> None:
    def say(document: dict[str, Any]) -> None:
        print(json.dumps(document), file=out, flush=True)

    if given.mode == "measure":
        say(measure(given.path, given.device))
        return
    torch = import_torch(given.path)
    settle(torch)
    if given.mode == "facts":
        say(facts(torch))
        return
    kit = Kit(torch, given.device)
    for name in given.probes.split(","):
        say({"begun": name})
        say(run(kit, name, given.path))
        if not usable(kit):
            break
    say({"libraries": libraries()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["facts", "probes", "measure"])
    parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
    parser.add_argument("--path", action="append", required=True)
    parser.add_argument("--probes", default="")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.path += given.path
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        work(given, out)


if __name__ == "__main__":
    main()
