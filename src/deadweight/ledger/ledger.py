"""The ledger: what is in an image, whose it is, and why it is there. Worked out on demand, each thing once."""

from __future__ import annotations

import functools
import hashlib
import posixpath
from collections.abc import Callable, Collection
from functools import cached_property
from typing import TypeVar

import msgspec

from deadweight.binary.elf import is_elf
from deadweight.cache.known import Facts
from deadweight.cache.layers import Cache
from deadweight.image.filesystem import Filesystem, Key, Node
from deadweight.image.model import Image
from deadweight.ledger.debian import Package, owner_by_path, read_packages
from deadweight.ledger.interpreters import Interpreter, interpreters
from deadweight.ledger.python import Distribution, find_distributions, marker_environment
from deadweight.ledger.requirements import Graph, Held, held_in, requirement_graph, why

T = TypeVar("T")


class Owner(msgspec.Struct, frozen=True):
    """Who put a byte there."""

    kind: str
    """`python`, `debian`, `interpreter`, `application`, `system`, `hidden` or `framing`."""
    name: str
    version: str = ""


SYSTEM = Owner("system", "files of no package")
HIDDEN = Owner("hidden", "hidden by later layers")
FRAMING = Owner("framing", "tar framing")


class Ledger:
    """An image's contents with their owners. Immutable; everything is computed when first asked for."""

    def __init__(self, image: Image, cache: Cache | None = None) -> None:
        self.image = image
        self.facts = Facts(image, cache)
        """What is known of single files, for whoever would read them again."""
        self._below: dict[str, Owner] = {}
        self.notes: list[str] = []
        """What could not be read, and why."""

    @cached_property
    def fs(self) -> Filesystem:
        """The merged view."""
        return Filesystem(self.image)

    @cached_property
    def distributions(self) -> list[Distribution]:
        """The installed Python distributions."""
        found = find_distributions(self.fs, self.facts)
        self.notes.extend(note for dist in found for note in dist.notes)
        return found

    @cached_property
    def packages(self) -> list[Package]:
        """The Debian packages."""
        return read_packages(self.fs, self.notes)

    @cached_property
    def interpreters(self) -> list[Interpreter]:
        """The Python interpreters."""
        return interpreters(self.fs)

    @cached_property
    def graph(self) -> Graph:
        """Which distribution requires which, markers evaluated for the image's Python."""
        sites = [dist.site for dist in self.distributions]
        main = max(set(sites), key=lambda site: (sites.count(site), site), default="")
        env = marker_environment(self.fs, main, self.interpreters)

        def held(dist: Distribution) -> list[Held | str]:
            asked = repr((sorted(env.items()), dist.requires)).encode("utf-8", "backslashreplace")
            for path in (f"{dist.info}/METADATA", f"{dist.info}/PKG-INFO", dist.info):
                node = self.fs.nodes.get(path)
                if node is not None and node.kind == "file" and node.inode is not None:
                    work = functools.partial(held_in, dist.requires, env)
                    return self.facts.of(
                        "requires", node.inode, list[Held | str], work, hashlib.sha256(asked).hexdigest()
                    )
            return held_in(dist.requires, env)

        graph = requirement_graph(self.distributions, env, held)
        self.notes.extend(graph.notes)
        return graph

    @cached_property
    def why(self) -> dict[str, str]:
        """For each distribution's canonical name, the chain of requirements that brought it in."""
        return why(self.graph)

    @cached_property
    def owners(self) -> dict[str, Owner]:
        """Owners of the paths that a package or distribution lists; see `owner` for all others."""
        # dpkg first: Debian's own Python packages have a RECORD too, and it is dpkg that can remove them.
        versions = {p.name: p.version for p in self.packages}
        found = {
            path: Owner("debian", name, versions.get(name, "")) for path, name in owner_by_path(self.packages).items()
        }
        for package in self.packages:
            owner = Owner("debian", package.name, package.version)
            for path in package.info_files:
                found.setdefault(path, owner)
        for dist in self.distributions:
            owner = Owner("python", dist.display, dist.version)
            for path in dist.files:
                found.setdefault(path, owner)
        return found

    @cached_property
    def _prefixes(self) -> dict[str, Owner]:
        """Directories whose files have one owner, where no list says otherwise."""
        found: dict[str, Owner] = {}
        for interpreter in self.interpreters:
            if interpreter.home is None and interpreter.stdlib:
                owner = Owner("interpreter", "CPython", interpreter.full_version)
                found[interpreter.stdlib] = owner
                found[posixpath.join(interpreter.prefix, "include", f"python{interpreter.version}").lstrip("/")] = owner
        for place in self.application_directories:
            found[place] = Owner("application", "application")
        return found

    @cached_property
    def application_directories(self) -> tuple[str, ...]:
        """Where the application itself lies: the working directory, and what PYTHONPATH names."""
        places = [str(self.image.run_config.get("WorkingDir") or "")]
        places += self.image.environment.get("PYTHONPATH", "").split(":")
        clean = {posixpath.normpath("/" + place).strip("/") for place in places if place}
        system = {"", "root", "usr", "usr/local", "tmp", "home", "opt", "var", "srv", "etc"}
        return tuple(sorted(place for place in clean if place not in system and place in self.fs.nodes))

    def owner(self, path: str) -> Owner:
        """Who put the file at `path` there."""
        owner = self.owners.get(path)
        if owner is not None:
            return owner
        if path.endswith(".pyc"):  # bytecode written at build or run time belongs to its module
            owner = self.owners.get(module_of(path))
            if owner is not None:
                return owner
        directory = path.rpartition("/")[0]
        return self._below.get(directory) or self._owner_below(directory)

    def owners_of(self, paths: Collection[str]) -> set[Owner]:
        """Who put the files at some paths there."""
        if None not in (listed := {self.owners.get(path) for path in paths}):
            return {owner for owner in listed if owner is not None}
        return {self.owner(path) for path in paths}

    def is_nobodys(self, directory: str) -> bool:
        """Whether nothing in a directory is a package's, a distribution's, an interpreter's or the application's."""
        below = f"{directory}/"
        places = (place for places in (self.owners, self._prefixes) for place in places)
        return self._owner_below(directory) == SYSTEM and not any(place.startswith(below) for place in places)

    def _owner_below(self, directory: str) -> Owner:
        """Who has the files of a directory that no list names."""
        found, parent = SYSTEM, directory
        while parent:
            if parent in self._prefixes:
                found = self._prefixes[parent]
                break
            if parent.endswith(("/site-packages", "/dist-packages")):
                break
            parent = parent.rpartition("/")[0]
        self._below[directory] = found
        return found

    @cached_property
    def elf_files(self) -> dict[str, Node]:
        """The ELF files of the view, one path for each inode, by path."""
        found: dict[str, Node] = {}
        known = [self.facts.table("elf", layer.position, bool) for layer in self.image.layers]
        for (position, index), paths in self.names.items():
            elf = known[position].get(index)
            if elf is None:
                source = self.fs.entry((position, index))
                if source.sparse or source.stored < 64:
                    continue
                elf = known[position][index] = is_elf(self.image.layers[position].tar.read_at(source.data, 64))
            if elf:
                found[paths[0]] = self.fs.nodes[paths[0]]
        return found

    @cached_property
    def names(self) -> dict[Key, list[str]]:
        """The paths of each regular file of the view, in the order of the view, by the entry that carries its bytes."""
        found: dict[Key, list[str]] = {}
        for path, node in self.fs.nodes.items():
            source = node.source
            if source is not None and source.kind == "file":
                found.setdefault((node.source_layer, source.index), []).append(path)
        return found

    def reader(self, path: str) -> Callable[[int, int], bytes]:
        """A function (offset, length) -> bytes over the content of a file of the view."""
        return self.fs.reader(self.fs.nodes[path])


def once_for_ledger(function: Callable[[Ledger], T]) -> Callable[[Ledger], T]:
    """Makes a function of a ledger one that works its answer out once; nobody may change the answer."""

    @functools.wraps(function)
    def once(ledger: Ledger) -> T:
        memo = ledger.facts.memo
        if function not in memo:
            memo[function] = function(ledger)
        found: T = memo[function]
        return found

    return once


def module_of(bytecode: str) -> str:
    """The source file of a .pyc file (PEP 3147)."""
    parent, _, base = bytecode.rpartition("/")
    stem = base.split(".", 1)[0]
    return posixpath.join(posixpath.dirname(parent) if parent.endswith("__pycache__") else parent, f"{stem}.py")
