"""Models in a tree of files: folders with what belongs to one model, in whatever formats it is there.

The tree is an image's merged view or a directory; names may be links, as in Hugging Face's cache, where a snapshot's
names lead to blobs.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from deadweight.image.content import Reader
from deadweight.models.config import LIMIT, read_config
from deadweight.models.formats import format_of, library, may_be_model

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
CONFIG: Final = "config.json"
_SENTENCE_TRANSFORMERS: Final = "modules.json"


class Tree(Protocol):
    """Files, by paths without a leading slash."""

    def names(self) -> Iterable[str]:
        """The paths of files and of links: of all, or at least of those whose names could be those of models."""
        ...

    def real(self, path: str) -> str | None:
        """Where the content of the file at a path lies; None where there is no file."""
        ...

    def size(self, path: str) -> int:
        """Bytes of a file, by where it really lies."""
        ...

    def reader(self, path: str) -> Reader:
        """Reads a file, by where it really lies."""
        ...


class ModelFile(NamedTuple):
    """A file that holds a model, or a part of one."""

    path: str
    real: str
    """Where its content lies."""
    format: str
    size: int


class Model(msgspec.Struct, frozen=True):
    """A folder with one model."""

    folder: str
    files: tuple[ModelFile, ...]
    """In it, and in folders below for other formats."""
    config: Mapping[str, Any] | None
    """Its config.json; None where there is none that can be read."""
    weights: tuple[ModelFile, ...]
    """What makes up model.safetensors, whole; empty where that is not there, or not whole."""
    index: str | None = None
    """The list of these, where there are several."""

    @property
    def of_transformers(self) -> bool:
        """Whether transformers loads it: its configuration names the kind of model."""
        return self.config is not None and isinstance(self.config.get("model_type"), str)


def find_models(tree: Tree) -> list[Model]:
    """The models of a tree, in the order of their folders."""
    by_folder: dict[str, list[ModelFile]] = {}
    for path in tree.names():
        if not may_be_model(path):
            continue
        real = tree.real(path)
        if real is None:
            continue
        name = format_of(path, tree.reader(real))
        if name:
            by_folder.setdefault(_folder(tree, path), []).append(ModelFile(path, real, name, tree.size(real)))
    return [_model(tree, folder, sorted(files)) for folder, files in sorted(by_folder.items())]


def _folder(tree: Tree, path: str) -> str:
    folder = posixpath.dirname(path)
    above, _, name = folder.rpartition("/")
    if name in library("below") and tree.real(posixpath.join(above, CONFIG)) is not None:
        return above
    return folder


def _model(tree: Tree, folder: str, files: list[ModelFile]) -> Model:
    here = {posixpath.basename(file.path): file for file in files if posixpath.dirname(file.path) == folder}
    try:
        config = read_config(read_small(tree, posixpath.join(folder, CONFIG)))
    except ValueError:
        config = None
    if WEIGHTS in here:
        return Model(folder, tuple(files), config, (here[WEIGHTS],))
    index = posixpath.join(folder, INDEX)
    try:
        names = _shards(read_small(tree, index))
    except ValueError:
        return Model(folder, tuple(files), config, ())
    if not names or any(name not in here for name in names):
        return Model(folder, tuple(files), config, ())
    return Model(folder, tuple(files), config, tuple(here[name] for name in names), index)


def _shards(raw: bytes) -> list[str]:
    shards = read_config(raw).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise ValueError("it has no weight_map")
    return sorted(set(shards.values()))


def read_small(tree: Tree, path: str) -> bytes:
    """A small file, whole. Raises ValueError where there is none, or it is too large."""
    real = tree.real(path)
    if real is None:
        raise ValueError("there is no such file")
    size = tree.size(real)
    if size > LIMIT:
        raise ValueError(f"it has {size:,} bytes")
    return tree.reader(real)(0, size)


def of_sentence_transformers(tree: Tree, model: Model) -> bool:
    """Whether the folder, or the one above it, is that of a model of sentence-transformers."""
    for folder in (model.folder, posixpath.dirname(model.folder)):
        try:
            found = json.loads(read_small(tree, posixpath.join(folder, _SENTENCE_TRANSFORMERS)))
        except (ValueError, RecursionError):
            continue
        if isinstance(found, list):
            return True
    return False
