"""What an image is made of: every component, by package manager, and which needs which."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
from packaging.utils import canonicalize_name

from deadweight.errors import BadInputError
from deadweight.image.model import Image
from deadweight.ledger.ledger import Ledger
from deadweight.models.finding import find_models
from deadweight.passes.weights import View
from deadweight.sbom.debian import debian_components, system
from deadweight.sbom.model import Component, Inventory, Subject, purl, text
from deadweight.sbom.python import python_components

LIMIT: Final = 5000
"""Components: real images have hundreds, and the forms' libraries take a time that grows with the square."""
_HUB: Final = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})(?:/|\Z)")
"""A folder in Hugging Face's cache: organization, model, revision."""


def inventory(ledger: Ledger, name: str | None = None, limit: int | None = LIMIT) -> Inventory:
    """The components of the ledger's image. `name` is what the image is called, where that is not its own name.

    Raises BadInputError when there are more than `limit`.
    """
    raw = [
        *system(ledger),
        *debian_components(ledger),
        *_interpreters(ledger),
        *python_components(ledger),
        *_models(ledger),
    ]
    if limit is not None and len(raw) > limit:
        raise BadInputError(
            f"the image has {len(raw):,} packages and models, and bills of materials are written for at most "
            f"{limit:,}: leave --sbom out"
        )
    components = tuple(with_refs(sorted(raw, key=lambda one: (one.kind, one.name, one.version, one.path))))
    notes = tuple(dict.fromkeys(text(note) for note in ledger.notes))
    return Inventory(subject_of(ledger.image, name), components, _needs(ledger, components), notes=notes)


def subject_of(image: Image, name: str | None = None) -> Subject:
    """The image as a whole."""
    created = image.config.get("created")
    labels = image.run_config.get("Labels")
    labels = labels if isinstance(labels, dict) else {}
    return Subject(
        # Not where it lies on this machine: that is no property of the image.
        name=text(name or image.tag or image.reference.rstrip("/").rpartition("/")[2]) or "image",
        digest=image.config_digest,
        manifest_digest=image.manifest_digest,
        platform=text(image.platform),
        created=created if isinstance(created, str) else "",
        labels={text(key): text(value) for key, value in sorted(labels.items()) if isinstance(value, str)},
    )


def with_refs(components: Iterable[Component]) -> Iterator[Component]:
    """The components, each with a name of its own: the package URL, and where it lies when two have the same."""
    listed = list(components)
    bases = [one.purl or f"{one.kind}:{one.name}@{one.version}" for one in listed]
    count = Counter(bases)
    taken: Counter[str] = Counter()
    for one, base in zip(listed, bases, strict=True):
        ref = base if count[base] == 1 else f"{base}#{one.path}"
        taken[ref] += 1
        yield msgspec.structs.replace(one, ref=ref if taken[ref] == 1 else f"{ref}#{taken[ref]}")


def _interpreters(ledger: Ledger) -> Iterator[Component]:
    """Interpreters that no Debian package brings, without virtual environments, which have another's."""
    for one in ledger.interpreters:
        if one.home is not None or one.stdlib is None or ledger.owner(f"{one.stdlib}/os.py").kind == "debian":
            continue
        version = one.full_version if one.exact else one.version
        yield Component(
            kind="interpreter",
            name="CPython",
            version=text(version),
            purl=purl("generic", "", "python", text(version)),
            ref="",
            path=text(f"/{one.executable or one.stdlib}"),
            why="the Python interpreter and its standard library",
            licences=("PSF-2.0",),
        )


def _models(ledger: Ledger) -> Iterator[Component]:
    """Folders with a model, in whatever formats."""
    return (model_component(model.folder) for model in find_models(View(ledger)))


def model_component(folder: str) -> Component:
    """The model in a folder; of one in Hugging Face's cache it is known which it is."""
    hub = _HUB.search(folder)
    if hub is not None:
        organization, name, version = map(text, hub.groups())
        url = purl("huggingface", organization, name, version)
    else:
        name, version, url = text(folder.rpartition("/")[2]) or "model", "", ""
    return Component("model", name, version, url, "", text(f"/{folder}"))


def _needs(ledger: Ledger, components: Iterable[Component]) -> dict[str, tuple[str, ...]]:
    """Which component needs which, by what distributions and packages require."""
    python: dict[str, list[str]] = {}
    debian: dict[str, list[str]] = {}
    for one in components:
        if one.kind == "python" and one.installed:
            python.setdefault(str(canonicalize_name(one.name)), []).append(one.ref)
        elif one.kind == "debian":
            debian.setdefault(one.name, []).append(one.ref)
    found: dict[str, set[str]] = {}
    for name, edges in ledger.graph.edges.items():
        targets = {ref for edge in edges if edge.kind != "inferred" for ref in python.get(edge.target, ())}
        for ref in python.get(name, ()):
            found.setdefault(ref, set()).update(targets - {ref})
    provided: dict[str, list[str]] = {}
    for package in ledger.packages:
        for each in package.provides:
            provided.setdefault(each, []).append(text(package.name))
    for package in ledger.packages:
        names = [name for group in package.depends for each in group for name in (each, *provided.get(each, ()))]
        targets = {ref for name in names for ref in debian.get(text(name), ())}
        for ref in debian.get(text(package.name), ()):
            found.setdefault(ref, set()).update(targets - {ref})
    return {ref: tuple(sorted(targets)) for ref, targets in sorted(found.items()) if targets}
