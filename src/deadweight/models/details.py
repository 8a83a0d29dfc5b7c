"""What a file of a model holds: which numbers, and how many. Headers are read, never the numbers themselves."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from deadweight.errors import BadInputError
from deadweight.models.finding import ModelFile, Tree
from deadweight.models.onnx_file import read_onnx_file
from deadweight.models.safetensors import read_checkpoint
from deadweight.models.torch_file import read_torch_file

NAMES: Final = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "BOOL": "bool",
    **{f"{kind}{bits}": f"{word}{bits}" for kind, word in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
}
"""What is said of dtypes for people."""


class Details(NamedTuple):
    """What a file holds; nothing where that is not known."""

    by_dtype: dict[str, int]
    """How many numbers, by what they are, most first."""


def details(tree: Tree, file: ModelFile) -> Details:
    """What a file holds."""
    numbers: Counter[str] = Counter()
    try:
        read = tree.reader(file.real)
        if file.format == "safetensors":
            for tensor in read_checkpoint(read, file.size).tensors:
                numbers[NAMES.get(tensor.dtype, tensor.dtype.lower())] += tensor.numbers
        elif file.format == "torch":
            for stored in read_torch_file(read, file.size):
                numbers[NAMES.get(stored.dtype, stored.dtype.lower())] += stored.numbers
        elif file.format == "onnx" and file.path.endswith(".onnx"):
            for initializer in read_onnx_file(read, file.size):
                numbers[initializer.dtype] += initializer.numbers
    except (ValueError, BadInputError):
        return Details({})
    return Details(dict(numbers.most_common()))
