"""Back to the original in a registry: a tag that a slim image has goes to the image that it was made from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile

from deadweight.errors import BadInputError, DeadweightError, UsageError, shown
from deadweight.image.reference import Name, Reference, split_name
from deadweight.image.transports.manifests import INDEXES, Manifest, decode
from deadweight.image.transports.names import (
    NAME_LIMIT,
    SOURCE,
    SOURCE_MANIFEST,
    SOURCE_NAME,
    RolledBack,
    free_name,
    no_slim_image,
    numbered,
)
from deadweight.image.transports.registry import Repository, parts_of
from deadweight.image.transports.registry_client import Registry
from deadweight.image.transports.registry_names import Held, is_another, named
from deadweight.image.transports.registry_upload import Target

_TAGS_LIMIT = 200
"""Tags of the repository that are looked at, those most like the slim image's first."""
_ABSENT_LIMIT = 9
"""After so many names in a row that are nobody's no more are tried: they are given in order."""


def roll_back_registry(reference: Reference, *, dry_run: bool = False) -> RolledBack:
    """Points the tag of a slim image, or of an index of them, at its original. With `dry_run` nothing changes.

    The original is looked for in the same repository: under the name and the digest that the slim image says, the names
    that `--replace` gives, and then all tags up to a limit. Raises UsageError where the tag is not a slim image's,
    BadInputError where the original is not found.
    """
    name = parts_of(reference)
    if name.tag is None or name.digest is not None:
        raise UsageError(f"{shown(str(reference))} is no name that can lead elsewhere; write docker://HOST/NAME:TAG")
    registry = Registry(name.host, name.path)
    try:
        target = Target(Repository(registry, name.path))
        slim = named(target.repository, name)
        if slim is None:
            raise BadInputError(f"{target.repository.where} has no tag {shown(name.tag)}")
        if not any(SOURCE in labels for _, labels in slim.images):
            raise no_slim_image(reference.name)
        # In an index of slim images, one from which nothing left is its own original.
        sources = {labels.get(SOURCE, image_id) for image_id, labels in slim.images}
        original, original_name = _original(target, reference, slim, sources)
        kept = free_name(
            reference.name, lambda one: is_another(target.repository, one, slim.descriptor.digest), "-slim"
        )
        if not dry_run:
            target.put_manifest(slim.data, slim.descriptor.digest, slim.descriptor.media_type, _tag(kept))
            target.put_manifest(original.data, original.descriptor.digest, original.descriptor.media_type, name.tag)
        return RolledBack(name.host, reference.name, slim.id, original.id, original_name, kept)
    finally:
        registry.close()


def _original(target: Target, reference: Reference, slim: Held, sources: set[str]) -> tuple[Held, str]:
    said = next((str(labels[SOURCE_NAME]) for _, labels in slim.images if SOURCE_NAME in labels), None)
    absent = 0
    for candidate in _candidates(reference, slim, said, parts_of(reference)):
        parts = split_name(candidate)
        if parts is None:
            continue
        try:
            found = named(target.repository, parts)
        except BadInputError:
            continue  # somebody's artifact that is no image
        if found is not None and {image_id for image_id, _ in found.images} >= sources:
            return found, candidate
        absent = 0 if found is not None else absent + 1
        if absent > _ABSENT_LIMIT:
            break
    return _under_any_tag(target, reference, sources, said)


def _under_any_tag(target: Target, reference: Reference, sources: set[str], said: str | None) -> tuple[Held, str]:
    """The original, under whatever tag of the repository. Raises BadInputError where it is not found."""
    name = parts_of(reference)
    where = target.repository.where
    try:
        tags = sorted(target.repository.tags(), key=lambda tag: (-_likeness(tag, name.tag or ""), tag))
        looked = f"none of {f'{_TAGS_LIMIT} of ' if len(tags) > _TAGS_LIMIT else ''}its {len(tags):,} tags leads to it"
    except DeadweightError as error:
        tags, looked = [], f"its tags cannot be looked through ({error})"
    for tag in tags[:_TAGS_LIMIT]:
        one = Name(name.host, name.path, tag, None)
        with suppress(BadInputError):  # somebody's artifact that is no image
            if _may_be(target.repository, one, sources):
                found = named(target.repository, one)
                if found is not None and {image_id for image_id, _ in found.images} >= sources:
                    return found, f"{reference.name.rpartition(':')[0]}:{tag}"
    called = "" if said is None else f" (it was {shown(said)})"
    raise BadInputError(
        f"the original, {shown(min(sources), 80)}{called}, was not found in {where}: {looked}. Where you have it, give "
        f"it the tag {shown(numbered(reference.name, '-original', 1))} (docker tag and docker push, or skopeo copy "
        "--all), and try again"
    )


def _may_be(repository: Repository, name: Name, sources: set[str]) -> bool:
    """Whether a tag may lead to an image with one of these IDs: of one image its manifest says it alone."""
    descriptor, data = repository.named(name)
    return descriptor.media_type in INDEXES or decode(data, Manifest, repository.where).config.digest in sources


def _likeness(tag: str, other: str) -> int:
    """How many characters two tags begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(tag, other, strict=False)))


def _candidates(reference: Reference, slim: Held, said: str | None, here: Name) -> Iterator[str]:
    """Names that the original may have in this repository."""
    parts = split_name(said) if said is not None else None
    if said is not None and parts is not None and (parts.host, parts.path) == (here.host, here.path):
        yield said
    # An index of the original comes before the one image of it that a slim one was made from.
    yield numbered(reference.name, "-original", 1)
    if len(slim.images) == 1 and SOURCE_MANIFEST in slim.images[0][1]:
        yield f"{here.host}/{here.path}@{slim.images[0][1][SOURCE_MANIFEST]}"
    for number in range(2, NAME_LIMIT + 1):
        yield numbered(reference.name, "-original", number)


def _tag(name: str) -> str | None:
    return parts_of(Reference("docker", name=name)).tag
