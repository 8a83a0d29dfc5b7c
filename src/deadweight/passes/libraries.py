"""Which file the dynamic loader opens for each library that a program or library needs (ld.so(8))."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from deadweight.binary.dynamic import Dynamic, dynamic, interpreter
from deadweight.binary.elf import MACHINES, ElfError, parse
from deadweight.errors import BadInputError
from deadweight.image.filesystem import Filesystem, Node
from deadweight.ledger.ledger import Ledger
from deadweight.passes.commands import follow

_TRIPLETS = {
    "amd64": "x86_64-linux-gnu",
    "arm64": "aarch64-linux-gnu",
    "ppc64le": "powerpc64le-linux-gnu",
    "s390x": "s390x-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
    "arm": "arm-linux-gnueabihf",
    "386": "i386-linux-gnu",
}
_INCLUDE_DEPTH = 5


class Needs(msgspec.Struct, frozen=True):
    """What one ELF file makes the loader open: name as written -> path, with links on the way."""

    libraries: dict[str, tuple[str, ...]]
    """The links followed, and last the file; empty where nothing in the image has that name."""
    interpreter: tuple[str, ...] = ()


_NEEDS: WeakKeyDictionary[Ledger, dict[str, Needs]] = WeakKeyDictionary()


def needs(ledger: Ledger) -> dict[str, Needs]:
    """For each of the ledger's ELF files, by path: what it needs; worked out once.

    Files that cannot be read, and those of other machines, need nothing that could be told.
    """
    found = _NEEDS.get(ledger)
    if found is None:
        loader = _Loader(ledger.fs)
        machine = MACHINES.get(str(ledger.image.config.get("architecture", "amd64")))
        found = {}
        for path, node in ledger.elf_files.items():
            assert node.inode is not None  # it has content
            asked = ledger.facts.of("asked", node.inode, _Asked, lambda path=path, node=node: _ask(ledger, path, node))  # type: ignore[misc]
            if asked.machine is not None and asked.machine == machine:
                found[path] = loader.needs(path, asked.loader, asked.program)
        _NEEDS[ledger] = found
    return found


class _Asked(NamedTuple):
    """What an ELF file asks for, whatever there is."""

    machine: int | None
    """None where the file cannot be read."""
    loader: Dynamic
    program: str | None


def _ask(ledger: Ledger, path: str, node: Node) -> _Asked:
    read = ledger.reader(path)
    try:
        elf = parse(read, node.size)
        return _Asked(elf.machine, dynamic(read, elf), interpreter(read, elf))
    except ElfError:
        return _Asked(None, Dynamic(), None)


class _Loader:
    """Looks names up the way ld.so does; remembers what it found."""

    def __init__(self, fs: Filesystem) -> None:
        self._fs = fs
        environment = fs.image.environment
        self._library_path = [p for p in environment.get("LD_LIBRARY_PATH", "").split(":") if p.startswith("/")]
        self._system = [*configured(fs), *default_directories(str(fs.image.config.get("architecture", "amd64")))]
        self._known: dict[tuple[str, str], tuple[str, ...]] = {}
        self._directories: dict[str, str | None] = {}

    def needs(self, path: str, asked: Dynamic, program: str | None) -> Needs:
        origin = posixpath.dirname(path)
        own = [p for written in (asked.runpath or asked.rpath) if (p := self._expand(written, origin))]
        before, behind = ([], own) if asked.runpath else (own, [])
        places = [*before, *self._library_path, *behind]
        libraries = {name: self._find(name, places) for name in asked.needed}
        chain = tuple(node.path for node in follow(self._fs, program)) if program else ()
        return Needs(libraries, chain)

    def _expand(self, written: str, origin: str) -> str:
        """A search path with its tokens replaced; `$LIB` and `$PLATFORM` are left to the system's directories."""
        text = re.sub(r"\$(?:ORIGIN\b|\{ORIGIN\})", lambda _: f"/{origin}", written)
        return "" if "$" in text or not text.startswith("/") else text

    def _find(self, name: str, places: list[str]) -> tuple[str, ...]:
        if "/" in name:
            return tuple(node.path for node in follow(self._fs, name))
        for place in places:
            found = self._in(place, name)
            if found:
                return found
        key = ("", name)
        if key not in self._known:
            self._known[key] = next((found for place in self._system if (found := self._in(place, name))), ())
        return self._known[key]

    def _in(self, place: str, name: str) -> tuple[str, ...]:
        directory = self._directory(place)
        if directory is None:
            return ()
        key = (directory, name)
        if key not in self._known:
            path = f"{directory}/{name}" if directory else name
            chain = list(follow(self._fs, path)) if path in self._fs.nodes else []
            self._known[key] = tuple(n.path for n in chain) if chain and chain[-1].kind == "file" else ()
        return self._known[key]

    def _directory(self, place: str) -> str | None:
        if place not in self._directories:
            node = self._fs.resolve(posixpath.normpath(place))
            self._directories[place] = node.path if node is not None and node.kind == "dir" else None
        return self._directories[place]


def default_directories(architecture: str) -> list[str]:
    """Where ld.so looks last, for an OCI architecture; Debian's multiarch directories and those of others."""
    triplet = _TRIPLETS.get(architecture, "")
    names = [f"/lib/{triplet}", f"/usr/lib/{triplet}"] if triplet else []
    return [*names, "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"]


def configured(fs: Filesystem) -> list[str]:
    """The directories that /etc/ld.so.conf names, files that it includes read too (ldconfig(8))."""
    return list(dict.fromkeys(_configuration(fs, "etc/ld.so.conf", 0)))


def _configuration(fs: Filesystem, path: str, depth: int) -> Iterator[str]:
    try:
        text = fs.read(path, 1 << 20).decode("utf-8", "replace")
    except BadInputError:
        return
    for line in text.splitlines():
        words = line.partition("#")[0].replace(",", " ").replace(":", " ").split()
        if words[:1] == ["include"] and depth < _INCLUDE_DEPTH:
            for pattern in words[1:]:
                for node in _glob(fs, pattern):
                    yield from _configuration(fs, node.path, depth + 1)
        else:
            yield from (word for word in words if word.startswith("/"))


def _glob(fs: Filesystem, pattern: str) -> Iterator[Node]:
    """Files of one directory; patterns in directories' names are not in use."""
    directory, _, base = posixpath.normpath(posixpath.join("/etc", pattern)).strip("/").rpartition("/")
    expression = re.compile(re.escape(base).replace(r"\*", "[^/]*").replace(r"\?", "[^/]"))
    for child in sorted(fs.children(directory)):
        if expression.fullmatch(posixpath.basename(child)):
            yield fs.nodes[child]
