"""Tags of a registry: who has one, and whether a new image may take it. The rules are those of `names`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from deadweight.image.model import Json, parse_json
from deadweight.image.reference import Reference
from deadweight.image.transports.choose import image_manifests, read_manifest
from deadweight.image.transports.manifests import Descriptor
from deadweight.image.transports.names import free_name, may_take, name_taken
from deadweight.image.transports.registry import Remembering, parts_of
from deadweight.image.transports.registry_client import NotThere
from deadweight.image.transports.registry_upload import Target

_MEMBER_LIMIT = 64


@dataclass(frozen=True)
class New:
    """A manifest or index that is to have a name."""

    data: bytes
    digest: str
    media_type: str


def give_name(
    target: Target, destination: Reference, new: New, source_ids: Collection[str], force: bool
) -> tuple[str, ...]:
    """Has the tag name the new image: the last thing to be done. Gives what to tell of the image that had it.

    `source_ids` are the IDs of the images that it was made from. Without a tag it is known by its digest. Raises
    UsageError when the tag is taken.
    """
    tag = parts_of(destination).tag
    held = holder(target, destination, source_ids, force, new.digest)
    notes: tuple[str, ...] = ()
    if held is not None:
        other = free_name(destination.name, lambda name: _named(target, Reference("docker", name=name)) is not None)
        descriptor, data = held
        other_tag = parts_of(Reference("docker", name=other)).tag
        target.put_manifest(data, descriptor.digest, descriptor.media_type, other_tag)
        notes = (f"the image that was {destination.name} is {other} now",)
    target.put_manifest(new.data, new.digest, new.media_type, tag)
    return notes


def holder(
    target: Target, destination: Reference, source_ids: Collection[str], force: bool, new: str | None = None
) -> tuple[Descriptor, bytes] | None:
    """The image whose tag is to go to a new one (of the digest `new`), where it has to keep another.

    Raises UsageError when it has to and `force` is not given.
    """
    held = _named(target, destination) if parts_of(destination).tag is not None else None
    if held is None or held[0].digest == new:
        return None
    descriptor, data = held
    source = Remembering(target.repository, {descriptor.digest: data})
    images = [read_manifest(source, one).config for one in image_manifests(source, [descriptor])[:_MEMBER_LIMIT]]
    original = any(config.digest in source_ids for config in images)
    takeable = all(may_take(labels_of(source.document(config, "the config")), config.digest, None) for config in images)
    if takeable and not original:
        return None
    if not force:
        raise name_taken(destination.name, original)
    return held


def labels_of(config: bytes) -> Json:
    """The labels of a configuration."""
    found = parse_json(config, "the configuration").get("config")
    labels = found.get("Labels") if isinstance(found, dict) else None
    return labels if isinstance(labels, dict) else {}


def _named(target: Target, reference: Reference) -> tuple[Descriptor, bytes] | None:
    """The manifest or index that a name means now, or None."""
    try:
        return target.repository.named(parts_of(reference))
    except NotThere:
        return None
