"""What staying files need of Debian packages, whatever dpkg knows: libraries, interpreters, links, commands."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from deadweight.binary.elf import is_elf
from deadweight.image.filesystem import Filesystem
from deadweight.ledger.debian import Alternative
from deadweight.ledger.ledger import Ledger
from deadweight.passes.application import python_files, sources
from deadweight.passes.base import Context
from deadweight.passes.commands import commands, follow, locate, shebang
from deadweight.passes.imports import scan, source
from deadweight.passes.libraries import configured, default_directories, needs

_CALLS = re.compile(
    rb"(?:subprocess\.\w+|Popen|check_call|check_output|os\.system|os\.popen|os\.exec\w+|os\.spawn\w+|shutil\.which"
    rb"|create_subprocess_exec|create_subprocess_shell|\brun|\bcall)\(\s*\[?\s*[rf]?[\"']([\w./+-]+)"
)
_MODULE = re.compile(
    r"usr/(?:local/)?lib/python3(?:\.\d+)?/(?:dist-packages/|lib-dynload/)?([^\W\d]\w*)(?:/|\.py\Z|\..*\.so\Z)"
)


class Need(NamedTuple):
    """A staying file that needs another one."""

    source: tuple[str, ...]
    """Its names: it stays while one of them does. Empty for the image's configuration."""
    target: str
    evidence: str


def all_needs(context: Context, alternatives: Collection[Alternative], candidates: Collection[str]) -> list[Need]:
    """Every need that can be told from files; `candidates` are the paths that could leave."""
    wanted = frozenset(candidates)
    found = list(_of_elf_files(context, wanted))
    found += [
        need
        for needs_of in (_of_scripts, _of_commands, _of_sources)
        for need in needs_of(context)
        if need.target in wanted
    ]
    found += _of_links(context, alternatives, wanted)
    found += _of_imports(context, wanted)
    return found


def _of_elf_files(context: Context, wanted: Collection[str]) -> Iterator[Need]:
    names = context.ledger.names
    nodes = context.ledger.fs.nodes
    for path, needed in needs(context.ledger).items():
        inode = nodes[path].inode
        assert inode is not None  # it has content
        own = tuple(names[inode])
        for library, chain in needed.libraries.items():
            for target in chain:
                if target in wanted:
                    yield Need(own, target, f"/{path} needs {library}")
        for target in needed.interpreter:
            if target in wanted:
                yield Need(own, target, f"/{path} is loaded by it")


def _of_scripts(context: Context) -> Iterator[Need]:
    ledger = context.ledger
    known = [ledger.facts.table("shebang", layer.position, list[str]) for layer in ledger.image.layers]
    for path, node in ledger.fs.nodes.items():
        entry = node.source
        if entry is None or entry.kind != "file" or not entry.mode & 0o111 or entry.sparse or path in context.gone:
            continue
        if entry.stored > 2 and not path.endswith((".so", ".pyc")):
            words = known[node.source_layer].get(entry.index)
            if words is None:
                head = ledger.image.layers[node.source_layer].tar.read_at(entry.data, min(entry.stored, 256))
                words = known[node.source_layer][entry.index] = shebang(head)
            for word in words:
                for target in locate(ledger.fs, word):
                    yield Need((path,), target.path, f"/{path} begins with #!{word}")


def _of_commands(context: Context) -> Iterator[Need]:
    for path, word in commands(context.ledger).programs.items():
        yield Need((), path, f"the image runs {word}")
    fs = context.ledger.fs
    for name, value in fs.image.environment.items():
        # Files only: CUDA_HOME and the like name directories that are of no use by themselves.
        for word in value.replace(":", " ").replace(",", " ").split():
            if word.startswith("/"):
                chain = list(follow(fs, word))
            elif name == "LD_PRELOAD":
                chain = [fs.nodes[p] for p in _libraries(context.ledger, _library_directories(fs), word)]
            else:
                continue
            if chain and chain[-1].kind == "file":
                yield from (Need((), node.path, f"the image's {name} names it") for node in chain)


def _of_sources(context: Context) -> Iterator[Need]:
    """Programs that the application starts, and libraries that Python modules open by name."""
    ledger = context.ledger
    for path in sources(context):
        for word in sorted(set(_CALLS.findall(source(ledger, path)))):
            for target in locate(ledger.fs, word.decode("utf-8", "surrogateescape")):
                yield Need((path,), target.path, f"/{path} starts {word.decode('utf-8', 'surrogateescape')}")
    owners = ledger.owners
    directories = None
    for path, imports in scan(ledger, python_files(context)):
        # Debian's own modules have their libraries among their dependencies.
        if imports.libraries and (path not in owners or owners[path].kind != "debian"):
            directories = directories or _library_directories(ledger.fs)
            for name in imports.libraries:
                for library in _libraries(ledger, directories, name):
                    yield Need((path,), library, f"/{path} opens {name}")


def _library_directories(fs: Filesystem) -> list[str]:
    places = [*configured(fs), *default_directories(str(fs.image.config.get("architecture", "amd64")))]
    nodes = (fs.resolve(place) for place in places)
    return list(dict.fromkeys(node.path for node in nodes if node is not None and node.kind == "dir"))


def _libraries(ledger: Ledger, directories: Collection[str], name: str) -> Iterator[str]:
    """What `find_library("pq")` or `CDLL("libpq.so.5")` would open; linker scripts are nothing to open."""
    fs = ledger.fs
    if name.startswith("/"):
        yield from (node.path for node in follow(fs, name))
        return
    base = posixpath.basename(name)
    exact = ".so" in base
    prefix = base if exact else f"lib{base}.so."
    for directory in directories:
        for child in fs.children(directory):
            rest = posixpath.basename(child).removeprefix(prefix)
            if rest == posixpath.basename(child) or (exact and rest[:1] not in ("", ".")):
                continue
            node = fs.resolve(child)
            if node is not None and node.kind == "file" and is_elf(fs.reader(node)(0, 4)):
                yield child
                yield node.path


def _of_links(context: Context, alternatives: Collection[Alternative], wanted: Collection[str]) -> Iterator[Need]:
    """Links of nobody that lead to what could leave; those of alternatives follow their candidates."""
    fs = context.ledger.fs
    managed = {link for group in alternatives for link in group.links}
    for path in fs.symlinks:
        if path in managed or path in context.gone:
            continue
        for step in follow(fs, path):
            if step.path != path and step.path in wanted:
                yield Need((path,), step.path, f"/{path} leads to /{step.path}")


def _of_imports(context: Context, wanted: Collection[str]) -> Iterator[Need]:
    """Modules of Debian's packages that staying modules import: packages need not say so of the standard library."""
    modules: dict[str, list[str]] = {}
    for path in sorted(wanted):
        match = _MODULE.match(path)
        if match and path.endswith((".py", ".so")):
            modules.setdefault(match[1], []).append(path)
    if not modules:
        return
    owners = context.ledger.owners
    names = modules.keys()
    for path, imports in scan(context.ledger, python_files(context)):
        if path not in wanted and (path not in owners or owners[path].kind != "debian"):
            for module in sorted(imports.modules & names):
                yield Need((path,), modules[module][0], f"/{path} imports {module}")


def kept_by(needs_found: Collection[Need], leaving_files: Mapping[str, str], gone: Collection[str]) -> dict[str, str]:
    """The packages that staying files need, with the reason; `leaving_files` maps paths to their packages."""
    found: dict[str, str] = {}
    for need in needs_found:
        package = leaving_files.get(need.target)
        if package is None or package in found:
            continue
        if not need.source or any(name not in leaving_files and name not in gone for name in need.source):
            found[package] = need.evidence
    return found
