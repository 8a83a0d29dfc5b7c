"""What the probes of gpu_check.py share: a device, inputs that are the same everywhere, and digests of outputs.

Runs in any Python that can import torch, on the standard library alone until then.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Outputs = Mapping[str, object]
"""What a probe computed, by names of its choice: tensors, arrays, numbers, or lists of them."""


class Skip(Exception):
    """The probe does not apply here; the message says why."""


@dataclass(frozen=True)
class Kit:
    """What a probe gets. `torch` is the module: nothing here may import it before it is known which one that is."""

    torch: Any
    device: str

    def normal(self, *shape: int, seed: int = 0, dtype: str = "float32") -> Any:
        """Normal random numbers, on the device. Made on the CPU: a probe's inputs rest on no code of the GPU."""
        torch = self.torch
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator).to(getattr(torch, dtype)).to(self.device)

    def integers(self, *shape: int, below: int, seed: int = 0) -> Any:
        """Whole random numbers from 0, on the device."""
        generator = self.torch.Generator().manual_seed(seed)
        return self.torch.randint(below, shape, generator=generator).to(self.device)

    def place(self, tensor: Any) -> Any:
        """A tensor or module that was made on the CPU, on the device."""
        return tensor.to(self.device)

    def module(self, make: Callable[[], Any], dtype: str = "float32") -> Any:
        """A neural network with weights that are the same each time, on the device."""
        self.torch.manual_seed(0)
        return make().to(getattr(self.torch, dtype)).to(self.device)

    def gradients(self, module: Callable[..., Any], *inputs: Any) -> dict[str, Any]:
        """The output of one forward pass, and the gradients of the inputs and of the module's parameters."""
        leaves = [i.detach().clone().requires_grad_() if i.is_floating_point() else i for i in inputs]
        output = module(*leaves)
        output.backward(self.normal(*output.shape, seed=9).to(output.dtype))
        found = {"output": output}
        found |= {f"gradient {i}": leaf.grad for i, leaf in enumerate(leaves) if leaf.grad is not None}
        parameters = dict(module.named_parameters()) if hasattr(module, "named_parameters") else {}
        return found | {f"gradient {name}": p.grad for name, p in parameters.items() if p.grad is not None}


def flatten(outputs: Mapping[str, object]) -> dict[str, object]:
    """The outputs with lists, tuples and mappings taken apart."""
    flat: dict[str, object] = {}
    for name, value in outputs.items():
        if isinstance(value, (list, tuple)):
            flat |= flatten({f"{name} {i}": part for i, part in enumerate(value)})
        elif isinstance(value, Mapping):
            flat |= flatten({f"{name} {key}": part for key, part in value.items()})
        else:
            flat[name] = value
    return flat


def digest(value: Any) -> str:
    """Type, shape and the SHA-256 of the raw bytes, for a tensor or an array; the text of anything else.

    A tensor with a number that is not finite says so: equal digests of it show little.
    """
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        if str(tensor.layout) != "torch.strided":
            tensor = tensor.to_dense()
        tensor = tensor.contiguous()
        size = tensor.numel() * tensor.element_size()
        raw = ctypes.string_at(tensor.data_ptr(), size) if size else b""
        wild = tensor.is_floating_point() and tensor.element_size() > 1 and not bool(tensor.isfinite().all())
        kind, shape = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)
    elif hasattr(value, "tobytes"):
        raw, kind, shape = value.tobytes(), str(value.dtype), tuple(value.shape)
        wild = kind.startswith(("float", "complex")) and not bool((abs(value) < float("inf")).all())
    else:
        return repr(value)
    dimensions = "x".join(map(str, shape))
    return f"{kind}[{dimensions}] sha256:{hashlib.sha256(raw).hexdigest()}{' not finite' if wild else ''}"


def error_text(error: BaseException, places: Sequence[str]) -> str:
    """An error in one line that is the same in two trees: without their places, addresses and process numbers."""
    lines = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {lines[0]}"
    for place in places:
        text = text.replace(place, "TREE")
    text = re.sub(r"0x[0-9a-f]+", "0x..", text)
    return re.sub(r"(/tmp|/var/tmp)/\S+", "TMP", text)[:400]
