"""The base image: which Python runs there, for which machine and C library, and whom its user database has.

What is found is remembered by the image ID, so that a base is read once.
"""

from __future__ import annotations

import posixpath
import re
from typing import Final

import msgspec

from deadweight.build.places import APP, VENV
from deadweight.cache.layers import Cache
from deadweight.errors import BadInputError, shown
from deadweight.image.filesystem import Filesystem
from deadweight.image.model import Image
from deadweight.ledger.machine import MACHINES, glibc

DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a container looks for commands when its image says nothing."""
DEV: Final = "dev"
"""Where engines mount devices."""
ACCOUNTS: Final = ("etc/passwd", "etc/group", "etc/shadow", "etc/gshadow")
_FORMAT: Final = 5
"""Of what is remembered of a base: raised where more or other things are found in the same base than before."""
_EXECUTABLE: Final = re.compile(r"python(3\.\d{1,3})\Z")


class Account(msgspec.Struct, frozen=True):
    """A file of the user database, as the base has it."""

    text: str
    """Its bytes, as Latin-1."""
    mode: int
    uid: int
    gid: int


class Python(msgspec.Struct, frozen=True):
    """The Python that the service will run under."""

    version: str
    """As `3.11`."""
    full_version: str
    executable: str
    """Its path in the image, free of links."""
    machine: str
    """As `uname -m` says it."""
    musl: bool
    glibc: tuple[int, int]
    """(0, 0) with musl."""
    exact: bool = True
    """Whether the base tells its patch release: else `full_version` ends in .0."""

    @property
    def home(self) -> str:
        """The directory of the interpreter."""
        return posixpath.dirname(self.executable)


class Base(msgspec.Struct, frozen=True):
    """What is to be known of a base."""

    python: Python
    path: str
    """PATH there."""
    accounts: dict[str, Account]
    sizes: tuple[int, ...]
    """Of its layers, uncompressed, in bytes."""
    folders: tuple[str, ...]
    """Those of the directories that are going to be used which it has already."""


def read_base(image: Image, cache: Cache) -> Base:
    """What is to be known of the image.

    Raises BadInputError where a service cannot be built on it, DigestError where its layers are not what it says.
    """
    name = f"base-{_FORMAT}-{image.config_digest[7:]}"
    known = cache.facts(name, Base)
    if known is not None and len(known.sizes) == len(image.layers):
        return known
    image.fetch()
    fs = Filesystem(image)
    path = image.environment.get("PATH") or DEFAULT_PATH
    base = Base(
        _python(fs, path),
        path,
        {name: account for name in ACCOUNTS if (account := _account(fs, name)) is not None},
        tuple(layer.size for layer in image.layers),
        tuple(_folders(fs)),
    )
    # What is remembered by the image ID has to be of that image: a forged layer would speak for the genuine one.
    for layer in image.layers:
        layer.check()
    cache.note_facts(name, base)
    return base


def _python(fs: Filesystem, path: str) -> Python:
    from deadweight.ledger.interpreters import interpreters  # noqa: PLC0415  (heavy, and a base is read once)

    architecture = str(fs.image.config.get("architecture", ""))
    machine = MACHINES.get(architecture)
    if machine is None:
        raise BadInputError(
            f"the base is for {shown(architecture)}: wheels for amd64 and arm64 can be installed here, no others"
        )
    for folder in path.split(":"):
        node = fs.resolve(posixpath.join(folder, "python3")) if folder.startswith("/") else None
        if node is not None and node.kind == "file":
            break
    else:
        raise BadInputError(
            "the base has no python3 in its PATH: take one that has (python:3.12-slim, say), or debian:SUITE, "
            "which is made here with Debian's"
        )
    named = _EXECUTABLE.search(node.path)
    found = [one for one in interpreters(fs) if one.home is None]
    own = [one for one in found if one.executable is not None and _real(fs, one.executable) == node.path]
    if not own and named is not None:
        own = [one for one in found if one.version == named[1]]
    if not own:  # a file of its own, beside the one with the version in its name
        beside = posixpath.dirname(node.path)
        own = [one for one in found if one.executable is not None and posixpath.dirname(one.executable) == beside]
        own = own if len(own) == 1 else []
    if not own:
        raise BadInputError(f"the base's python3, {shown('/' + node.path)}, has no standard library that can be found")
    musl = b"/ld-musl-" in fs.reader(node)(0, 4096)
    return Python(
        own[0].version,
        own[0].full_version,
        f"/{node.path}",
        machine,
        musl,
        (0, 0) if musl else _glibc(fs, machine),
        own[0].exact,
    )


def _real(fs: Filesystem, path: str) -> str:
    node = fs.resolve(path)
    return node.path if node is not None else path


def _glibc(fs: Filesystem, machine: str) -> tuple[int, int]:
    """The version of the base's C library."""
    found = glibc(fs, machine)
    if not any(found):
        raise BadInputError(
            "the base has neither musl nor a C library of GNU that says its version: it is not supported"
        )
    return found


def _account(fs: Filesystem, path: str) -> Account | None:
    node = fs.nodes.get(path)
    if node is None:
        return None
    if node.kind != "file" or node.source is None:
        raise BadInputError(f"the base's {shown('/' + path)} is no regular file: a user cannot be added there")
    text = fs.read(path, 1 << 20).decode("latin-1")  # whatever it is: the same bytes come out again
    return Account(text, node.source.mode & 0o7777, node.source.uid, node.source.gid)


def _folders(fs: Filesystem) -> list[str]:
    """Of the directories above and at the places that are going to be used, those that the base has."""
    found = [DEV] if DEV in fs.nodes else []
    for place in (VENV, APP):
        parts = place.strip("/").split("/")
        for end in range(1, len(parts) + 1):
            path = "/".join(parts[:end])
            node = fs.nodes.get(path)
            if node is None:
                break
            if node.kind != "dir":
                raise BadInputError(f"{shown('/' + path)} is no directory in the base: take another base")
            if path == VENV.strip("/") and fs.children(path):
                raise BadInputError(f"the base has a {VENV} already: take one without, since dependencies go there")
            found.append(path)
    return found
