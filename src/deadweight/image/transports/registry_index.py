"""Images for several platforms in a registry: read as one image each, written back as an index of their slim ones.

What lies beside them, attestations and signatures, speaks of the original and not of what was made from it: it is left
where it is, and named.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from deadweight.decoding import from_json
from deadweight.errors import DeadweightError, UsageError, shown
from deadweight.image.model import Json, sha256
from deadweight.image.output import Written
from deadweight.image.reference import Name, Reference
from deadweight.image.transports.choose import image_manifests, is_beside, parse_index, platform_of
from deadweight.image.transports.manifests import (
    ATTESTATION,
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    INDEXES,
    OCI_INDEX,
    Descriptor,
    Platform,
    dump,
)
from deadweight.image.transports.registry import ACCEPT, Remembering, Repository, parts_of
from deadweight.image.transports.registry_client import Registry
from deadweight.image.transports.registry_names import New, give_name
from deadweight.image.transports.registry_upload import Target

_SIGNED = ("sig", "att", "sbom")
"""What cosign calls the tags of what belongs to an image: sha256-HEX.sig."""
_NAMED_LIMIT = 20
_ATTESTED = "vnd.docker.reference.digest"


class _Referrers(msgspec.Struct, frozen=True):
    manifests: list[Descriptor] | None = None


@dataclass(frozen=True)
class OneOfMany:
    """One image of an index."""

    reference: Reference
    """By its digest, and the tag of the index."""
    platform: Platform


@dataclass(frozen=True)
class ManyImages:
    """What an index has."""

    digest: str
    media_type: str
    images: tuple[OneOfMany, ...]
    notes: tuple[str, ...]
    """What is left out of a new index, and why."""


def read_index(reference: Reference) -> ManyImages:
    """The images of a `docker://` reference. Raises UsageError when it names one image and no index."""
    name = parts_of(reference)
    registry = Registry(name.host, name.path)
    try:
        repository = Repository(registry, name.path)
        descriptor, data = repository.named(name)
        if descriptor.media_type not in INDEXES:
            raise UsageError(f"{shown(str(reference))} is an image for one platform: leave --all-platforms out")
        source = Remembering(repository, {descriptor.digest: data})
        # One image may serve several platforms.
        found = image_manifests(source, [descriptor])
        images: dict[OneOfMany, None] = {}
        notes = []
        for one in found:
            platform = platform_of(source, one)
            if platform.os == "linux":
                tag = f":{name.tag}" if name.tag else ""
                pinned = Reference("docker", name=f"{name.host}/{name.path}{tag}@{one.digest}")
                images[OneOfMany(pinned, platform)] = None
            else:
                notes.append(f"left out: the image for {shown(str(platform))}, which is none for Linux")
        entries = parse_index(data, f"{repository.where}: the index", descriptor.media_type).manifests or []
        beside = [_beside(one) for one in entries if is_beside(one)]
        notes += beside[:_NAMED_LIMIT]
        if len(beside) > _NAMED_LIMIT:
            notes.append(f"left out: {len(beside) - _NAMED_LIMIT:,} more that lie beside the images")
        digests = list(dict.fromkeys((descriptor.digest, *(one.digest for one in found))))
        for digest in digests[:_NAMED_LIMIT]:
            notes += signatures(repository, digest)
        if len(digests) > _NAMED_LIMIT:
            unasked = len(digests) - _NAMED_LIMIT
            notes.append(f"whether there are signatures of the last {unasked:,} images was not asked")
        if not images:
            raise UsageError(f"{shown(str(reference))} has no image for Linux")
        return ManyImages(descriptor.digest, descriptor.media_type, tuple(images), tuple(notes))
    finally:
        registry.close()


def write_index(
    destination: Reference, source: ManyImages, written: Sequence[Written], source_ids: Collection[str], force: bool
) -> tuple[str, tuple[str, ...]]:
    """An index of images that are there, one for each of `source.images`, in their order.

    Gives its digest, and what to tell. `source_ids` are the IDs of the images that they were made from. Raises
    UsageError when the tag is taken, EnvironmentFailure when the registry cannot be written.
    """
    name = parts_of(destination)
    registry = Registry(name.host, name.path)
    try:
        repository = Repository(registry, name.path)
        entries: list[Json] = []
        for one, image in zip(source.images, written, strict=True):
            assert image.manifest_digest is not None
            descriptor, _ = repository.named(Name(name.host, name.path, None, image.manifest_digest))
            entry: Json = {
                "mediaType": descriptor.media_type,
                "digest": descriptor.digest,
                "size": descriptor.size,
                "platform": {key: value for key, value in msgspec.to_builtins(one.platform).items() if value},
            }
            entries.append(entry)
        docker = source.media_type == DOCKER_INDEX and all(e["mediaType"] == DOCKER_MANIFEST for e in entries)
        media_type = DOCKER_INDEX if docker else OCI_INDEX
        data = dump({"schemaVersion": 2, "mediaType": media_type, "manifests": entries})
        new = New(data, sha256(data), media_type)
        return new.digest, give_name(Target(repository), destination, new, source_ids, force)
    finally:
        registry.close()


def signatures(repository: Repository, digest: str) -> list[str]:
    """What else the repository has that speaks of this very manifest: OCI's referrers, cosign's tags."""
    registry = repository.registry
    found: list[str] = []
    with suppress(DeadweightError, msgspec.MsgspecError, UnicodeError):  # a courtesy: not every registry answers
        doing = f"look for signatures in {repository.where}"
        reply = registry.ask("GET", f"{repository.path}/referrers/{digest}", repository.pull, doing)
        if reply.status == 200:
            listed = from_json(reply.body, _Referrers).manifests or []
            found += [f"{shown(one.artifact_type or one.media_type)} {one.digest}" for one in listed[:_NAMED_LIMIT]]
        for kind in _SIGNED:
            tag = f"{digest.replace(':', '-')}.{kind}"
            headers = {"Accept": ACCEPT}
            reply = registry.ask("HEAD", f"{repository.path}/manifests/{tag}", repository.pull, doing, headers)
            if reply.status == 200:
                found.append(f"{repository.where}:{tag}")
    return [f"left out: {one}, which speaks of {digest} and not of what was made from it" for one in found]


def _beside(descriptor: Descriptor) -> str:
    what = descriptor.annotation(ATTESTATION) or descriptor.artifact_type or descriptor.media_type
    of = descriptor.annotation(_ATTESTED)
    return f"left out: {shown(what)} {descriptor.digest}" + (
        f", which speaks of {shown(of)} and not of what was made from it" if of else ""
    )
