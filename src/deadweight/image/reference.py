"""References: where an image is, with skopeo's transports (containers-transports(5)), plus `podman:` and `rootfs:`.

    oci:DIR[:TAG]   oci-archive:FILE[:TAG]   docker-archive:FILE[:NAME:TAG]   rootfs:DIR
    docker-daemon:NAME[:TAG]   podman:NAME[:TAG]   containers-storage:NAME[:TAG]   docker://[HOST/]NAME[:TAG|@DIGEST]

As in skopeo, a path ends at the first colon (but for `rootfs:`, which has no tag). A bare word is what is there under
that path, else the name of an engine's image.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec

from deadweight.errors import UsageError, shown

Transport = Literal[
    "oci",
    "oci-archive",
    "docker-archive",
    "archive",
    "rootfs",
    "docker",
    "docker-daemon",
    "podman",
    "containers-storage",
    "engine",
]
"""`archive` is a file given without a transport: its content says which of the two archives it is. `engine` is a name
given without one: of Docker's engine where that can be reached, else of Podman's."""

ENGINES = frozenset[Transport]({"docker-daemon", "podman", "engine"})
"""What is read and written by an engine's API."""

_FILES: dict[str, Transport] = {
    "oci": "oci",
    "oci-archive": "oci-archive",
    "docker-archive": "docker-archive",
    "rootfs": "rootfs",
}
NAMED: dict[str, Transport] = {
    "docker": "docker",
    "docker-daemon": "docker-daemon",
    "podman": "podman",
    "containers-storage": "containers-storage",
}
"""The words of transports that know images by names."""
_EXAMPLES = (
    "oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME:TAG], rootfs:DIR, docker-daemon:NAME:TAG, "
    "podman:NAME:TAG, containers-storage:NAME:TAG or docker://HOST/NAME:TAG"
)
_OTHERS = re.compile(r"(dir|sif|ostree|tarball|registry):")
# Docker's reference grammar (distribution/reference): [HOST[:PORT]/]NAME[:TAG][@DIGEST], the name in lower case.
_PART = r"[a-z0-9]+(?:(?:__|[._]|-+)[a-z0-9]+)*"
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::\d+)?"
_NAME = re.compile(
    rf"(?P<path>(?:{_HOST}/)?{_PART}(?:/{_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?",
    re.ASCII,
)
_ID = re.compile(r"sha256:[0-9a-f]{64}|[0-9a-f]{12,64}")
_STORAGE = re.compile(r"(\[[\w@+:=/.,-]*\])?(.*)", re.ASCII)
# org.opencontainers.image.ref.name; looser than the image-spec's grammar, as tools are.
_REF_NAME = re.compile(r"[A-Za-z0-9][\w.:@+/-]*", re.ASCII)
_PATH_LIKE = re.compile(r"[./~].*|.*\.(tar|tar\.\w+|tgz|oci|img)|.*/", re.DOTALL)


class Reference(msgspec.Struct, frozen=True):
    """Where an image is or goes."""

    transport: Transport
    path: Path = Path()
    """The file or directory; of no meaning where `name` is used (see `local`)."""
    tag: str | None = None
    """Picks one of several images in one file or directory."""
    name: str = ""
    """What an engine or a registry knows the image by, whole: NAME:TAG, NAME@DIGEST, an engine's image ID; for a
    registry always with its host (`docker.io/library/python:3.12`). `split_name` takes it apart.
    """

    @property
    def local(self) -> Path | None:
        """The file or directory, or None where an engine or a registry has the image."""
        return None if self.name else self.path

    def __str__(self) -> str:
        if self.name:
            prefix = {"docker": "docker://", "engine": ""}.get(self.transport, f"{self.transport}:")
            return prefix + self.name
        place = str(self.path) if self.transport == "archive" else f"{self.transport}:{self.path}"
        return place if self.tag is None else f"{place}:{self.tag}"


class Name(msgspec.Struct, frozen=True):
    """An image's name, taken apart. `path` is without the host; a name may have a tag, a digest, or both."""

    host: str
    path: str
    tag: str | None
    digest: str | None


def split_name(name: str) -> Name | None:
    """A name with its parts, the host and `library/` filled in as Docker does; None when it is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    host, _, path = full_name(match["path"]).partition("/")
    return Name(host, path, match["tag"], match["digest"])


def parse_reference(text: str) -> Reference:
    """What `text` names: a transport with a path or name; the bare path of something that is there; an engine's image.

    Raises UsageError when it cannot be one. Nothing is asked of an engine or a registry yet.
    """
    explicit = _explicit(text)
    if explicit is not None:
        return explicit
    if not text:
        raise UsageError(f"an image is needed: {_EXAMPLES}")
    path = Path(text)
    if "\0" not in text and path.is_dir():
        if (path / "oci-layout").exists() or (path / "index.json").exists():
            return Reference("oci", path)
        raise UsageError(
            f"{shown(text)} is a directory without an OCI layout; for a root filesystem say rootfs:{_word(text)}"
            + _or_named(text)
        )
    if "\0" not in text and path.exists():
        return Reference("archive", path)
    _refuse_others(text)
    name = _engine_name(text)
    if name is None or _PATH_LIKE.fullmatch(text):
        raise UsageError(
            f"there is no file or directory {shown(text)}; an engine's image is docker-daemon:NAME:TAG or "
            "podman:NAME:TAG, a registry's docker://HOST/NAME:TAG"
        )
    return Reference("engine", name=name)


def parse_name(text: str) -> Reference:
    """What `text` names where only engines and registries are asked: a bare name is an engine's, whatever lies here.

    Raises UsageError when it cannot be one.
    """
    name = _engine_name(text)
    if name is None or _PATH_LIKE.fullmatch(text) or _explicit(text) is not None:
        return parse_reference(text)
    return Reference("engine", name=name)


def parse_destination(text: str) -> Reference:
    """Where to write. A destination names its transport, since nothing is there to be sniffed.

    Raises UsageError when it does not, or names what can only be read.
    """
    explicit = _explicit(text)
    if explicit is None:
        _refuse_others(text)
        say = f"docker-archive:{_word(text)}"
        if _engine_name(text) is not None and not _PATH_LIKE.fullmatch(text):
            say = f"docker-daemon:{text} or {say}"
        raise UsageError(f"the destination {shown(text)} names no transport; say {say}, or another of {_EXAMPLES}")
    name = explicit.name.rpartition("]")[2] if explicit.transport == "containers-storage" else explicit.name
    if name and (_ID.fullmatch(name) or "@" in name):
        raise UsageError(f"{shown(text)} names an image by what it holds, which a new one does not; write NAME:TAG")
    return explicit


def docker_name(tag: str) -> str | None:
    """`tag` as NAME:TAG, which engines ask for, or None when it is none. A name alone gets `:latest`."""
    match = _NAME.fullmatch(tag)
    if match is None or match["digest"]:
        return None
    return tag if match["tag"] else f"{tag}:latest"


def is_id(name: str) -> bool:
    """Whether an engine's name of an image is its ID, or the beginning of it."""
    return _ID.fullmatch(name) is not None


def full_name(name: str) -> str:
    """NAME:TAG with the registry that Docker leaves out."""
    first, slash, rest = name.partition("/")
    if slash and first in ("docker.io", "index.docker.io"):
        return f"docker.io/{rest}" if "/" in rest else f"docker.io/library/{rest}"
    if has_host(name):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def has_host(name: str) -> bool:
    """Whether NAME:TAG says its registry."""
    first, slash, _ = name.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())


def short_name(name: str) -> str:
    """NAME:TAG without the registry that Docker leaves out."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def _explicit(text: str) -> Reference | None:
    word, colon, rest = text.partition(":")
    if not colon:
        return None
    if word in NAMED:
        return _named(NAMED[word], rest, text)
    transport = _FILES.get(word)
    if transport is None:
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


def _named(transport: Transport, rest: str, text: str) -> Reference:
    form, name = f"{transport}:NAME:TAG", None
    if transport == "docker":
        form = "docker://HOST/NAME:TAG for a registry's image, docker-daemon:NAME:TAG for an engine's"
        name = _registry_name(rest.removeprefix("//")) if rest.startswith("//") else None
    elif transport == "containers-storage":
        match = _STORAGE.fullmatch(rest)
        found = _engine_name(match[2]) if match else None
        name = None if match is None or found is None else (match[1] or "") + found
    else:
        name = _engine_name(rest)
    if name is None:
        # Whoever writes a login into an address does not want to see it on the screen, or in a CI's log.
        seen = shown(re.sub(r"//[^/]*@(?!sha256:)", "//***@", text))
        raise UsageError(f"{seen} names no image; write {form}, the name in lower case")
    return Reference(transport, name=name)


def _registry_name(text: str) -> str | None:
    """A name with its host, and `:latest` where it has neither tag nor digest; None when it is none."""
    parts = split_name(text)
    if parts is None:
        return None
    tag = f":{parts.tag or 'latest'}" if parts.tag or not parts.digest else ""
    return f"{parts.host}/{parts.path}{tag}" + (f"@{parts.digest}" if parts.digest else "")


def _engine_name(text: str) -> str | None:
    """A name as an engine takes it: NAME:TAG, NAME@DIGEST, an ID as it is; None when it is none."""
    if _ID.fullmatch(text):
        return text
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    return text if match["tag"] or match["digest"] else f"{text}:latest"


def _refuse_others(text: str) -> None:
    match = _OTHERS.match(text)
    if match is not None:
        copy = f"skopeo copy {_word(text)} docker-archive:image.tar"
        raise UsageError(f"the transport {match[1]}: is not supported; copy the image to a file first: {copy}")


def _or_named(text: str) -> str:
    """How an engine's image is named that something which lies here hides."""
    name = None if _PATH_LIKE.fullmatch(text) else _engine_name(text)
    if name is None:
        return ""
    tagged = f" or {name}" if name != text else ""
    return f", for an engine's image docker-daemon:{name}, podman:{name}{tagged}"


def _word(text: str) -> str:
    """`text` for a command line that is meant to be copied: anything but a plain word becomes IMAGE."""
    return text if re.fullmatch(r"[\w./:@+-]+", text) else "IMAGE"
