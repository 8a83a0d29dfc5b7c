"""References: where an image is, with skopeo's transports (containers-transports(5)), plus `rootfs:DIR`.

    oci:DIR[:TAG]   oci-archive:FILE[:TAG]   docker-archive:FILE[:NAME:TAG]   rootfs:DIR

As in skopeo, the path ends at the first colon (but for `rootfs:`, which has no tag).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deadweight.errors import UsageError, shown

Transport = Literal["oci", "oci-archive", "docker-archive", "archive", "rootfs"]
"""`archive` is a file given without a transport: its content says which of the two archives it is."""

_EXAMPLES = "oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME:TAG] or rootfs:DIR"
_TRANSPORTS: dict[str, Transport] = {
    "oci": "oci",
    "oci-archive": "oci-archive",
    "docker-archive": "docker-archive",
    "rootfs": "rootfs",
}
_LATER = re.compile(r"(docker-daemon|docker|containers-storage|dir|sif|ostree|tarball|registry|podman):")
# Docker's reference grammar (distribution/reference): [HOST[:PORT]/]NAME:TAG, the name in lower case.
_PART = r"[a-z0-9]+(?:(?:__|[._]|-+)[a-z0-9]+)*"
_NAME_TAG = re.compile(rf"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?/)?{_PART}(?:/{_PART})*:\w[\w.-]{{0,127}}", re.ASCII)
# org.opencontainers.image.ref.name; looser than the image-spec's grammar, as tools are.
_REF_NAME = re.compile(r"[A-Za-z0-9][\w.:@+/-]*", re.ASCII)


@dataclass(frozen=True)
class Reference:
    """Where an image is or goes. `tag` picks one of several images in one place."""

    transport: Transport
    path: Path
    tag: str | None = None

    def __str__(self) -> str:
        place = str(self.path) if self.transport == "archive" else f"{self.transport}:{self.path}"
        return place if self.tag is None else f"{place}:{self.tag}"


def parse_reference(text: str) -> Reference:
    """What `text` names: a transport and a path, or the bare path of something that is there.

    Raises UsageError when it cannot be one.
    """
    explicit = _explicit(text)
    if explicit is not None:
        return explicit
    if not text:
        raise UsageError(f"an image is needed: {_EXAMPLES}")
    path = Path(text)
    if path.is_dir():
        if (path / "oci-layout").exists() or (path / "index.json").exists():
            return Reference("oci", path)
        raise UsageError(f"{shown(text)} is a directory without an OCI layout; for a root filesystem say rootfs:{text}")
    if path.exists():
        return Reference("archive", path)
    _refuse_later(text)
    raise UsageError(
        f"there is no file or directory {shown(text)}; to get an engine's image as a file: "
        f"docker save {_word(text)} -o image.tar"
    )


def parse_destination(text: str) -> Reference:
    """Where to write. A destination names its transport, since nothing is there to be sniffed.

    Raises UsageError when it does not.
    """
    explicit = _explicit(text)
    if explicit is not None:
        return explicit
    _refuse_later(text)
    say = f"docker-archive:{_word(text)}"
    raise UsageError(f"the destination {shown(text)} names no transport; say {say}, or another of {_EXAMPLES}")


def docker_name(tag: str) -> str | None:
    """`tag` as NAME:TAG, which engines ask for, or None when it is none. A name alone gets `:latest`."""
    if ":" not in tag.rpartition("/")[2]:
        tag += ":latest"
    return tag if _NAME_TAG.fullmatch(tag) else None


def full_name(name: str) -> str:
    """NAME:TAG with the registry that Docker leaves out."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def short_name(name: str) -> str:
    """NAME:TAG without the registry that Docker leaves out."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def _explicit(text: str) -> Reference | None:
    word, colon, rest = text.partition(":")
    transport = _TRANSPORTS.get(word)
    if not colon or transport is None:
        return None
    path, separator, tag = (rest, "", "") if transport == "rootfs" else rest.partition(":")
    if not path or "\0" in path:
        raise UsageError(f"{shown(text)} names no path; write {_EXAMPLES}")
    if separator and not tag:
        raise UsageError(f"the tag of {shown(text)} is empty")
    if tag and transport == "docker-archive":
        named = tag if re.fullmatch(r"@\d+", tag) else docker_name(tag)
        if named is None:
            raise UsageError(f"{shown(tag)} is no image name; write docker-archive:FILE:NAME:TAG")
        tag = named
    elif tag and not _REF_NAME.fullmatch(tag):
        raise UsageError(f"{shown(tag)} is no tag: letters and digits, then also -._:@+/")
    return Reference(transport, Path(path), tag or None)


def _refuse_later(text: str) -> None:
    match = _LATER.match(text)
    if match is None:
        return
    word = match[1]
    rest = text[match.end() :].strip("/") or "IMAGE"
    how = f"docker save {_word(rest)} -o image.tar" if word == "docker-daemon" else ""
    if not how:
        how = f"skopeo copy {_word(text)} docker-archive:image.tar"
    raise UsageError(f"the transport {word}: is not supported yet; save the image to a file first: {how}")


def _word(text: str) -> str:
    """`text` for a command line that is meant to be copied: anything but a plain word becomes IMAGE."""
    return text if re.fullmatch(r"[\w./:@+-]+", text) else "IMAGE"
