"""Reading images from registries: the OCI distribution specification 1.1, and Docker's registry HTTP API V2.

Opening an image reads its manifest and configuration; layers come when something asks for them.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from deadweight.decoding import from_json
from deadweight.errors import BadInputError, DigestError, UsageError, shown
from deadweight.image.model import MANIFEST_LIMIT, Image, sha256
from deadweight.image.reference import Name, Reference, split_name
from deadweight.image.transports.choose import read_image
from deadweight.image.transports.manifests import INDEXES, MANIFESTS, Descriptor, decode
from deadweight.image.transports.registry_blob import RemoteBlob
from deadweight.image.transports.registry_client import Registry

ACCEPT = ", ".join(sorted(MANIFESTS) + sorted(INDEXES))
_DOCUMENT_LIMIT = 2000
_DOCUMENTS_LIMIT = 64 << 20
"""Bytes of all manifests and configurations that choosing among the images of an index may read."""
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_TAGS_PAGE = 1000
_TAGS_LIMIT = 10_000
_TAGS_BYTES = 8 << 20
"""Of one page: there are registries that send all tags as one."""
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"


class _Tags(msgspec.Struct, frozen=True):
    tags: list[str] | None = None


class _Kind(msgspec.Struct, frozen=True, rename="camel"):
    """As much of a document as tells what it is."""

    media_type: str = ""
    schema_version: int = 0
    manifests: Any = None
    layers: Any = None


@dataclass(frozen=True)
class Repository:
    """A repository of a registry, as a source of documents and blobs."""

    registry: Registry
    path: str
    by_digest: str = "docker://HOST/NAME@DIGEST"

    @property
    def where(self) -> str:
        """HOST/NAME, for messages."""
        return f"{self.registry.host}/{self.path}"

    @property
    def pull(self) -> tuple[str, ...]:
        """The scope that reading takes."""
        return (f"repository:{self.path}:pull",)

    def document(self, descriptor: Descriptor, what: str) -> bytes:
        """A manifest or small blob, its size and digest checked."""
        if descriptor.size > MANIFEST_LIMIT:
            raise BadInputError(
                f"{self.where}: {what} {descriptor.digest} has {descriptor.size:,} bytes; the limit is "
                f"{MANIFEST_LIMIT:,}"
            )
        kind = "manifests" if descriptor.media_type in MANIFESTS | INDEXES else "blobs"
        data = self._get(f"{kind}/{descriptor.digest}", what, descriptor.media_type, descriptor.size)[1]
        if sha256(data) != descriptor.digest:
            raise DigestError(f"{self.where}: {what} does not hash to {descriptor.digest}: it is damaged, get it again")
        return data

    def blob(self, descriptor: Descriptor, what: str) -> RemoteBlob:  # noqa: ARG002  (nothing can go wrong yet)
        """A layer, which is not asked for yet."""
        return RemoteBlob(self.registry, self.path, descriptor.digest, descriptor.size)

    def named(self, name: Name) -> tuple[Descriptor, bytes]:
        """The manifest or index that a tag or digest names. Raises BadInputError when it is not what it should be."""
        which = name.digest or name.tag or "latest"
        what = "the manifest"
        said, data, stated = self._get(f"manifests/{which}", what, ACCEPT, MANIFEST_LIMIT)
        digest = sha256(data)
        if name.digest is not None and digest != name.digest:
            raise DigestError(f"{self.where}: {what} does not hash to {name.digest}: it is damaged, get it again")
        if stated.startswith("sha256:") and stated != digest:
            raise DigestError(f"{self.where}: {what} of {shown(which)} does not hash to {shown(stated)}, as was said")
        return Descriptor(digest, len(data), _media_type(said, data, f"{self.where}: {what}")), data

    def tags(self) -> list[str]:
        """The tags of the repository, in its own order, up to a limit. Raises what asking for them does."""
        doing = f"list the tags of {self.where}"
        found: list[str] = []
        last = ""
        while len(found) < _TAGS_LIMIT:
            url = f"{self.path}/tags/list?n={_TAGS_PAGE}{last}"
            reply = self.registry.ask("GET", url, self.pull, doing, limit=_TAGS_BYTES)
            if reply.status != 200:
                self.registry.refuse(reply, doing)
            page = decode(reply.body, _Tags, f"what lists the tags of {self.where}").tags or []
            new = [tag for tag in page if _TAG.fullmatch(tag)]
            found += new
            if not new or "link" not in reply.headers:
                break
            last = f"&last={new[-1]}"
        return found[:_TAGS_LIMIT]

    def _get(self, path: str, what: str, accept: str, limit: int) -> tuple[str, bytes, str]:
        """A document: the media type that the registry says, the bytes, and the digest that it says."""
        doing = f"read {what} of {self.where}"
        headers = {"Accept": accept or "*/*"}
        reply = self.registry.ask("GET", f"{self.path}/{path}", self.pull, doing, headers, limit=limit)
        if reply.status != 200:
            self.registry.refuse(reply, doing)
        said = reply.headers.get("content-type", "").partition(";")[0].strip()
        return said, reply.body, reply.headers.get("docker-content-digest", "")


def open_registry(reference: Reference, platform: str | None, resources: ExitStack) -> Image:
    """The image of a `docker://` reference.

    Raises BadInputError when there is no such image or it is not sound, UsageError when the reference leaves it open,
    EnvironmentFailure when the registry cannot be read.
    """
    name = parts_of(reference)
    registry = Registry(name.host, name.path)
    resources.callback(registry.close)
    repository = Repository(registry, name.path)
    descriptor, data = repository.named(name)
    once = Remembering(repository, {descriptor.digest: data})
    tag = None if name.tag is None else f"{name.path.removeprefix('library/')}:{name.tag}"
    if tag is not None and name.host != "docker.io":
        tag = f"{name.host}/{tag}"
    image = read_image(once, str(reference), [descriptor], platform, resources, tag)
    return replace(image, name=tag or reference.name)


def parts_of(reference: Reference) -> Name:
    """The parts of a `docker://` reference. Raises UsageError."""
    name = split_name(reference.name)
    if name is None:
        raise UsageError(f"{shown(str(reference))} is no image's name; write docker://HOST/NAME:TAG")
    return name


@dataclass(frozen=True)
class Remembering:
    """A repository, some of whose documents have been read."""

    repository: Repository
    known: dict[str, bytes]

    @property
    def where(self) -> str:
        """HOST/NAME, for messages."""
        return self.repository.where

    @property
    def by_digest(self) -> str:
        """How a reference names one of its images by digest."""
        return self.repository.by_digest

    def document(self, descriptor: Descriptor, what: str) -> bytes:
        """As the repository's, read once. Raises BadInputError as well when there are too many of them."""
        data = self.known.get(descriptor.digest)
        if data is None:
            size = descriptor.size + sum(map(len, self.known.values()))
            if len(self.known) >= _DOCUMENT_LIMIT or size > _DOCUMENTS_LIMIT:
                raise BadInputError(
                    f"{self.where} has more images in its index than are looked at; name one as {self.by_digest}"
                )
            data = self.known[descriptor.digest] = self.repository.document(descriptor, what)
        return data

    def blob(self, descriptor: Descriptor, what: str) -> RemoteBlob:
        """As the repository's."""
        return self.repository.blob(descriptor, what)


def _media_type(said: str, data: bytes, what: str) -> str:
    """What a document is: by its own word, else by the registry's, else by what it holds.

    Raises BadInputError where these contradict (CVE-2021-41190), and for what is no image.
    """
    try:
        kind = from_json(data, _Kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadInputError(f"{what} is no JSON object as manifests are: {error}") from None
    known = MANIFESTS | INDEXES
    if kind.schema_version == 1 or said.startswith(_SCHEMA_1):
        raise BadInputError(f"{what} is Docker's schema 1, which is not supported; push the image with a current tool")
    if kind.media_type and kind.media_type not in known:
        raise BadInputError(f"{what} calls itself {shown(kind.media_type)}, which is no container image")
    if kind.manifests is not None and kind.layers is not None:
        raise BadInputError(f"{what} is both an index and a manifest: it is refused")
    own = kind.media_type or (said if said in known else "")
    if not own:
        own = sorted(INDEXES if kind.manifests is not None else MANIFESTS)[-1]
    if said in known and (said in INDEXES) != (own in INDEXES):
        raise BadInputError(f"{what} calls itself {own}, the registry {said}: it is refused")
    return own
