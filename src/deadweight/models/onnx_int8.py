"""ONNX models in int8 by ONNX Runtime's own dynamic quantization, which the same ONNX Runtime loads as any model.

`quantize_dynamic` holds a model in memory and is written for trusted files, so it works in a process of its own, which
has limits and knows nothing but the one file. Nothing of the model is run. The result depends on versions, so plans
name them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import weakref
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from deadweight.errors import EnvironmentFailure, shown
from deadweight.image.bytes import ByteRange
from deadweight.image.content import Content, Reader
from deadweight.models.convert import NOTHING
from deadweight.models.onnx_file import read_onnx_file

PREFIX: Final = "int8 by "
LARGEST: Final = 2_000_000_000
"""Bytes of a model: protobuf has no larger messages."""
_SECONDS: Final = 900
_CHUNK: Final = 8 << 20
_MEMORY: Final = 4 << 30, 10
"""Bytes that the process may have, and how many more for each byte of the model."""
_PROGRAM: Final = """
import resource, sys
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
import logging
logging.disable(logging.WARNING)
from onnxruntime.quantization import QuantType, quantize_dynamic
quantize_dynamic(sys.argv[1], sys.argv[2], weight_type=QuantType.QInt8)
"""


def encoder() -> str:
    """What makes the bytes, as a cut names it. Raises EnvironmentFailure where it is not installed."""
    try:
        return f"{PREFIX}onnxruntime {version('onnxruntime')} and onnx {version('onnx')}"
    except PackageNotFoundError:
        raise EnvironmentFailure(
            "int8 of ONNX models is made by ONNX Runtime: pip install 'deadweight[onnx]'; or leave --weights int8 out"
        ) from None


def quantized(read: Reader, size: int, to: str) -> Content:
    """The model of a file in int8, kept aside. Raises ValueError where that cannot be done, with the reason."""
    if to != encoder():
        raise ValueError(f"the plan's encoder is {shown(to)}, and here it is {encoder()}: make a new plan")
    if size > LARGEST:
        raise ValueError("it is too large for one message of protobuf")
    if not any(found.dtype == "float32" and found.numbers for found in read_onnx_file(read, size)):
        raise ValueError(NOTHING)
    with tempfile.TemporaryDirectory(prefix="deadweight-onnx-") as folder:
        source, made = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        with source.open("wb") as file:
            for at in range(0, size, _CHUNK):
                file.write(read(at, min(_CHUNK, size - at)))
        _run(source, made, _MEMORY[0] + _MEMORY[1] * size)
        fd = os.open(made, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    return Content((_Aside(fd),))


class _Aside(ByteRange):
    """A file without a name, which is there as long as this is."""

    __slots__ = ("__weakref__",)

    def __init__(self, fd: int) -> None:
        super().__init__(fd, 0, os.fstat(fd).st_size)
        weakref.finalize(self, os.close, fd)


def _run(source: Path, made: Path, memory: int) -> None:
    words = [sys.executable, "-I", "-c", _PROGRAM, str(source), str(made), str(memory)]
    environment = {"PATH": os.defpath, "HOME": str(source.parent), "TMPDIR": str(source.parent), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            words, cwd=source.parent, env=environment, capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"ONNX Runtime did not quantize it within {_SECONDS} s") from None
    if done.returncode or not made.is_file():
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(f"ONNX Runtime does not quantize it: {shown(lines[-1] if lines else 'without a word', 200)}")
