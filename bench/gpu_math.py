"""Probes of the numeric libraries: cuBLAS, cuDNN, cuFFT, cuSOLVER, cuSPARSE, cuSPARSELt and cuRAND.

Each is a function of a Kit that gives its outputs. MATH runs on any device, MATH_ON_GPU where CUDA is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gpu_kit import Kit, Outputs, Skip


def matmul(kit: Kit, dtype: str) -> Outputs:
    torch = kit.torch
    a, b = kit.normal(512, 768, dtype=dtype), kit.normal(768, 640, seed=1, dtype=dtype)
    odd, vector = kit.normal(127, 61, dtype=dtype), kit.normal(61, seed=2, dtype=dtype)
    many, more = kit.normal(7, 64, 96, dtype=dtype), kit.normal(7, 96, 32, seed=3, dtype=dtype)
    bias = kit.normal(640, seed=4, dtype=dtype)
    linear = torch.nn.functional.linear(a, b.t().contiguous(), bias)
    large = kit.normal(2048, 2048, dtype=dtype) if kit.device == "cuda" else a
    return {
        "product": a @ b,
        "transposed": b.t() @ a.t(),
        "odd": odd @ odd.t(),
        "vector": odd @ vector,
        "batch": torch.bmm(many, more),
        "sum": torch.addmm(bias, a, b),
        "linear": linear,
        "large": large @ large.t(),
    }


def matmul_tf32(kit: Kit) -> Outputs:
    kit.torch.set_float32_matmul_precision("high")
    try:
        return matmul(kit, "float32")
    finally:
        kit.torch.set_float32_matmul_precision("highest")


def matmul_int8(kit: Kit) -> Outputs:
    a, b = (kit.integers(128, 128, below=255, seed=seed).to(kit.torch.int8) for seed in (0, 1))
    return {"product": kit.torch._int_mm(a, b)}


def matmul_fp8(kit: Kit) -> Outputs:
    torch = kit.torch
    if not hasattr(torch, "_scaled_mm"):
        raise Skip("this torch has no _scaled_mm")
    a = kit.place(kit.normal(256, 512).cpu().to(torch.float8_e4m3fn))
    b = kit.place(kit.normal(384, 512, seed=1).cpu().to(torch.float8_e4m3fn))
    one = kit.place(torch.tensor(1.0))
    return {
        "bf16": torch._scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16),
        "fp32": torch._scaled_mm(a, b.t(), scale_a=one, scale_b=one, out_dtype=torch.float32),
    }


def matmul_fp8_rows(kit: Kit) -> Outputs:
    torch = kit.torch
    a = kit.place(kit.normal(256, 512).cpu().to(torch.float8_e4m3fn))
    b = kit.place(kit.normal(384, 512, seed=1).cpu().to(torch.float8_e4m3fn))
    rows, columns = kit.place(torch.full((256, 1), 0.5)), kit.place(torch.full((1, 384), 2.0))
    return {"rowwise": torch._scaled_mm(a, b.t(), scale_a=rows, scale_b=columns, out_dtype=torch.bfloat16)}


def convolution(kit: Kit, dtype: str, channels_last: bool = False) -> Outputs:
    torch, outputs = kit.torch, dict[str, object]()
    layers = {
        "3x3": lambda: torch.nn.Conv2d(16, 32, 3, padding=1),
        "strided": lambda: torch.nn.Conv2d(16, 32, 5, stride=2, bias=False),
        "1x1": lambda: torch.nn.Conv2d(16, 64, 1),
        "depthwise": lambda: torch.nn.Conv2d(16, 16, 3, groups=16),
        "dilated": lambda: torch.nn.Conv2d(16, 16, 3, dilation=2),
        "transposed": lambda: torch.nn.ConvTranspose2d(16, 8, 4, stride=2),
    }
    images = kit.normal(4, 16, 32, 32, dtype=dtype)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    for name, make in layers.items():
        layer = kit.module(make, dtype)
        if channels_last:
            layer = layer.to(memory_format=torch.channels_last)
        outputs |= {f"{name} {part}": value for part, value in kit.gradients(layer, images).items()}
    return outputs


def convolution_1d_3d(kit: Kit) -> Outputs:
    torch = kit.torch
    line = kit.gradients(kit.module(lambda: torch.nn.Conv1d(8, 16, 7, padding=3)), kit.normal(2, 8, 100))
    solid = kit.gradients(kit.module(lambda: torch.nn.Conv3d(4, 8, 3)), kit.normal(2, 4, 12, 12, 12))
    return {f"1d {k}": v for k, v in line.items()} | {f"3d {k}": v for k, v in solid.items()}


def recurrent(kit: Kit, kind: str) -> Outputs:
    layer = kit.module(lambda: getattr(kit.torch.nn, kind)(32, 48, num_layers=2, bidirectional=True))
    sequence = kit.normal(20, 4, 32).requires_grad_()
    output, state = layer(sequence)
    output.sum().backward()
    gradients = {name: p.grad for name, p in layer.named_parameters()}
    return {"output": output, "state": state, "gradient": sequence.grad, **gradients}


def fft(kit: Kit) -> Outputs:
    fft, outputs = kit.torch.fft, dict[str, object]()
    for size in (1024, 1009, 1155, 1 << 16):  # a power of two, a prime, a product of small primes, a long one
        signal = kit.normal(3, size)
        outputs |= {f"fft {size}": fft.fft(signal), f"rfft {size}": fft.rfft(signal)}
        outputs[f"irfft {size}"] = fft.irfft(fft.rfft(signal), n=size)
    image = kit.normal(2, 96, 80)
    outputs |= {"2d": fft.fft2(image), "3d": fft.rfftn(kit.normal(16, 24, 20)), "double": fft.fft(image.double())}
    outputs["stft"] = kit.torch.stft(
        kit.normal(4000), 256, window=kit.place(kit.torch.hann_window(256)), return_complex=True
    )
    return outputs


def fft_half(kit: Kit) -> Outputs:
    return {"rfft": kit.torch.fft.rfft(kit.normal(4, 1024, dtype="float16"))}


def svd(kit: Kit) -> Outputs:
    linalg = kit.torch.linalg
    return {
        "one": linalg.svd(kit.normal(96, 64)),
        "batch": linalg.svd(kit.normal(5, 24, 24)),
        "values": linalg.svdvals(kit.normal(200, 150)),
        "double": linalg.svd(kit.normal(40, 60).double(), full_matrices=False),
        "complex": linalg.svd(kit.torch.complex(kit.normal(32, 32), kit.normal(32, 32, seed=1))),
        "pseudo-inverse": linalg.pinv(kit.normal(40, 30)),
    }


def svd_drivers(kit: Kit) -> Outputs:
    matrix = kit.normal(3, 48, 32)
    return {d: kit.torch.linalg.svd(matrix, False, driver=d) for d in ("gesvd", "gesvdj", "gesvda")}


def positive(kit: Kit, *shape: int) -> Any:
    """Symmetric positive definite matrices, on the device."""
    matrix = kit.normal(*shape).cpu()
    return kit.place(matrix @ matrix.transpose(-1, -2) + shape[-1] * kit.torch.eye(shape[-1]))


def cholesky(kit: Kit) -> Outputs:
    torch, one, batch = kit.torch, positive(kit, 200, 200), positive(kit, 6, 32, 32)
    factor = torch.linalg.cholesky(one)
    return {
        "one": factor,
        "batch": torch.linalg.cholesky(batch),
        "double": torch.linalg.cholesky(one.double()),
        "solve": torch.cholesky_solve(kit.normal(200, 3), factor),
        "inverse": torch.cholesky_inverse(factor),
    }


def eigh(kit: Kit) -> Outputs:
    linalg = kit.torch.linalg
    return {
        "one": linalg.eigh(positive(kit, 150, 150)),
        "batch": linalg.eigh(positive(kit, 8, 16, 16)),
        "double": linalg.eigh(positive(kit, 64, 64).double()),
        "values": linalg.eigvalsh(positive(kit, 600, 600)),
    }


def solvers(kit: Kit) -> Outputs:
    linalg, matrix = kit.torch.linalg, kit.normal(120, 120)
    tall, right = kit.normal(120, 40), kit.normal(120, 5, seed=1)
    return {
        "solve": linalg.solve(matrix, right),
        "solve batch": linalg.solve(kit.normal(9, 20, 20), kit.normal(9, 20, 2)),
        "lu": linalg.lu_factor(matrix),
        "qr": linalg.qr(tall),
        "inverse": linalg.inv(matrix),
        "determinant": linalg.slogdet(matrix),
        "least squares": linalg.lstsq(tall, right).solution,
        "triangular": linalg.solve_triangular(matrix.tril(), right, upper=False),
        "ldl": linalg.ldl_factor(positive(kit, 50, 50)),
        "exponential": kit.torch.matrix_exp(kit.normal(30, 30) / 30),
    }


def eig(kit: Kit) -> Outputs:
    return {"general": kit.torch.linalg.eig(kit.normal(60, 60))}


def magma(kit: Kit) -> Outputs:
    prefer = kit.torch.backends.cuda.preferred_linalg_library
    prefer("magma")
    try:
        return {
            "solve": kit.torch.linalg.solve(kit.normal(9, 20, 20), kit.normal(9, 20, 2)),
            "lu": kit.torch.linalg.lu_factor(kit.normal(120, 120)),
            "eigh": kit.torch.linalg.eigh(positive(kit, 150, 150)),
        }
    finally:
        prefer("default")


def sparse(kit: Kit) -> Outputs:
    torch, dense = kit.torch, kit.normal(200, 160).cpu()
    dense[dense < 1] = 0
    rows, right = kit.place(dense.to_sparse_csr()), kit.normal(160, 24, seed=1)
    points = kit.place(dense.to_sparse_coo())
    lower = dense[:160].tril(-1) + 4 * torch.eye(160)
    solve = torch.triangular_solve(right, kit.place(lower.to_sparse_csr()), upper=False)
    return {
        "csr by dense": rows @ right,
        "csr by vector": rows @ right[:, 0].contiguous(),
        "coo by dense": torch.sparse.mm(points, right),
        "csr by csr": rows @ kit.place(dense.t().contiguous().to_sparse_csr()),
        "sampled": torch.sparse.sampled_addmm(rows, kit.normal(200, 24), kit.normal(24, 160, seed=2)),
        "triangular": solve[0],
    }


def semi_structured(kit: Kit, library: str) -> Outputs:
    kind = getattr(kit.torch.sparse, f"SparseSemiStructuredTensor{library}", None)
    if kind is None:
        raise Skip(f"this torch has no semi-structured sparsity by {library}")
    outputs: dict[str, object] = {}
    for dtype in ("float16", "bfloat16"):
        mask = kit.torch.tensor([0, 0, 1, 1]).tile((256, 64)).bool()
        weights = kit.place(kit.normal(256, 256, dtype=dtype).cpu() * mask)
        packed = kind.from_dense(weights)
        outputs[dtype] = kit.torch.nn.functional.linear(kit.normal(128, 256, seed=1, dtype=dtype), packed)
    return outputs


CURAND_KINDS = {"xorwow": 101, "mrg32k3a": 121, "mtgp32": 141, "mt19937": 142, "philox": 161, "sobol32": 201}
"""curandRngType_t of curand.h."""


def curand(kit: Kit) -> Outputs:
    """The library itself, through its C interface: torch's own random numbers use none of its kernels."""
    mapped = {line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()}
    path = next((name for name in sorted(mapped) if "libcurand.so" in name), None)
    if path is None:
        raise Skip("this torch loads no libcurand")
    library, outputs = ctypes.CDLL(path), dict[str, object]()

    def call(name: str, *arguments: object) -> None:
        status = getattr(library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} returned status {status}")

    for kind, number in CURAND_KINDS.items():
        uniform, normal = (kit.place(kit.torch.zeros(9_000)) for _ in range(2))
        generator = ctypes.c_void_p()
        call("curandCreateGenerator", ctypes.byref(generator), number)
        if kind == "sobol32":
            call("curandSetQuasiRandomGeneratorDimensions", generator, 3)
        else:
            call("curandSetPseudoRandomGeneratorSeed", generator, ctypes.c_ulonglong(1234))
        size, floats = ctypes.c_size_t(9_000), (ctypes.c_float(0), ctypes.c_float(1))
        call("curandGenerateUniform", generator, ctypes.c_void_p(uniform.data_ptr()), size)
        call("curandGenerateNormal", generator, ctypes.c_void_p(normal.data_ptr()), size, *floats)
        kit.torch.cuda.synchronize()
        call("curandDestroyGenerator", generator)
        outputs |= {f"{kind} uniform": uniform, f"{kind} normal": normal}
    return outputs


MATH: dict[str, Callable[[Kit], Outputs]] = {
    "matmul_fp32": partial(matmul, dtype="float32"),
    "matmul_fp64": partial(matmul, dtype="float64"),
    "matmul_bf16": partial(matmul, dtype="bfloat16"),
    "matmul_fp16": partial(matmul, dtype="float16"),
    "matmul_int8": matmul_int8,
    "matmul_fp8": matmul_fp8,
    "convolution_fp32": partial(convolution, dtype="float32"),
    "convolution_bf16": partial(convolution, dtype="bfloat16", channels_last=True),
    "convolution_1d_3d": convolution_1d_3d,
    "lstm": partial(recurrent, kind="LSTM"),
    "gru": partial(recurrent, kind="GRU"),
    "fft": fft,
    "svd": svd,
    "cholesky": cholesky,
    "eigh": eigh,
    "eig": eig,
    "solvers": solvers,
    "sparse": sparse,
}

MATH_ON_GPU: dict[str, Callable[[Kit], Outputs]] = {
    "matmul_tf32": matmul_tf32,
    "matmul_fp8_rows": matmul_fp8_rows,
    "convolution_fp16": partial(convolution, dtype="float16", channels_last=True),
    "fft_half": fft_half,
    "svd_drivers": svd_drivers,
    "magma": magma,
    "semi_structured_cusparselt": partial(semi_structured, library="CUSPARSELT"),
    "semi_structured_cutlass": partial(semi_structured, library="CUTLASS"),
    "curand": curand,
}
