"""Numbers of fewer bits: float32 to float16, bfloat16 and int8, in arrays of numpy.

numpy comes with the extra `weights`, since nothing else here needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from deadweight.errors import EnvironmentFailure

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

Half = Literal["fp16", "bf16"]
DTYPES: Final[dict[str, str]] = {"fp16": "F16", "bf16": "BF16"}
"""What safetensors calls them."""
INT8_EPSILON: Final = float(2**-23)
"""The least scale of a row of int8: torch.finfo(torch.float32).eps."""


def numpy() -> ModuleType:
    """The module. Raises EnvironmentFailure where it is not installed."""
    try:
        import numpy as np  # noqa: PLC0415
    except ImportError:
        raise EnvironmentFailure(
            "converting weights needs numpy: pip install 'deadweight[weights]'; or leave --weights out"
        ) from None
    return np


def to_fp16(data: bytes) -> bytes:
    """float32 to float16, to the nearest, to even between two; what is too large becomes infinite."""
    np = numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        return bytes(np.frombuffer(data, "<f4").astype("<f2").tobytes())


def to_bf16(data: bytes) -> bytes:
    """float32 to bfloat16, likewise; a NaN stays one."""
    np = numpy()
    bits = np.frombuffer(data, "<u4")
    rounded = ((bits.astype("<u8") + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return bytes(np.where(is_nan, (bits >> 16) | 0x40, rounded).astype("<u2").tobytes())


HALVES: Final[dict[str, Callable[[bytes], bytes]]] = {"fp16": to_fp16, "bf16": to_bf16}


def from_half(data: bytes, to: str) -> NDArray[Any]:
    """float16 or bfloat16 as float32, exactly."""
    np = numpy()
    if to == "fp16":
        return np.frombuffer(data, "<f2").astype("<f4")  # type: ignore[no-any-return]
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")  # type: ignore[no-any-return]


def overflows(data: bytes, to: Half) -> bool:
    """Whether a finite number of float32 becomes infinite."""
    np = numpy()
    with np.errstate(invalid="ignore"):
        return bool((np.isfinite(np.frombuffer(data, "<f4")) & ~np.isfinite(from_half(HALVES[to](data), to))).any())


def finite(data: bytes) -> bool:
    """Whether all numbers of float32 are finite."""
    np = numpy()
    return bool(np.isfinite(np.frombuffer(data, "<f4")).all())


def _scales(rows: Any) -> Any:
    """The scale of each row: the largest of it becomes 127."""
    np = numpy()
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    return np.maximum(largest / np.float32(127.5), np.float32(INT8_EPSILON))


class RowScales(msgspec.Struct, frozen=True):
    """The scales of rows of `columns` numbers of float32, as float32."""

    columns: int

    def __call__(self, data: bytes) -> bytes:
        return bytes(_scales(numpy().frombuffer(data, "<f4").reshape(-1, self.columns)).astype("<f4").tobytes())


class RowInt8(msgspec.Struct, frozen=True):
    """The same rows in int8, each by its own scale."""

    columns: int

    def __call__(self, data: bytes) -> bytes:
        np = numpy()
        rows = np.frombuffer(data, "<f4").reshape(-1, self.columns)
        steps = np.rint(rows * (np.float32(1) / _scales(rows))[:, None])
        return bytes(np.clip(steps, -128, 127).astype("i1").tobytes())
