"""Whether a model's file of torch holds what its model.safetensors does: by names, shapes and every byte."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from deadweight.errors import BadInputError
from deadweight.models.finding import ModelFile, Tree
from deadweight.models.safetensors import Tensor, read_checkpoint
from deadweight.models.torch_file import Stored, TorchFileError, read_torch_file

_CHUNK: Final = 8 << 20


def compared(tree: Tree, weights: Iterable[ModelFile], files: Iterable[ModelFile]) -> str:
    """What comparing gave, in words; empty where nothing can be said."""
    theirs: dict[str, tuple[ModelFile, Stored]] = {}
    mine: dict[str, tuple[ModelFile, int, Tensor]] = {}
    try:
        for file in files:
            for stored in read_torch_file(tree.reader(file.real), file.size):
                theirs[stored.name] = file, stored
        for file in weights:
            found = read_checkpoint(tree.reader(file.real), file.size)
            mine.update({tensor.name: (file, found.data, tensor) for tensor in found.tensors})
    except TorchFileError as error:
        return f"what it holds cannot be told: {error}"
    except (ValueError, BadInputError):
        return ""
    if not theirs:
        return ""
    missing = theirs.keys() - mine.keys()
    others = [name for name in theirs.keys() & mine.keys() if not _equal(tree, theirs[name], mine[name])]
    same = len(theirs) - len(missing) - len(others)
    said = [f"{same:,} of its {len(theirs):,} tensors are there bit for bit"]
    if others:
        said.append(f"{len(others):,} have other numbers")
    if missing:
        said.append(f"{len(missing):,} are not there, such as {min(missing)[:60]!a}")
    return ", ".join(said)


def _equal(tree: Tree, theirs: tuple[ModelFile, Stored], mine: tuple[ModelFile, int, Tensor]) -> bool:
    (one, stored), (two, data, tensor) = theirs, mine
    if stored.start < 0 or (stored.dtype, stored.shape) != (tensor.dtype, tensor.shape):
        return False
    read, other = tree.reader(one.real), tree.reader(two.real)
    size = tensor.end - tensor.start
    return all(
        read(stored.start + at, min(_CHUNK, size - at)) == other(data + tensor.start + at, min(_CHUNK, size - at))
        for at in range(0, size, _CHUNK)
    )
