"""Why GPU code is missing: what an image was slimmed for, compared with the GPUs that it meets.

Slimmed images carry `/usr/share/deadweight/target.json`, pruned directories `deadweight-target.json`: documents with
the schema deadweight.target/1. Images have labels that say the same in short, `deadweight.gpus` and `deadweight.ptx`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from deadweight.binary.gpu import products, runs_on
from deadweight.binary.target_document import (
    IN_DIRECTORY,
    IN_IMAGE,
    LABEL_GPUS,
    LABEL_PTX,
    LIMIT,
    gpu_names,
    gpu_numbers,
    in_words,
    read_document,
)
from deadweight.doctor.machine import Gpu, Machine
from deadweight.errors import BadInputError, shown
from deadweight.image.filesystem import Filesystem
from deadweight.image.model import Image

_NAMED = 5

Verdict = Literal["fits", "ptx", "removed"]
"""Machine code for the GPU stayed; only PTX, which the driver compiles, can serve it; its code was removed."""
_RISING: Final = ("fits", "ptx", "removed")


class Slimmed(msgspec.Struct, frozen=True):
    """What something was slimmed for."""

    place: str
    """What was slimmed, in words or as a path."""
    gpus: tuple[int, ...]
    """Compute capabilities times ten, rising; none at all for machines without a GPU."""
    keep_ptx: bool
    """Whether PTX stayed that these GPUs do not need."""

    @property
    def names(self) -> str:
        """The architectures, for people."""
        return in_words(gpu_names(self.gpus))


class Finding(msgspec.Struct, frozen=True):
    """What one GPU finds in one slimmed thing."""

    place: str
    slimmed_for: list[str]
    gpu: str
    """Its name; empty where only the architecture is known."""
    sm: str
    verdict: Verdict
    says: str
    """The verdict in a sentence, with what to do."""


class Diagnosis(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.doctor/1"):
    """The answer."""

    verdict: Verdict | None
    """The worst of all findings; null where there was nothing to compare."""
    findings: list[Finding]
    notes: list[str]
    """What else there is to say: why there are no findings, say."""


def read_target(data: bytes, place: str, where: str) -> Slimmed:
    """A target document. BadInputError where it is none; `where` names it in the message."""
    try:
        document = read_document(data)
        return Slimmed(place, gpu_numbers(document.gpus), document.keep_ptx)
    except ValueError as error:
        raise BadInputError(f"{shown(where)} is no target document of deadweight: {shown(str(error))}") from None


def slimmed_here(root: Path) -> list[Slimmed]:
    """What was slimmed or pruned at `root`, or with it, or in it; for "/" in what Python imports from.

    A pruned directory has its document at the top, which may be above `root` (prune was run on the environment, and
    this is its site-packages) or below (this is the environment). BadInputError for bad documents.
    """
    live = root == Path("/")
    places = [(root / IN_IMAGE, "this image" if live else str(root)), (root / IN_DIRECTORY, str(root))]
    above = [] if (root / "usr").is_dir() else root.resolve().parents  # a root file system has nothing above it
    directories = _python_directories() if live else (*above, *_directories_below(root))
    places += [(directory / IN_DIRECTORY, str(directory)) for directory in directories]
    found = []
    for path, place in places:
        try:
            if not path.is_file():
                continue
            with path.open("rb") as file:
                data = file.read(LIMIT)
        except OSError as error:
            raise BadInputError(f"cannot read {shown(str(path))}: {error.strerror}") from None
        found.append(read_target(data, place, str(path)))
    return found


def _python_directories() -> Iterator[Path]:
    """The running interpreter's environment, the activated one, and the directories that modules come from.

    And those of the other Pythons of an image: deadweight may run from an environment of its own (pipx, uvx).
    """
    programs = (shutil.which(name) for name in ("python3", "python"))
    names = [sys.prefix, os.environ.get("VIRTUAL_ENV", ""), *(str(Path(p).parents[1]) for p in programs if p)]
    prefixes = [Path(name) for name in names if name]
    found = [
        path
        for prefix in (*prefixes, Path("/usr"), Path("/usr/local"))
        for path in sorted(prefix.glob("lib/python3*/*-packages"))  # site- and dist-
    ]
    yield from dict.fromkeys(path.resolve() for path in (*prefixes, *map(Path, filter(None, sys.path)), *found))


def _directories_below(root: Path) -> Iterator[Path]:
    """Those that have a document. Links are not followed, and what cannot be read is passed over."""
    for here, folders, files in os.walk(root):
        folders.sort()
        if IN_DIRECTORY in files and here != str(root):
            yield Path(here)


def slimmed_image(image: Image) -> list[Slimmed]:
    """What was slimmed or pruned in an image; by its labels alone, where it has them and no document."""
    fs = Filesystem(image)
    found = []
    if fs.resolve(IN_IMAGE) is not None:
        found.append(read_target(fs.read(IN_IMAGE, LIMIT), image.reference, IN_IMAGE))
    elif label := _label(image):
        found.append(label)
    for path in sorted(fs.nodes):
        directory, _, name = path.rpartition("/")
        if name == IN_DIRECTORY and fs.nodes[path].kind == "file":
            found.append(read_target(fs.read(path, LIMIT), f"/{directory}", path))
    return found


def _label(image: Image) -> Slimmed | None:
    labels = image.run_config.get("Labels")
    if not isinstance(labels, dict) or not isinstance(labels.get(LABEL_GPUS), str):
        return None
    words = [word for word in re.split(r"[,\s]+", labels[LABEL_GPUS]) if word not in ("", "none")]
    try:
        gpus = gpu_numbers(words)
    except ValueError as error:
        raise BadInputError(f"the label {LABEL_GPUS} of {shown(image.reference)}: {shown(str(error))}") from None
    return Slimmed(image.reference, gpus, labels.get(LABEL_PTX) == "kept")


def diagnose(slimmed: Sequence[Slimmed], machine: Machine) -> Diagnosis:
    """Compares each slimmed thing with each of the machine's GPUs; what needs none fits a machine without."""
    findings = [_finding(one, gpu) for one in slimmed for gpu in machine.gpus]
    verdict = max((finding.verdict for finding in findings), key=_RISING.index, default=None)
    notes = []
    if not slimmed:
        notes.append(
            "there is no sign that deadweight slimmed anything here: if GPU code is missing, it was missing before"
        )
    elif not machine.gpus:
        notes += [f"{one.place} was slimmed for {one.names}" + _examples(one.gpus) for one in slimmed]
        if not any(one.gpus for one in slimmed):
            return Diagnosis("fits", findings, notes)
    if machine.trouble:
        notes.append(
            f"no GPU can be seen: {machine.trouble}. A container needs to be given them: docker run --gpus all"
            if not machine.gpus
            else f"nvidia-smi sees GPUs that programs cannot use: {machine.trouble}"
        )
    return Diagnosis(verdict, findings, notes)


def _finding(one: Slimmed, gpu: Gpu) -> Finding:
    architecture = f"sm_{gpu.sm}"
    who = f"{gpu.name} ({architecture})" if gpu.name else architecture
    again = f"Add --gpu {architecture} and slim the original again"
    lower = [sm for sm in one.gpus if runs_on(sm, gpu.sm)]
    verdict: Verdict = "fits" if lower else "removed"
    if gpu.sm in one.gpus:
        says = f"code for {who} stayed"
    elif lower:
        says = (
            f"{who} runs the code for sm_{max(lower)} that stayed; code that only {architecture} could run was "
            f"removed. {again} if kernels are missing"
        )
    elif one.keep_ptx and one.gpus and gpu.sm > max(one.gpus):
        verdict = "ptx"
        says = (
            f"machine code for {who} was removed. Libraries that carry PTX still work, as it stayed and is compiled "
            f"when they are loaded; others, PyTorch's own among them, do not. {again}"
        )
    else:
        elsewhere = _products(one.gpus)
        says = f"GPU code for {who} was removed. {again}" + (f", or run it on {elsewhere}" if elsewhere else "")
    return Finding(
        one.place,
        list(gpu_names(one.gpus)),
        gpu.name,
        architecture,
        verdict,
        f"{one.place} was slimmed for {one.names}: {says}",
    )


def _examples(gpus: Sequence[int]) -> str:
    named = _products(gpus)
    return f": {named}" if named else ""


def _products(gpus: Sequence[int]) -> str:
    """Some GPUs of these architectures, for people."""
    each = max(1, _NAMED // max(1, len(gpus)))
    known = [[product.title for product in products() if product.sm == sm] for sm in gpus]
    return ", ".join(title for titles in known for title in titles[:each])
