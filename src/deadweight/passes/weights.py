"""Models' weights: formats that no library here takes, and, where it is asked for, float32 as smaller numbers."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import msgspec

from deadweight.errors import BadInputError, EnvironmentFailure, shown
from deadweight.image.content import Content, Reader
from deadweight.ledger.known import matcher
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.named import named
from deadweight.ledger.python import Distribution
from deadweight.models.choose import COMPUTES, COMPUTES_INT8, at_least, refusal
from deadweight.models.config import KEYS, LIMIT, SAYS_ENOUGH, new_config
from deadweight.models.convert import NOTHING, WEIGHTS, convert
from deadweight.models.finding import CONFIG, Model, ModelFile, find_models
from deadweight.models.formats import Duplicate, duplicates, fits, library, may_be_model
from deadweight.models.onnx_int8 import PREFIX, encoder, quantized
from deadweight.models.safetensors import read_checkpoint
from deadweight.models.same import compared
from deadweight.models.sharing import Shared, blobs, disagreeing, why_not
from deadweight.passes.application import configured, mentions, python_files
from deadweight.passes.base import Context, Pass, Proposal, Rewriting, noted
from deadweight.passes.commands import commands
from deadweight.passes.imports import scan
from deadweight.passes.inodes import changeable_name, paths_of

_SETTING = re.compile(r"[^a-z0-9]+")  # EMBED_BACKEND=onnx says what is wanted as plainly as code does


class View:
    """The merged view as a tree of models: without what has left already."""

    def __init__(self, ledger: Ledger, gone: Iterable[str] = ()) -> None:
        self._fs, self._facts = ledger.fs, ledger.facts
        self._gone = frozenset(gone)

    def names(self) -> Iterable[str]:
        """All files and links whose names could be those of models."""
        found = named(self._fs, self._facts, "models", may_be_model)
        nodes = self._fs.nodes
        return [path for path in found if path not in self._gone and nodes[path].kind in ("file", "symlink")]

    def real(self, path: str) -> str | None:
        """Where a file really lies."""
        node = self._fs.nodes.get(path)
        if node is None or path in self._gone:
            return None
        node = self._fs.resolve(path)
        if node is None or node.source is None or node.source.kind != "file" or node.source.sparse:
            return None
        return None if node.path in self._gone else node.path

    def size(self, path: str) -> int:
        """Bytes of a file."""
        return self._fs.nodes[path].size

    def reader(self, path: str) -> Reader:
        """Reads a file."""
        return self._fs.reader(self._fs.nodes[path])


def propose(context: Context) -> Iterator[Proposal]:
    """What of models leaves, then what is rewritten, each ordered by path."""
    models = find_models(View(context.ledger, context.gone))
    work = _Work(context, frozenset(model.folder for model in models))
    leaving = {proposal.path: proposal for model in models for proposal in work.duplicates(model)}
    work.free_blobs(leaving)
    yield from (leaving[path] for path in sorted(leaving))
    if context.options.weights is not None:
        found = {p.path: p for p in work.conversions(models, context.options.weights, leaving)}
        yield from (found[path] for path in sorted(found))
    context.notes.extend(noted("models", work.stays))


@dataclass
class _Work:
    """One run of the pass."""

    context: Context
    folders: frozenset[str]
    """Those of all models."""
    stays: dict[str, str] = field(default_factory=dict)
    """What stays, and why: ends up in notes."""
    _asked: dict[str, str | None] = field(default_factory=dict)

    @cached_property
    def distributions(self) -> dict[str, Distribution]:
        """What is installed, and stays, by name."""
        context = self.context
        return {dist.name: dist for dist in context.ledger.distributions if dist.info not in context.gone}

    @cached_property
    def taker(self) -> Distribution | None:
        """An installed library that takes model.safetensors where it is there."""
        if "safetensors" not in self.distributions:
            return None
        for name, first in library("prefer_safetensors").items():
            dist = self.distributions.get(name)
            if dist is not None and at_least(dist.version, first):
                return dist
        return None

    # --- duplicates -----------------------------------------------------------------------------------

    def duplicates(self, model: Model) -> Iterator[Proposal]:
        """The files of a model in formats that nobody takes."""
        if not model.weights or not model.of_transformers:
            return
        whole = {file.path for file in model.weights}
        for kind in duplicates():
            paths = [path for path in self._below(model) if path not in whole and fits(path, kind.files)]
            if not paths:
                continue
            reason = self._needed(kind, paths)
            reason = reason or self._unsound(model)
            if reason is not None:
                self.stays[f"/{paths[0]}"] = reason
                continue
            assert self.taker is not None  # else there is a reason
            evidence = f"{self.taker.display} {self.taker.version} takes model.safetensors"
            files = [file for file in model.files if file.path in paths]
            same = self._same(model, files) if kind.format == "torch" else ""
            for path in paths:
                yield Proposal("remove", path, kind.why, f"{evidence}{same}")

    def _below(self, model: Model) -> list[str]:
        fs = self.context.ledger.fs
        folders = [model.folder, *(posixpath.join(model.folder, name) for name in library("below"))]
        return sorted(child for folder in folders for child in fs.children(folder) if self._there(child))

    def _there(self, path: str) -> bool:
        node = self.context.ledger.fs.nodes[path]
        return node.kind in ("file", "symlink") and path not in self.context.gone

    def _needed(self, kind: Duplicate, paths: list[str]) -> str | None:
        """Why files of a format stay; None where nothing shows that somebody wants them."""
        if self.taker is None:
            return "no library is installed that is known to take model.safetensors instead"
        if kind.format not in self._asked:
            self._asked[kind.format] = self._somebody(kind)
        reason = self._asked[kind.format]
        if reason is None and not all(map(self.context.may_change, paths)):
            return "it is to stay"
        return reason

    def _unsound(self, model: Model) -> str | None:
        """Why a model's safetensors are nothing to load it from: text of Git LFS, cut off, without tensors."""
        view = View(self.context.ledger, self.context.gone)
        for file in model.weights:
            try:
                if read_checkpoint(view.reader(file.real), file.size).tensors:
                    continue
                reason = "it has no tensors"
            except (ValueError, BadInputError) as error:
                reason = str(error)
            return f"/{file.path} is not whole: {reason}"
        return None

    def _somebody(self, kind: Duplicate) -> str | None:
        """Who opens files of a format, as far as code and configuration show."""
        context = self.context
        for said_by in (mentions(context, kind.unless), configured(context, kind.unless, self.folders)):
            for path, said in said_by:
                return f"/{path} says {shown(said, 60)}"
        environment = context.ledger.image.environment
        words = [*commands(context.ledger).words, *(f"{name}={value}" for name, value in environment.items())]
        for word in words:
            if kind.unless.search(word.encode("utf-8", "surrogateescape")) or kind.format in _SETTING.split(
                word.lower()
            ):
                return f"the image's configuration says {shown(word, 60)}"
        readers = frozenset(kind.readers)
        known = matcher(library("only_if_asked"))
        owners = {path: dist.name for dist in self.distributions.values() for path in dist.files} if readers else {}
        for path, imports in scan(context.ledger, python_files(context)) if readers else ():
            hits = imports.modules & readers
            if hits and not known(owners.get(path, "")):
                return f"/{path} imports {min(hits)}"
        return None

    def _same(self, model: Model, files: list[ModelFile]) -> str:
        """What comparing the tensors of a model's two formats gave, for the evidence."""
        said = compared(View(self.context.ledger), model.weights, files)
        return f"; {said}" if said else ""

    def free_blobs(self, leaving: dict[str, Proposal]) -> None:
        """Adds the blobs of Hugging Face's cache that links of its snapshots lead to, where no other link does."""
        fs = self.context.ledger.fs
        links = [path for path in leaving if fs.nodes[path].kind == "symlink"]
        if not links:
            return
        wanted: dict[str, str] = {}
        for path in links:
            node = fs.resolve(path)
            folder = blobs(path)
            if node is None or node.kind != "file" or folder is None or not node.path.startswith(folder):
                continue  # what else a link leads to may be anybody's
            if self.context.may_change(node.path):
                wanted.setdefault(node.path, path)
        for path in fs.symlinks:
            if wanted and path not in leaving and path not in self.context.gone:
                target = fs.resolve(path)
                if target is not None:
                    wanted.pop(target.path, None)
        for blob, path in wanted.items():
            cause = leaving[path]
            leaving[blob] = Proposal("remove", blob, cause.why, f"/{path} leads there; {cause.evidence}")

    # --- conversion -----------------------------------------------------------------------------------

    def conversions(self, models: Iterable[Model], to: str, leaving: Mapping[str, Proposal]) -> Iterator[Proposal]:
        """New contents of the models that take them, where nothing else opens their files."""
        changes: dict[str, Shared] = {}
        proposals: dict[str, list[Proposal]] = {}
        for model in models:
            exported = [file for file in model.files if file.path.endswith(".onnx") and file.path not in leaving]
            if to == "int8" and exported and any(matches_onnx(name) for name in self.distributions):
                yield from self._exported(model, exported)
                if not model.weights:
                    continue
            found, names = self._converted(model, to, leaving)
            if found:
                proposals[model.folder] = found
                changes[model.folder] = Shared(tuple(proposal.path for proposal in found), frozenset(names))
        stays = disagreeing(changes, partial(paths_of, self.context), leaving)
        self.stays |= {f"the weights of /{folder}": why_not(f"/{other}") for folder, other in stays.items()}
        for folder, found in proposals.items():
            yield from found if folder not in stays else ()

    def _converted(self, model: Model, to: str, leaving: Mapping[str, Proposal]) -> tuple[list[Proposal], list[str]]:
        """A model's weights as smaller numbers, and its configuration, which goes on saying what to compute with.

        With the paths by which its library opens these files.
        """
        found: list[Proposal] = []
        names: list[str] = []
        reason = self._not_convertible(model, to, leaving)
        config = ""
        if reason is None:
            try:
                config = self._config(model, to)
            except ValueError as error:
                reason = f"its {CONFIG} cannot follow: {error}"
        if reason is not None:
            if reason:
                self.stays[f"the weights of /{model.folder}"] = reason
            return [], []
        why = f"weights as {to}; computed with as {_computes(model)}"
        for file in model.weights:
            try:
                saved, evidence = self._saved(file, to)
            except ValueError as error:
                if str(error) == NOTHING:
                    continue
                self.stays[f"/{file.path}"] = str(error)
                if to == "int8":  # its configuration is about all of them
                    return [], []
                continue
            if saved:
                found.append(Proposal("rewrite", self._name(file.real), why, evidence, to, None, "observed"))
                names.append(file.path)
        if found and config:
            says = COMPUTES_INT8 if to == "int8" else COMPUTES
            why, evidence = (
                f"says what to compute with: {says}",
                "the library would take the numbers of the weights for it",
            )
            found.append(Proposal("rewrite", self._name(config), why, evidence, says, None, "observed"))
            names.append(posixpath.join(model.folder, CONFIG))
        return found, names

    def _exported(self, model: Model, files: list[ModelFile]) -> Iterator[Proposal]:
        """Models for ONNX Runtime in int8, made by it."""
        if any(file.format == "onnx" and not file.path.endswith(".onnx") for file in model.files):
            self.stays[f"/{files[0].path}"] = "its numbers lie in other files, which its quantization would join"
            return
        for file in files:
            if not self._changeable(file.real):
                self.stays[f"/{file.path}"] = "it is to stay"
                continue
            try:
                made = encoder()
                size = self.context.rewrite(PASS, file.real, made).size
            except (ValueError, EnvironmentFailure) as error:
                if str(error) != NOTHING:
                    self.stays[f"/{file.path}"] = str(error)
                continue
            if size < file.size:
                why = "matrices as int8, for ONNX Runtime"
                evidence = "by its own quantize_dynamic; what that does to answers is for a probe of accuracy"
                yield Proposal("rewrite", self._name(file.real), why, evidence, made, None, "observed")

    def _not_convertible(self, model: Model, to: str, leaving: Mapping[str, Proposal]) -> str | None:
        """Why a model is not converted; empty where there is nothing to say about it."""
        kept = msgspec.structs.replace(model, files=tuple(file for file in model.files if file.path not in leaving))
        reason = refusal(kept, to, {name: dist.version for name, dist in self.distributions.items()})
        if reason is not None:
            return reason
        return None if all(self._changeable(file.real) for file in model.weights) else "it is to stay"

    def _changeable(self, real: str) -> bool:
        """Whether a file may get new content, under all its names, links included."""
        links = (path for path in paths_of(self.context, real) if self.context.ledger.fs.nodes[path].kind == "symlink")
        return changeable_name(self.context, self._names(real)) is not None and all(map(self.context.may_change, links))

    def _names(self, real: str) -> list[str]:
        inode = self.context.ledger.fs.nodes[real].inode
        return [] if inode is None else self.context.ledger.names[inode]

    def _name(self, real: str) -> str:
        """The name by which a file that may change is changed."""
        name = changeable_name(self.context, self._names(real))
        assert name is not None  # `_changeable` was asked
        return name

    def _config(self, model: Model, to: str) -> str:
        """Where the configuration lies that has to say more; empty where it says enough."""
        real = View(self.context.ledger, self.context.gone).real(posixpath.join(model.folder, CONFIG))
        assert real is not None  # it was read
        says = COMPUTES_INT8 if to == "int8" else COMPUTES
        try:
            self.context.rewrite(PASS, real, says)
        except ValueError as error:
            if str(error) == SAYS_ENOUGH:
                return ""
            raise
        if not self._changeable(real):
            raise ValueError("it is to stay")
        return real

    def _saved(self, file: ModelFile, to: str) -> tuple[int, str]:
        """How many bytes a file loses, and what is known of that."""
        content = self.context.rewrite(PASS, file.real, to)
        saved = file.size - content.size
        if saved <= 0:
            return 0, ""
        reader = View(self.context.ledger).reader(file.real)
        made = convert(reader, file.size, to)
        evidence = f"{made.tensors:,} matrices, each number the nearest that {to} has"
        if to == "int8":
            evidence = f"{made.tensors:,} matrices: of linear layers in int8, a scale for each row; the rest in fp16"
        if made.kept:
            name, reason = next(iter(made.kept.items()))
            evidence += f"; {len(made.kept):,} stay float32, such as {shown(name, 60)}: {reason}"
        return saved, evidence


def _computes(model: Model) -> str:
    """What a model's library computes with, once its configuration says so."""
    said = next((model.config[key] for key in KEYS if model.config.get(key)), None) if model.config else None
    return f"{COMPUTES}, as before" if said is None else f"{shown(str(said), 20)}, which its {CONFIG} says"


def matches_onnx(name: str) -> bool:
    """Whether a distribution, by its canonical name, is ONNX Runtime: onnxruntime-gpu and the like are builds of it."""
    return name == "onnxruntime" or name.startswith("onnxruntime-")


def rewrite(file: Rewriting) -> Content:
    """A file of weights, or a configuration. Raises ValueError where that cannot be done."""
    if file.to is not None and file.to.startswith(PREFIX):
        return quantized(file.read, file.size, file.to)
    if file.to in WEIGHTS:
        return convert(file.read, file.size, file.to).content
    if file.to not in (COMPUTES, COMPUTES_INT8):
        raise ValueError(f"the pass weights makes nothing of the name {shown(file.to or '')}")
    if file.size > LIMIT:
        raise ValueError(f"it has {file.size:,} bytes, and configurations are short")
    return new_config(file.read(0, file.size), "int8" if file.to == COMPUTES_INT8 else COMPUTES)


PASS = Pass(
    name="weights",
    risk="policy",
    order=60,
    summary="models in formats that no library here takes; with --weights, float32 as smaller numbers",
    propose=propose,
    rewrite=rewrite,
)
