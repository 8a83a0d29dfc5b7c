"""Back to the original: a name in an engine that a slim image has goes to the image that it was made from."""

from __future__ import annotations

from dataclasses import dataclass

from deadweight.errors import BadInputError, UsageError, shown
from deadweight.image.reference import Reference
from deadweight.image.transports.engine import local_name, reached
from deadweight.image.transports.engine_api import Engine, EngineImage, in_containerd, inspect, tag
from deadweight.image.transports.names import SOURCE, SOURCE_NAME, free_name


@dataclass(frozen=True)
class RolledBack:
    """What a name leads to, before and afterwards."""

    engine: str
    """Which engine, in words."""
    name: str
    slim_id: str
    original_id: str
    original_name: str | None
    """A name that the original has besides."""
    slim_name: str
    """A name that the slim image keeps, or is given where it would have none."""


def roll_back(reference: Reference, *, dry_run: bool = False) -> RolledBack:
    """Points the name of a slim image at its original. With `dry_run` nothing changes.

    Raises UsageError where the name is not that of a slim image, BadInputError where the original is gone,
    EnvironmentFailure where the engine is not reached.
    """
    engine, reference = reached(reference)
    name = local_name(engine, reference.name)
    slim = inspect(engine, name) or inspect(engine, reference.name)
    if slim is None:
        raise UsageError(f"{engine.title} has no image {shown(reference.name)}")
    if name not in slim.tags and reference.name in slim.tags:
        name = reference.name
    if name not in slim.tags:
        raise UsageError(f"{shown(reference.name)} is no name that can lead elsewhere; write NAME:TAG")
    source = slim.labels.get(SOURCE)
    if source is None:
        raise UsageError(f"{shown(name)} is no slim image: it has no label {SOURCE} that says what it was made from")
    original = _original(engine, slim, source)
    others = [one for one in slim.tags if one != name]
    kept = others[0] if others else free_name(name, lambda one: inspect(engine, one) is not None, "-slim")
    found = RolledBack(
        engine.title, name, slim.id, original.id, next((one for one in original.tags if one != name), None), kept
    )
    if not dry_run:
        if not others:
            tag(engine, slim.id, kept)
        tag(engine, original.id, name)
    return found


def _original(engine: Engine, slim: EngineImage, source: str) -> EngineImage:
    """The image that a slim one was made from: by its ID, or by its name in containerd's store, which has other IDs."""
    found = inspect(engine, source)
    if found is not None:
        return found
    name = slim.labels.get(SOURCE_NAME)
    if name is not None and in_containerd(engine):
        named = inspect(engine, name)
        if named is not None and SOURCE not in named.labels and named.id != slim.id:
            return named
    client = "podman" if engine.podman else "docker"
    how = f"get it again ({client} pull {name})" if name is not None else "get it again"
    raise BadInputError(
        f"the original, {source[:80]!r}, is no longer in {engine.title}: {how}, and see that it is the same"
    )
