"""Asks the CUDA driver which GPUs it sees: a program of its own, because a broken driver may crash or hang who asks.

It prints one line of JSON: `{"gpus": [[name, sm], ...]}`, or `{"error": why}`. It imports nothing of deadweight, so
that it can be run by its path. The functions and numbers are those of the CUDA Driver API (`cuda.h`).
"""

from __future__ import annotations

import ctypes
import json

LIBRARY = "libcuda.so.1"
NO_DEVICE = 100
"""CUDA_ERROR_NO_DEVICE."""
MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR."""


class DriverError(Exception):
    """A function of the driver failed; the message says which, and how."""


def ask() -> list[tuple[str, int]]:
    """Name and compute capability (times ten) of each GPU. OSError without a driver, DriverError where one fails."""
    cuda = ctypes.CDLL(LIBRARY)

    def check(function: str, status: int) -> None:
        if status:
            raise DriverError(f"{function} of the CUDA driver fails with error {status}")

    def attribute(device: ctypes.c_int, which: int) -> int:
        value = ctypes.c_int()
        check("cuDeviceGetAttribute", cuda.cuDeviceGetAttribute(ctypes.byref(value), which, device))
        return value.value

    status = cuda.cuInit(0)
    if status == NO_DEVICE:
        return []
    check("cuInit", status)
    count, device, name = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    check("cuDeviceGetCount", cuda.cuDeviceGetCount(ctypes.byref(count)))
    found = []
    for ordinal in range(count.value):
        check("cuDeviceGet", cuda.cuDeviceGet(ctypes.byref(device), ordinal))
        check("cuDeviceGetName", cuda.cuDeviceGetName(name, len(name), device))
        sm = 10 * attribute(device, MAJOR) + attribute(device, MINOR)
        found.append((name.value.decode("utf-8", "replace"), sm))
    return found


def main() -> None:
    """Prints what the driver says."""
    answer: dict[str, object]
    try:
        answer = {"gpus": ask()}
    except OSError as error:
        answer = {"error": f"there is no CUDA driver ({error})"}
    except (DriverError, AttributeError) as error:  # AttributeError: a library of that name without the functions
        answer = {"error": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
