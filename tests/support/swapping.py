"""A small image with a GPU build of a distribution, and the CPU build of the same version as a wheel."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deadweight import Ledger, open_image
from deadweight.files.cpu_wheel import Sources
from deadweight.swap.find import parse_swaps
from deadweight.swap.swapped import Swapped, swapped_by
from support import elf
from support.careless import urlsafe
from support.images import FixtureImage, Member, directory, file, make_image, make_tar, write_docker_archive
from support.wheels import make_wheel

SITE = "opt/venv/lib/python3.11/site-packages"
OLD_INFO, NEW_INFO = "torch-2.9.0.dist-info", "torch-2.9.0+cpu.dist-info"
MTIME = 1_700_000_000
Files = Mapping[str, bytes]

OLD: Files = {
    "torch/__init__.py": b"from torch.version import __version__\n",
    "torch/version.py": b"__version__ = '2.9.0+cu130'\ncuda: str | None = '13.0'\n",
    "torch/same.py": b"x = 1\n",
    "torch/cuda_only.py": b"import ctypes\n",
    "torch/lib/libtorch_cpu.so": b"gpu and cpu" * 900,
    "torch/lib/libtorch_cuda.so": b"cuda" * 30_000,
}
NEW: Files = {
    "torch/__init__.py": OLD["torch/__init__.py"],
    "torch/version.py": b"__version__ = '2.9.0+cpu'\ncuda: str | None = None\n",
    "torch/same.py": OLD["torch/same.py"],
    "torch/lib/libtorch_cpu.so": b"cpu" * 3000,
    "torch/bin/new/tool": b"#!/bin/sh\n",
}
REQUIRES = ("nvidia-cublas==13.0", "triton==3.5", "sympy")
ENTRY_POINTS = b"[console_scripts]\ntorchrun = torch.run:main\n"


def installed(
    name: str,
    version: str,
    files: Files,
    requires: tuple[str, ...] = (),
    *,
    info: str = "",
    more: Files | None = None,
    outside: Files | None = None,
    unlisted: Files | None = None,
) -> list[Member]:
    """An installed distribution; `more` is in its metadata directory, `outside` beside site-packages (../../../x)."""
    info = info or f"{name.replace('-', '_')}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    every = {
        **files,
        f"{info}/METADATA": (head + "".join(f"Requires-Dist: {one}\n" for one in requires)).encode(),
        f"{info}/INSTALLER": b"pip\n",
        **{f"{info}/{path}": data for path, data in (more or {}).items()},
    }
    lines = [f"{path},{urlsafe(data)},{len(data)}\n" for path, data in {**every, **(outside or {})}.items()]
    lines += [f"{path},,\n" for path in (unlisted or {})]
    every |= {**(unlisted or {}), f"{info}/RECORD": "".join([*lines, f"{info}/RECORD,,\n"]).encode()}
    found = [file(f"{SITE}/{path}", data, mtime=MTIME, uid=7, gid=8) for path, data in every.items()]
    for path, data in (outside or {}).items():
        found.append(file(path.replace("../../../", "opt/venv/"), data, mode=0o755, mtime=MTIME))
    return found


def old_torch(files: Files = OLD, requires: tuple[str, ...] = REQUIRES) -> list[Member]:
    """The GPU build, as pip installs it, with bytecode."""
    pyc = {
        f"{Path(path).parent}/__pycache__/{Path(path).stem}.cpython-311.pyc": b"bytecode of " + data
        for path, data in files.items()
        if path.count("/") == 1 and path.endswith(".py")
    }
    return installed(
        "torch",
        "2.9.0",
        files,
        requires,
        info=OLD_INFO,
        more={"REQUESTED": b"", "direct_url.json": b'{"url": "x"}', "entry_points.txt": ENTRY_POINTS},
        outside={"../../../bin/torchrun": b"#!/opt/venv/bin/python\nrun\n"},
        unlisted=pyc,
    )


def others() -> list[Member]:
    """What torch needs, and what only its GPU build needs."""
    return [
        *installed("nvidia-cublas", "13.0", {"nvidia/cublas/lib/libcublas.so.13": b"cublas" * 9000}, ("nvidia-nvrtc",)),
        *installed("nvidia-nvrtc", "13.0", {"nvidia/nvrtc/lib/libnvrtc.so.13": library("libnvrtc.so.13")}),
        *installed("triton", "3.5", {"triton/__init__.py": b"y = 2\n" * 2000}),
        *installed("sympy", "1.14", {"sympy/__init__.py": b"z = 3\n"}),
        *installed("numpy", "2.0", {"numpy/__init__.py": b"n = 4\n"}),
    ]


@functools.cache
def library(name: str, needs: str = "") -> bytes:
    """A shared library, which may need another."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        options = ["-shared", "-fPIC", f"-Wl,-soname,{name}"]
        if needs:
            elf.gcc(place, "needed.so", "int there;", "-shared", "-fPIC", f"-Wl,-soname,{needs}")
            options += ["-Wl,--no-as-needed", str(place / "needed.so")]
        elf.gcc(place, "made.so", "int answer;", *options)
        return (place / "made.so").read_bytes()


def gpu_image(*extra: Member, torch: list[Member] | None = None, layers: tuple[bytes, ...] = ()) -> FixtureImage:
    """A base, the dependencies, and what a test adds on top of these in layers of their own."""
    base = make_tar(
        directory("usr"),
        file("usr/lib/python3.11/os.py", b"# os\n"),
        file("usr/bin/python3.11", b"\x7fPY" * 40, mode=0o755),
    )
    venv = make_tar(
        file("opt/venv/pyvenv.cfg", b"home = /usr/bin\nversion = 3.11.2\n"),
        *(old_torch() if torch is None else torch),
        *others(),
        *extra,
    )
    run = {"Cmd": ["python3.11", "/app/run.py"], "WorkingDir": "/app", "Env": ["PATH=/opt/venv/bin:/usr/bin"]}
    return make_image(base, venv, make_tar(file("app/run.py", b"import torch\n")), *layers, run=run)


def cpu_wheel(
    folder: Path,
    files: Files = NEW,
    *,
    version: str = "2.9.0+cpu",
    requires: tuple[str, ...] = ("sympy",),
    name: str = "torch",
    tag: str = "py3-none-any",
    entry_points: bytes = ENTRY_POINTS,
    **more: object,
) -> Path:
    """The CPU build."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    return make_wheel(
        folder,
        {**files, f"{info}/entry_points.txt": entry_points},
        name=f"{name}-{version}-{tag}.whl",
        info=info,
        metadata=head + "".join(f"Requires-Dist: {one}\n" for one in requires) + "\n",
        **more,  # type: ignore[arg-type]
    )


def saved(folder: Path, image: FixtureImage, name: str = "gpu.tar") -> str:
    """A reference to the image."""
    write_docker_archive(folder / name, image, "gpu:1", style="25")
    return f"docker-archive:{folder / name}"


@contextmanager
def swapping(reference: str, *swaps: str, **more: object) -> Iterator[Swapped]:
    """The image with wheels swapped in."""
    with (
        open_image(reference) as image,
        swapped_by(Ledger(image), parse_swaps(swaps), Sources(), **more) as found,  # type: ignore[arg-type]
    ):
        yield found


def tars(swapped: Swapped) -> list[bytes]:
    """The layers of the image with the swaps done."""
    return [b"".join(layer.tar.chunks()) for layer in swapped.ledger.image.layers]
