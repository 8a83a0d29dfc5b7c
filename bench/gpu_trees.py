"""The two trees that gpu_check.py compares: the torch stack as it is installed, and a copy of it that is pruned."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FIND = Path(__file__).with_name("gpu_find.py")
RESERVE = 2_000_000_000
"""Bytes of disk beyond the copy itself: pruned files are written beside the ones they replace."""
TOOLKIT = re.compile(
    r"lib(cudart|cublas|cudnn|cufft|curand|cusolver|cusparse|nccl|nvrtc|nvJitLink|torch|c10)[A-Za-z_]*\.so"
)
STEERING = (
    "PYTHON",
    "TORCH",
    "PYTORCH",
    "CUDA_",
    "NVIDIA_TF32",
    "CUBLAS",
    "CUDNN",
    "CUSOLVER",
    "NCCL",
    "TRITON",
    "OMP_",
    "MKL_",
    "OPENBLAS",
    "LD_PRELOAD",
)
"""How the names of variables begin that steer imports, results or how code is loaded."""


class CannotCheck(Exception):
    """No answer can be had here; the message says why, and what would help."""


class Skipped(CannotCheck):
    """There is nothing to check here: no torch, or no GPU."""


@dataclass(frozen=True)
class Tree:
    """Where packages are imported from, and how many bytes and files there are."""

    name: str
    paths: tuple[str, ...]
    bytes: int
    files: int


@dataclass(frozen=True)
class Stack:
    """The files of an installed torch and of what it needs."""

    python: str
    """The interpreter that it is installed for."""
    version: str
    """That interpreter's version."""
    distributions: dict[str, str]
    tree: Tree
    files: tuple[tuple[str, str], ...]
    """The directory that each file is installed in, and its path in there."""


def find_stack(python: str) -> Stack:
    """The torch that `python` imports. Raises Skipped where there is none."""
    try:
        done = subprocess.run([python, "-B", str(FIND)], capture_output=True, text=True, check=False, timeout=120)
    except OSError as error:
        raise Skipped(f"{python} cannot be run: {error.strerror}") from None
    if done.returncode:
        raise CannotCheck(f"{python} cannot list its packages: {done.stderr.strip().splitlines()[-1:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    if "error" in found:
        raise Skipped(f"{found['error']}; name a Python that has one with --python")
    files = {path: base for base, path in reversed(found["files"])}
    size = sum((Path(base) / path).stat().st_size for path, base in files.items())
    tree = Tree("original", tuple(found["paths"]), size, len(files))
    pairs = tuple((base, path) for path, base in sorted(files.items()))
    return Stack(found["executable"], found["python"], found["distributions"], tree, pairs)


def copy_stack(stack: Stack, to: Path) -> None:
    """Copies every file of the stack into one directory, which must not exist yet. Raises CannotCheck for want of room.

    Real copies by the kernel, several at a time: the tree shares nothing with the original.
    """
    needed, free = stack.tree.bytes + RESERVE, shutil.disk_usage(to.parent).free
    if free < needed:
        raise CannotCheck(f"{to.parent} has {free:,} bytes free and {needed:,} are needed: name another with --work")
    for folder in {Path(path).parent for _, path in stack.files}:
        (to / folder).mkdir(parents=True, exist_ok=True)

    def copy(file: tuple[str, str]) -> None:
        shutil.copy2(Path(file[0]) / file[1], to / file[1])

    # Large ones first, so that none of them is left for the end.
    order = sorted(stack.files, key=lambda file: (Path(file[0]) / file[1]).stat().st_size, reverse=True)
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        for _ in pool.map(copy, order):
            pass


def measure_tree(name: str, folder: Path) -> Tree:
    """A tree in one directory, as it is now."""
    sizes = [path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return Tree(name, (str(folder),), sum(sizes), len(sizes))


def prune_command(folder: Path, gpu: str, options: Sequence[str]) -> list[str]:
    """The real command line that prunes a tree in place for one GPU."""
    command = [sys.executable, "-m", "deadweight", "prune", str(folder), "--gpu", gpu]
    return [*command, "--drop-ptx", *options, "--json", "-"]


def own_version() -> str:
    """deadweight's version, installed or not."""
    project: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["version"]


def deadweight_environment(folder: Path) -> dict[str, str]:
    """The environment in which this Python runs the repository's deadweight, installed or not.

    It asks for its own metadata: where there is none, `folder` gets some. Raises CannotCheck when it does not run.
    """
    path = [str(ROOT / "src")]
    try:
        metadata.version("deadweight")
    except metadata.PackageNotFoundError:
        info = folder / f"deadweight-{own_version()}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: deadweight\nVersion: {own_version()}\n")
        path.append(str(folder))
    known = os.environ.get("PYTHONPATH")
    found = {**os.environ, "PYTHONPATH": os.pathsep.join([*path, *([known] if known else [])])}
    # A small tree first: what is missing shows before gigabytes are copied.
    (folder / "trial").mkdir()
    trial = prune_command(folder / "trial", "sm_90", ["--dry-run"])
    done = subprocess.run(trial, capture_output=True, text=True, env=found, check=False)
    if done.returncode:
        raise CannotCheck(f"deadweight does not run here: {' '.join(done.stderr.strip().splitlines()[-1:])}")
    return found


def prune(command: Sequence[str], env: Mapping[str, str], timeout: float) -> dict[str, object]:
    """Runs it, and gives what its document says, the list of pruned files apart. Raises CannotCheck when it fails."""
    begin = time.monotonic()
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, env=env, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise CannotCheck(f"prune took more than {timeout:.0f} s") from None
    if done.returncode:
        raise CannotCheck(f"prune ended with status {done.returncode}: {' '.join(command)}")
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "files": len(found["files"]), "seconds": round(time.monotonic() - begin, 2)}


def environment(cache: Path) -> dict[str, str]:
    """The environment of the work: nothing that changes results or imports, fixed seeds, and caches of its own.

    Directories of LD_LIBRARY_PATH that hold CUDA libraries are left out (they would be loaded in place of the tree's);
    others stay, since the driver may be found by one.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(STEERING) or name == "CUDA_VISIBLE_DEVICES"
    }
    places = [place for place in kept.pop("LD_LIBRARY_PATH", "").split(os.pathsep) if place and not _has_cuda(place)]
    if places:
        kept["LD_LIBRARY_PATH"] = os.pathsep.join(places)
    return {
        **kept,
        "HOME": str(cache),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "USE_PYTORCH_KERNEL_CACHE": "0",
        "CUDA_CACHE_DISABLE": "1",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "HF_HUB_OFFLINE": "1",
        "NCCL_SOCKET_IFNAME": "lo",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
    }


def _has_cuda(place: str) -> bool:
    """Whether a directory holds libraries that the stack has too. The driver's own (libcuda, libnvidia-*) is none."""
    return any(TOOLKIT.match(path.name) for path in Path(place).glob("lib*.so*"))


def shadowed(stack: Stack, tree: Tree, loaded: Sequence[str]) -> list[str]:
    """The libraries that a process loaded from elsewhere although the tree has one of that name."""
    # Extension modules are found by their package's path, and may well be called as one of Python's own.
    own = {Path(path).name for _, path in stack.files if ".so" in path and Path(path).name.startswith("lib")}
    inside = tuple(os.path.realpath(path) + os.sep for path in tree.paths)
    return [path for path in loaded if Path(path).name in own and not path.startswith(inside)]
