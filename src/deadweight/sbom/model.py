"""What a bill of materials says, in whatever form: an image's components, and what deadweight did to them.

Texts are harmless: one line each, without control characters.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from packageurl import PackageURL

from deadweight.report.text import plain, valid

TEXT_LIMIT: Final = 500
"""Characters of a name, a version, a licence: what is longer is none."""
_REPOSITORY: Final = re.compile(r"[a-z0-9][a-z0-9._-]*(?::[0-9]+)?(?:/[a-z0-9][a-z0-9._-]*)*")
_ODD: Final = re.compile(r"[^A-Za-z0-9.-]+")


class Modified(msgspec.Struct, frozen=True):
    """What a plan does to a component that stays."""

    passes: tuple[str, ...]
    """Which passes do it, sorted."""
    removed: int
    """How many of its files leave."""
    rewritten: int
    """How many others have another content."""


class Swapped(msgspec.Struct, frozen=True):
    """Which build a component is, where it took another one's place."""

    before: str
    """The version that was there."""
    wheel: str
    sha256: str
    """Of the wheel."""


class Component(msgspec.Struct, frozen=True):
    """One thing that an image is made of."""

    kind: str
    """`os`, `debian`, `python`, `interpreter` or `model`."""
    name: str
    version: str
    """Empty where nothing states it."""
    purl: str
    """The package URL; empty where there is no type for it."""
    ref: str
    """Unique in its image, and the same in two runs."""
    path: str
    """Where the image says so, with a leading slash: metadata, dpkg's list, a program, a model's folder."""
    why: str = ""
    """Why it is there, where that is known."""
    licences: tuple[str, ...] = ()
    """As stated: expressions, identifiers or names. All of them hold."""
    homepage: str = ""
    source_url: str = ""
    """Where it was installed from, when not from an index."""
    source_sha256: str = ""
    """Of the archive that it was installed from."""
    record_sha256: str = ""
    """Of its list of files."""
    installed: bool = True
    """Whether an interpreter finds it; otherwise it lies in a cache or inside another distribution."""
    modified: Modified | None = None
    swapped: Swapped | None = None


class Removed(msgspec.Struct, frozen=True):
    """A component of the original that a plan takes out."""

    component: Component
    pass_: str
    why: str


class Subject(msgspec.Struct, frozen=True):
    """An image as a whole."""

    name: str
    digest: str
    """The configuration's: the image ID."""
    manifest_digest: str | None
    platform: str
    created: str
    """As its configuration states it (RFC 3339); empty where it does not."""
    labels: dict[str, str] = {}


class Inventory(msgspec.Struct, frozen=True):
    """An image and its components, ordered by kind, name and place."""

    subject: Subject
    components: tuple[Component, ...]
    needs: dict[str, tuple[str, ...]]
    """By `ref`, the components that one needs."""
    original: Subject | None = None
    """The image that it was made from; None where deadweight made nothing."""
    removed: tuple[Removed, ...] = ()
    notes: tuple[str, ...] = ()


class About(msgspec.Struct, frozen=True):
    """What a document says of itself."""

    tool_version: str
    made: datetime
    number: UUID
    """Made from all that the document says."""


def what_was_done(one: Component) -> str:
    """What deadweight did to a component that stays, in a sentence; empty where that is nothing."""
    done = []
    if one.swapped is not None:
        done.append(f"{one.swapped.wheel} took the place of version {one.swapped.before}")
    if one.modified is not None:
        passes = ", ".join(one.modified.passes)
        done.append(f"{one.modified.removed:,} files removed, {one.modified.rewritten:,} rewritten, by {passes}")
    return "; ".join(done)


def image_purl(subject: Subject) -> str:
    """The package URL of an image that has a name and a manifest; empty for any other."""
    repository, colon, tag = subject.name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = subject.name, ""
    name = repository.rpartition("/")[2]
    if subject.manifest_digest is None or not _REPOSITORY.fullmatch(repository):
        return ""
    url = repository if "/" in repository else ""
    return purl("oci", "", name, subject.manifest_digest, repository_url=url, tag=tag)


def text(value: str, limit: int = TEXT_LIMIT) -> str:
    """A text from an image, harmless and not too long."""
    return plain(valid(value), limit)


def purl(kind: str, namespace: str, name: str, version: str, **qualifiers: str) -> str:
    """A package URL, with what it may not hold percent-encoded; empty where there is no name."""
    if not name.strip("/ "):  # which PackageURL takes, and fails on when it is written
        return ""
    try:  # some names it writes and cannot read
        made = PackageURL(kind, namespace or None, name, version or None, {k: v for k, v in qualifiers.items() if v})
        return PackageURL.from_string(made.to_string()).to_string()
    except ValueError:
        return ""


def identifier(ref: str) -> str:
    """A text as what SPDX takes for an identifier: letters, digits, `.` and `-`, with a digest that keeps it unique."""
    slug = _ODD.sub("-", ref).strip("-")[:80]
    return f"{slug}-{hashlib.sha256(ref.encode()).hexdigest()[:12]}"
