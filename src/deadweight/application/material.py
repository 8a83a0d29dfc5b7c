"""What is looked at to find an application: the words that an image runs, and the application's Python sources."""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deadweight.application.servers import port_of, substitute
from deadweight.errors import BadInputError
from deadweight.image.model import Image
from deadweight.ledger.ledger import Ledger
from deadweight.passes.application import sources
from deadweight.passes.base import Context
from deadweight.passes.commands import SCRIPT_COUNT, SCRIPT_LIMIT, locate, shebang
from deadweight.passes.imports import parse

SOURCE_LIMIT = 256 << 10
PARSED_LIMIT = 16 << 20
"""Bytes of all sources together that are parsed: a few seconds' work."""
TREES = 8  # a tree takes some hundred times the bytes of its source
SCRIPTS = 10
SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})


@dataclass
class Sources:
    """The Python files of an application, and how their modules are called."""

    paths: Sequence[str]
    """The application's own, without a leading `/`."""
    read: Callable[[str], bytes]
    """A file's content; empty where there is none."""
    roots: Sequence[str]
    """Where modules are imported from, in order."""
    workdir: str = ""
    _trees: dict[str, ast.Module | None] = field(default_factory=dict)
    _parsed: int = 0

    def tree(self, path: str) -> ast.Module | None:
        """A file as a syntax tree; None where there is no Python, or too much of it."""
        path = posixpath.normpath(posixpath.join("/", self.workdir, path)).strip("/")
        if path not in self._trees:
            data = self.read(path)
            self._parsed += len(data)
            if len(self._trees) >= TREES:
                self._trees.clear()
            small = 0 < len(data) <= SOURCE_LIMIT and self._parsed <= PARSED_LIMIT
            self._trees[path] = parse(data) if small else None
        return self._trees[path]

    def module(self, path: str) -> str:
        """The name that a file is imported by; empty where it cannot be."""
        for root in sorted(self.roots, key=len, reverse=True):
            if root == "" or path.startswith(f"{root}/"):
                name = path[len(root) :].strip("/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                return name if all(part.isidentifier() for part in name.split(".")) else ""
        return ""

    def file(self, module: str) -> str:
        """The file of a module; empty where no root has one."""
        place = module.replace(".", "/")
        for root in self.roots:
            for path in (f"{place}.py", f"{place}/__init__.py"):
                full = posixpath.join(root, path)
                if self.tree(f"/{full}") is not None:
                    return full
        return ""

    def run_by(self, module: str) -> str:
        """The file that `python -m` runs; empty where no root has one."""
        return self.file(f"{module}.__main__") or self.file(module)


@dataclass
class Material:
    """What is looked at."""

    argv: Sequence[str]
    """ENTRYPOINT and CMD."""
    check: Sequence[str]
    """The words of HEALTHCHECK."""
    environment: Mapping[str, str]
    ports: Sequence[int]
    """EXPOSE."""
    sources: Sources
    scripts: Callable[[Sequence[str]], Iterator[tuple[str, str]]] = lambda _: iter(())
    """The shell scripts that words name, as (path, text)."""
    console: Mapping[str, str] = field(default_factory=dict)
    """Modules by the commands that are installed for them."""


def argv_of(image: Image) -> list[str]:
    """The words that a container of the image runs: ENTRYPOINT, then CMD."""
    found = []
    for key in ("Entrypoint", "Cmd"):
        value = image.run_config.get(key)
        if isinstance(value, str):  # not what the specification has, but seen
            value = ["/bin/sh", "-c", value]
        found += [word for word in value if isinstance(word, str)] if isinstance(value, list) else []
    return found


def material_of(ledger: Ledger) -> Material:
    """What an image has to look at."""
    fs, image = ledger.fs, ledger.image
    run = image.run_config
    check = run.get("Healthcheck")
    test = check.get("Test") if isinstance(check, dict) else None
    words = [word for word in test if isinstance(word, str)] if isinstance(test, list) else []
    check_words = [substitute(word, image.environment) for word in words[1:]]
    exposed = run.get("ExposedPorts")
    numbers = [port_of(str(name).partition("/")[0]) for name in (exposed if isinstance(exposed, dict) else ())]
    workdir = str(run.get("WorkingDir") or "/")
    sites = list(dict.fromkeys(dist.site for dist in ledger.distributions))

    def read(path: str) -> bytes:
        try:
            return fs.read(path, SCRIPT_LIMIT)
        except BadInputError:
            return b""

    def scripts(words: Sequence[str]) -> Iterator[tuple[str, str]]:
        seen: set[str] = set()
        for word in words[:SCRIPT_COUNT]:
            for node in locate(fs, word):
                if node.kind != "file" or node.size > SOURCE_LIMIT or node.path in seen or len(seen) >= SCRIPTS:
                    continue
                data = read(node.path)
                if any(posixpath.basename(part) in SHELLS for part in shebang(data[:128])) or node.path.endswith(".sh"):
                    seen.add(node.path)
                    yield node.path, data.decode("utf-8", "replace")

    places = [workdir, *image.environment.get("PYTHONPATH", "").split(":")]
    roots = [posixpath.normpath(posixpath.join("/", place)).strip("/") for place in places if place]
    pth = [line for site in sites for path in fs.children(site) if path.endswith(".pth") for line in _lines(read(path))]
    roots += [*sites, *(line.strip("/") for line in pth if line.startswith("/") and line.strip("/") in fs.nodes)]
    console = {
        name: value.partition(":")[0]
        for dist in ledger.distributions
        for group, name, value in dist.entry_points
        if group == "console_scripts"
    }
    files = Sources(sources(Context(ledger)), read, list(dict.fromkeys(roots)), workdir)
    ports = sorted({port for port in numbers if port is not None})
    return Material(argv_of(image), check_words, image.environment, ports, files, scripts, console)


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8", "replace").splitlines()
