"""Models open with the image's own library, and are what they were: their class, shapes, and every number."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Final

import msgspec

from deadweight.decoding import from_values
from deadweight.errors import shown
from deadweight.ledger.ledger import Ledger
from deadweight.models.finding import Model, find_models, of_sentence_transformers
from deadweight.passes.caches import PASS as CACHES
from deadweight.passes.weights import PASS, View
from deadweight.plan import Plan, taken_out
from deadweight.verify.model import Observation
from deadweight.verify.probes import Kind
from deadweight.verify.side import Ended, NoAnswer, Side, gist
from deadweight.verify.spec import ModelsProbe

LARGEST: Final = 2_000_000_000
"""Bytes of a model's weights up to which it is opened where nobody names it: memory and time are limited."""
_LIBRARIES: Final = {"sentence_transformers": "sentence-transformers", "transformers": "transformers"}
_WEIGHTS: Final = (".safetensors", ".bin", ".h5", ".msgpack", ".onnx")


class _Answer(msgspec.Struct):
    error: str
    opened: list[str]
    kind: str = ""
    numbers: int = 0
    computes: str = ""
    shapes: str = ""
    content: str = ""


def default_models(before: Ledger, plan: Plan | None) -> tuple[ModelsProbe | None, list[str]]:
    """A probe of the models of an image that its libraries open, and notes on those that are not opened.

    An installer's cache has a model once more: where a plan says that the cache leaves, that one is not opened.
    """
    folders, notes = [], []
    cuts = plan.cuts if plan is not None else []
    is_cached = taken_out(cut for cut in cuts if cut.pass_ == CACHES.name)
    for model in find_models(View(before)):
        if not model.of_transformers or _library(before, model) is None:
            continue
        if any(is_cached(file.path) for file in model.weights):
            notes.append(f"the model in /{shown(model.folder)[1:-1]} is not opened: it is a cache's, and leaves")
            continue
        size = sum(file.size for file in model.files if posixpath.dirname(file.path) == model.folder)
        if size > LARGEST:
            notes.append(f"the model in /{shown(model.folder)[1:-1]} is too large to be opened by default: a probe can")
        else:
            folders.append(f"/{model.folder}")
    if not folders:
        return None, notes
    return ModelsProbe(name="models open", folders=folders, converted=converted(before, plan)), notes


def converted(before: Ledger, plan: Plan | None) -> list[str]:
    """The folders of models whose weights a plan converts."""
    cuts = plan.cuts if plan is not None else []
    rewritten = {cut.path for cut in cuts if cut.pass_ == PASS.name and cut.action == "rewrite"}
    if not rewritten:
        return []
    models = find_models(View(before))
    return [f"/{model.folder}" for model in models if any(file.real in rewritten for file in model.weights)]


def _library(ledger: Ledger, model: Model) -> str | None:
    """The module that opens a model; None where none is installed."""
    installed = {dist.name for dist in ledger.distributions}
    if "torch" not in installed:
        return None
    wanted = ["transformers"]
    if of_sentence_transformers(View(ledger), model):
        wanted.insert(0, "sentence_transformers")
    return next((name for name in wanted if _LIBRARIES[name] in installed), None)


def observe(probe: ModelsProbe, side: Side) -> Observation:
    """Opens each model in a process of its own."""
    models = {f"/{model.folder}": model for model in find_models(View(side.original or side.ledger))}
    folders = list(dict.fromkeys(probe.folders or models))
    if not folders:
        raise NoAnswer("there is no model in the image")
    facts: dict[str, str] = {}
    failed: list[str] = []
    notes: list[str] = []
    for folder in folders:
        model = models.get(folder.rstrip("/"))
        library = None if model is None else _library(side.original or side.ledger, model)
        answer = _ask(probe, side, folder, library or "transformers")
        if answer.error:
            facts[folder] = shown(gist(answer.error), 500)[1:-1]
            failed.append(folder)
            continue
        same_numbers = f", its numbers {answer.content[:16]}" if answer.content else ""
        facts[folder] = (
            f"{shown(answer.kind)[1:-1]}, {answer.numbers:,} numbers, computes in {shown(answer.computes)[1:-1]}, "
            f"its shapes {answer.shapes[:16]}{same_numbers}"
        )
        notes += _opened(side, model, answer)
    count = f"{len(folders):,}"
    summary = f"{len(folders) - len(failed):,} of {count} open" if failed else f"{count} open"
    return Observation(summary, facts, tuple(failed), notes=tuple(notes))


def _ask(probe: ModelsProbe, side: Side, folder: str, library: str) -> _Answer:
    arguments = {
        "folder": folder,
        "library": library,
        "paths": [side.directory],
        "numbers": folder not in probe.converted,
    }
    try:
        return from_values(side.ask("models", arguments, probe.timeout, env=side.app.env), _Answer)
    except msgspec.ValidationError as error:
        raise NoAnswer(f"the image's Python gave no sound answer: {error}") from None
    except Ended as error:
        raise Ended(f"{shown(folder)}: {error}") from None


def _opened(side: Side, model: Model | None, answer: _Answer) -> Iterator[str]:
    """Files of weights that were not opened in the original, which shows that the library takes another one."""
    if model is None or side.name != "before":
        return
    names = {posixpath.relpath(file.path, model.folder) for file in model.files} - {
        posixpath.relpath(file.path, model.folder) for file in model.weights
    }
    passed = sorted(name for name in names if name.endswith(_WEIGHTS) and name not in answer.opened)
    if passed and model.weights:
        yield f"opened in the original, /{model.folder} does without {', '.join(passed[:4])}"


KIND = Kind(observe)
