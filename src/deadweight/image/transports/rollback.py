"""Back to the original: a name in an engine that a slim image has goes to the image that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from deadweight.errors import UsageError, shown
from deadweight.image.reference import Reference, docker_name
from deadweight.image.transports.engine import is_another, local_name, open_engine, reached
from deadweight.image.transports.engine_api import Engine, EngineImage, in_containerd, inspect, labels_of, tag
from deadweight.image.transports.names import (
    NAME_LIMIT,
    SOURCE,
    SOURCE_NAME,
    RolledBack,
    free_name,
    no_slim_image,
    numbered,
    original_gone,
)
from deadweight.image.transports.storage import roll_back_storage


def roll_back(reference: Reference, *, dry_run: bool = False) -> RolledBack:
    """Points the name of a slim image at its original. With `dry_run` nothing changes.

    Raises UsageError where the name is not that of a slim image, BadInputError where the original is gone,
    EnvironmentFailure where the engine is not reached.
    """
    if reference.transport == "containers-storage":
        return roll_back_storage(reference, dry_run=dry_run)
    if reference.transport == "docker":
        from deadweight.image.transports.registry_rollback import roll_back_registry  # noqa: PLC0415

        return roll_back_registry(reference, dry_run=dry_run)
    engine, reference = reached(reference)
    name = local_name(engine, reference.name)
    slim = inspect(engine, name) or inspect(engine, reference.name)
    if slim is None:
        raise UsageError(f"{engine.title} has no image {shown(reference.name)}")
    if name not in slim.tags and reference.name in slim.tags:
        name = reference.name
    if name not in slim.tags:
        raise UsageError(f"{shown(reference.name)} is no name that can lead elsewhere; write NAME:TAG")
    labels = labels_of(engine, slim)
    if SOURCE not in labels:
        raise no_slim_image(name)
    original = _original(engine, slim, labels)
    repository = name.rpartition(":")[0]
    others = sorted((one for one in slim.tags if one != name), key=lambda one: one.rpartition(":")[0] != repository)
    kept = others[0] if others else free_name(name, lambda one: is_another(engine, one, slim.id), "-slim")
    found = RolledBack(
        engine.title, name, slim.id, original.id, next((one for one in original.tags if one != name), None), kept
    )
    if not dry_run:
        if not others:
            tag(engine, slim.id, kept)
        tag(engine, original.id, name)
    return found


def _original(engine: Engine, slim: EngineImage, labels: Mapping[str, str]) -> EngineImage:
    """The image that a slim one was made from: by its ID, in containerd's store, which has others, by its names."""
    source, name = labels[SOURCE], labels.get(SOURCE_NAME)
    found = inspect(engine, source)
    if found is not None:
        return found
    if name is not None and in_containerd(engine):
        # --replace gives an image that has a tag other names; a digest goes on leading to it.
        for number in range(NAME_LIMIT + 1 if docker_name(name) else 1):
            candidate = numbered(name, "-original", number) if number else name
            named = inspect(engine, candidate)
            if named is None and number:
                break
            if named is not None and named.id != slim.id and _configuration_of(candidate) == source:
                return named
    raise original_gone(source, name, engine.title, "podman" if engine.podman else "docker")


def _configuration_of(name: str) -> str:
    """The digest of an image's configuration, for which the engine has to give it out whole."""
    with ExitStack() as resources:
        return open_engine(Reference("docker-daemon", name=name), None, resources, None).config_digest
