"""Tags of a registry: who has one, and whether a new image may take it. The rules are those of `names`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from deadweight.errors import BadInputError, UsageError, shown
from deadweight.image.model import Json
from deadweight.image.reference import Name, Reference
from deadweight.image.transports.choose import image_manifests, read_manifest
from deadweight.image.transports.manifests import INDEXES, Descriptor
from deadweight.image.transports.names import free_name, labels_in, may_take, name_taken
from deadweight.image.transports.registry import Remembering, Repository, parts_of
from deadweight.image.transports.registry_client import NotThere
from deadweight.image.transports.registry_upload import Target

_MEMBER_LIMIT = 64


@dataclass(frozen=True)
class New:
    """A manifest or index that is to have a name."""

    data: bytes
    digest: str
    media_type: str


@dataclass(frozen=True)
class Held:
    """What a name leads to: an image, or an index of some."""

    descriptor: Descriptor
    data: bytes
    images: tuple[tuple[str, Json], ...]
    """ID of each, and its labels where deadweight made it."""
    platforms: frozenset[str]
    """That the entries of an index say: more than one image serves several."""
    whole: bool
    """Whether these are all that it leads to: not where some are absent, no images, or too many to look at."""

    @property
    def id(self) -> str:
        """The image ID; of an index its digest."""
        return self.descriptor.digest if self.descriptor.media_type in INDEXES else self.images[0][0]


def named(repository: Repository, name: Name) -> Held | None:
    """What a name leads to now, or None. Raises BadInputError where that is no image.

    An index may lack some of its images, as mirrors leave out platforms: these are passed over.
    """
    try:
        descriptor, data = repository.named(name)
    except NotThere:
        return None
    source = Remembering(repository, {descriptor.digest: data})
    index = descriptor.media_type in INDEXES
    try:
        members = image_manifests(source, [descriptor])
    except BadInputError:
        if not index:
            raise
        return Held(descriptor, data, (), frozenset(), whole=False)
    whole = 0 < len(members) <= _MEMBER_LIMIT
    images = []
    for one in members[:_MEMBER_LIMIT]:
        try:
            config = read_manifest(source, one).config
            images.append((config.digest, labels_of(source.document(config, "the config"))))
        except BadInputError:
            if not index:
                raise
            whole = False
    platforms = frozenset(str(one.platform) for one in members if one.platform is not None)
    return Held(descriptor, data, tuple(images), platforms, whole)


def give_name(
    target: Target, destination: Reference, new: New, source_ids: Collection[str], force: bool
) -> tuple[str, ...]:
    """Has the tag name the new image: the last thing to be done. Gives what to tell of the image that had it.

    `source_ids` are the IDs of the images that it was made from. Without a tag it is known by its digest. Raises
    UsageError when the tag is taken.
    """
    held = holder(target, destination, source_ids, force, new.digest)
    notes: tuple[str, ...] = ()
    if held is not None:
        other = free_name(destination.name, lambda name: is_another(target.repository, name, held.descriptor.digest))
        tag = parts_of(Reference("docker", name=other)).tag
        target.put_manifest(held.data, held.descriptor.digest, held.descriptor.media_type, tag)
        notes = (f"the image that was {destination.name} is {other} now",)
    target.put_manifest(new.data, new.digest, new.media_type, parts_of(destination).tag)
    return notes


def holder(
    target: Target, destination: Reference, source_ids: Collection[str], force: bool, new: str | None = None
) -> Held | None:
    """The image whose tag is to go to a new one (of the digest `new`), where it has to keep another.

    Raises UsageError when it has to and `force` is not given.
    """
    name = parts_of(destination)
    held = named(target.repository, name) if name.tag is not None else None
    if held is None or held.descriptor.digest == new:
        return None
    original = any(image_id in source_ids for image_id, _ in held.images)
    if not original and held.whole and all(may_take(labels, image_id, None) for image_id, labels in held.images):
        return None
    if not force:
        raise name_taken(destination.name, original)
    return held


def check_platforms(held: Held | None, destination: Reference) -> None:
    """Refuses to have one image take the tag of several for different platforms, slim or not. Raises UsageError."""
    if held is not None and len(held.platforms) > 1:
        raise UsageError(
            f"{shown(destination.name)} is an index for {', '.join(sorted(map(shown, held.platforms)))}, and the new "
            "image is for one platform: whoever pulls it for another would get none. Say --all-platforms (of slim) to "
            "have all of them slim, --platform OS/ARCH where one is all that is needed, or choose another name"
        )


def labels_of(config: bytes) -> Json:
    """The labels of an image that deadweight made; none of another, which may have inherited some."""
    return dict(labels_in(config))


def is_another(repository: Repository, name: str, digest: str) -> bool:
    """Whether a name leads to anything but the manifest or index of this digest, be it an image or not."""
    try:
        descriptor, _ = repository.named(parts_of(Reference("docker", name=name)))
    except NotThere:
        return False
    except BadInputError:
        return True
    return descriptor.digest != digest
