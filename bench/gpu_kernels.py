"""Probes of torch's own kernels: sorting, random numbers, arithmetic, reductions, indexing; on any device."""

from __future__ import annotations

from collections.abc import Callable

from gpu_kit import Kit, Outputs


def sorting(kit: Kit) -> Outputs:
    torch, short, long = kit.torch, kit.normal(50, 900), kit.normal(1_000_000)
    whole = kit.integers(200_000, below=5000)
    return {
        "rows": torch.sort(short, dim=1),
        "columns": torch.sort(short, dim=0, descending=True),
        "long": torch.sort(long),
        "whole numbers": torch.sort(whole, stable=True),
        "half": torch.sort(short.half(), stable=True),
        "top": torch.topk(short, 10),
        "top of long": torch.topk(long, 100).values,
        "unique": torch.unique(whole, return_inverse=True, return_counts=True),
        "median": short.median(dim=1),
        "search": torch.searchsorted(long.sort().values, short),
        "histogram": torch.bincount(whole),
        "nonzero": torch.nonzero(short > 2),
    }


def random_numbers(kit: Kit) -> Outputs:
    torch = kit.torch
    torch.manual_seed(1234)
    empty = torch.empty(10_007, device=kit.device)
    return {
        "uniform": torch.rand(10_007, device=kit.device),
        "normal": torch.randn(10_007, device=kit.device),
        "normal bf16": torch.randn(10_007, device=kit.device, dtype=torch.bfloat16),
        "normal double": torch.randn(10_007, device=kit.device, dtype=torch.float64),
        "whole": torch.randint(1000, (10_007,), device=kit.device),
        "permutation": torch.randperm(50_000, device=kit.device),
        "bernoulli": torch.bernoulli(torch.full_like(empty, 0.3)),
        "multinomial": torch.multinomial(torch.full_like(empty, 0.5), 300),
        "poisson": torch.poisson(torch.full_like(empty, 3.0)),
        "exponential": empty.clone().exponential_(),
        "cauchy": empty.clone().cauchy_(),
        "geometric": empty.clone().geometric_(0.2),
        "dropout": torch.nn.functional.dropout(torch.full_like(empty, 1.0)),
    }


def elementwise(kit: Kit) -> Outputs:
    torch, outputs = kit.torch, dict[str, object]()
    names = ["exp", "log1p", "sin", "tanh", "erf", "erfc", "lgamma", "digamma", "sigmoid", "rsqrt", "floor", "atan"]
    for dtype in ("float32", "float64", "bfloat16", "float16"):
        values = kit.normal(4_099, dtype=dtype).abs() * 0.5 + 0.01
        outputs |= {f"{name} {dtype}": getattr(torch, name)(values) for name in names}
        outputs[f"gelu {dtype}"] = torch.nn.functional.gelu(values)
        outputs[f"power {dtype}"] = values**values
    whole = kit.integers(4_099, below=1 << 30)
    outputs |= {"bits": (whole ^ (whole >> 3)) & 0xFFFF, "division": whole // 7, "remainder": whole % 1013}
    waves = torch.complex(kit.normal(999), kit.normal(999, seed=1))
    return outputs | {"complex": torch.exp(waves) * waves.conj(), "angle": torch.angle(waves)}


def special_functions(kit: Kit) -> Outputs:
    """On a GPU most of these are compiled by NVRTC while the program runs."""
    special, values = kit.torch.special, kit.normal(1_001).abs() + 0.5
    return {
        "airy": special.airy_ai(values),
        "bessel": special.bessel_j0(values),
        "bessel i0e": special.i0e(values),
        "zeta": special.zeta(values + 1, values),
        "gamma": special.gammainc(values, values * 2),
        "chebyshev": special.chebyshev_polynomial_t(values / 10, 5),
    }


def reductions(kit: Kit) -> Outputs:
    torch, values = kit.torch, kit.normal(300, 1_023)
    return {
        "sum": values.sum(),
        "sum of columns": values.sum(dim=0),
        "mean bf16": values.bfloat16().mean(dim=1),
        "variance": torch.var_mean(values, dim=1),
        "norm": torch.linalg.vector_norm(values, 3, dim=0),
        "maximum": values.max(dim=1),
        "product": (values * 0.1 + 1).prod(dim=1),
        "any": (values > 3).any(dim=0),
        "logsumexp": values.logsumexp(dim=1),
        "cumulative sum": values.cumsum(dim=1),
        "cumulative sum, long": values.flatten().cumsum(dim=0),
        "cumulative maximum": values.cummax(dim=0),
        "cumulative product": (values * 0.1 + 1).cumprod(dim=1),
    }


def indexing(kit: Kit) -> Outputs:
    torch, values, where = kit.torch, kit.normal(500, 64), kit.integers(2_000, below=500, seed=1)
    add = kit.normal(2_000, 64, seed=2)
    return {
        "take": values[where],
        "gather": torch.gather(values, 0, where[:, None].expand(-1, 64)),
        "scatter add": values.scatter_add(0, where[:, None].expand(-1, 64), add),
        "index add": values.index_add(0, where, add),
        "put": values.index_put((where,), add, accumulate=True),
        "mask": values[values > 1],
        "roll": values.roll(7, 0),
        "flip": values.flip(1),
        "triangle": values.triu(),
    }


KERNELS: dict[str, Callable[[Kit], Outputs]] = {
    "sorting": sorting,
    "random": random_numbers,
    "elementwise": elementwise,
    "special_functions": special_functions,
    "reductions": reductions,
    "indexing": indexing,
}
