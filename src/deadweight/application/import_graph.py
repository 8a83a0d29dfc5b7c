"""Whether an application ever imports some packages: from its entry module along its own modules' imports.

    check_imports(code_of_project(folder), "truthgraph.main", {"torch": "torch", "sklearn": "scikit-learn"}, {...})

Static and on the safe side: what may run as the entry module is imported counts as run. Functions that are called then,
as far as names show what is called, are followed into; what methods of unknown objects do is not seen.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deadweight.application.files import read_inside
from deadweight.application.import_sites import Call, Module, Site, When, read_module
from deadweight.application.project import python_files
from deadweight.passes.imports import PARSE_LIMIT, parse

_ROOTS = ("src", "")
_DEPTH = 10
"""How many modules or classes one name is followed through."""


@dataclass(frozen=True)
class Code:
    """An application's own modules."""

    paths: Mapping[str, str]
    """Files by the modules that they are."""
    read: Callable[[str], bytes | None]
    """A file's content; None where it cannot be had, or is too large to be looked into."""


@dataclass(frozen=True)
class Finding:
    """An import of a package that is not to be imported."""

    path: str
    line: int
    module: str
    """The application's, which imports."""
    imported: str
    distribution: str
    when: When
    scope: str
    """The function that it stands in; empty at the top level."""
    chain: tuple[str, ...]
    """From the entry on: which module imports (or calls) what, as `truthgraph.main:14 imports truthgraph.service`."""

    def __str__(self) -> str:
        how = {
            "import": "as it is imported",
            "called": f"when {self.scope} is called: not on import",
            "optional": "where it is installed",
            "typing": "for type checkers alone",
        }[self.when]
        if self.when == "import" and self.scope:
            how = f"as it is imported, by a call of {self.scope}"
        return f"{self.path}:{self.line} imports {self.imported} {how}"


@dataclass
class ImportCheck:
    """What was found."""

    entry: str
    modules: tuple[str, ...] = ()
    """The application's own that are imported with the entry, in order."""
    wrong: list[Finding] = field(default_factory=list)
    """Imports that happen as the entry is imported."""
    allowed: list[Finding] = field(default_factory=list)
    """Those that wait for a call, or are tried."""
    elsewhere: list[Finding] = field(default_factory=list)
    """In modules that nothing imports which the entry leads to."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Top-level modules of which nothing tells whose they are, with the place."""
    unread: dict[str, str] = field(default_factory=dict)
    """Files, and lines that run as the entry is imported, that could not be followed, with the reason."""
    dynamic: list[str] = field(default_factory=list)
    """Places where the name of what is imported is made up as the program goes, when called or where it is tried."""

    @property
    def proved(self) -> bool:
        """Whether the entry imports none of the packages: all was read, and nothing found."""
        return not self.wrong and not self.unread


def code_of_project(folder: Path) -> Code:
    """The modules of a project, tests left out."""
    paths: dict[str, str] = {}
    root = "src/" if (folder / "src").is_dir() else ""
    for path in sorted(python_files(folder), key=lambda one: not one.startswith(root)):
        for place in _ROOTS:
            if place and not path.startswith(f"{place}/"):
                continue
            inside = path[len(place) + 1 :] if place else path
            name = inside.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            if all(part.isidentifier() for part in name.split(".")):
                paths.setdefault(name, path)
            break
    return Code(paths, lambda path: read_inside(folder, path, PARSE_LIMIT))


def check_imports(code: Code, entry: str, forbidden: Mapping[str, str], known: Mapping[str, str]) -> ImportCheck:
    """Follows the imports of `entry`.

    `forbidden` and `known` are top-level modules with their distributions: those that must not be imported, and those
    that may be. Longer names (`google.cloud.storage`) count before shorter ones.
    """
    return _Walk(code, forbidden, known).check(entry)


class _Walk:
    def __init__(self, code: Code, forbidden: Mapping[str, str], known: Mapping[str, str]) -> None:
        self._code = code
        self._forbidden = forbidden
        self._known = known
        self._read: dict[str, Module] = {}
        self._unread: dict[str, str] = {}
        self._chains: dict[str, tuple[str, ...]] = {}
        self._resolved: dict[tuple[str, str, str], tuple[tuple[str, str], ...]] = {}
        self._run: dict[tuple[str, str], tuple[str, ...]] = {}
        """Functions that run as the entry is imported, with the chain that leads to them."""

    def check(self, entry: str) -> ImportCheck:
        found = ImportCheck(entry)
        self._reach(entry, ())
        loaded = dict(self._chains)
        found.modules = tuple(loaded)
        run = dict(self._run)
        later = self._later(loaded)
        for name in self._code.paths:
            for site in self._module(name).sites:
                self._judge(found, name, site, loaded, later, run)
        reached = {self._code.paths[name] for name in (*loaded, *later)}
        found.unread.update({path: why for path, why in self._unread.items() if path in reached})
        return found

    def _module(self, name: str) -> Module:
        if name not in self._read:
            path = self._code.paths[name]
            data = self._code.read(path)
            tree = parse(data) if data is not None else None
            if data is None:
                size = f"{PARSE_LIMIT >> 20} MiB"
                self._unread[path] = f"it cannot be read, or is larger than {size}: what it imports is not known"
            elif tree is None:
                self._unread[path] = "it cannot be read as Python: what it imports is not known"
            package = path.endswith("/__init__.py")
            self._read[name] = Module() if tree is None else read_module(tree, name, package)
        return self._read[name]

    def _reach(self, start: str, chain: tuple[str, ...]) -> None:
        """Imports a module with all that follows at once: modules that are imported, functions that are called."""
        todo: deque[tuple[str, tuple[str, ...]]] = deque([(start, chain)])
        while todo:
            name, chain = todo.popleft()
            for module in self._with_parents(name):
                if module in self._chains:
                    continue
                self._chains[module] = chain
                found = self._module(module)
                todo += self._imports(module, found.sites, "", chain)
                todo += self._called(module, [call for call in found.calls if not call.scope], chain)

    def _imports(
        self, module: str, sites: list[Site], scope: str, chain: tuple[str, ...]
    ) -> Iterator[tuple[str, tuple[str, ...]]]:
        for site in sites:
            if site.scope == scope and site.when in (("import", "optional") if not scope else ("called", "optional")):
                for target in self._own(site):
                    yield target, (*chain, f"{module}:{site.line} imports {target}")

    def _called(self, module: str, calls: list[Call], chain: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The functions that these calls run, and what they call in turn; yields the modules that they import."""
        todo = deque((module, call, chain) for call in calls)
        while todo:
            here, call, chain = todo.popleft()
            for target, function in self._resolve(here, call):
                if (target, function) in self._run:
                    continue
                longer = (*chain, f"{here}:{call.line} calls {target}.{function}")
                self._run[target, function] = longer
                found = self._module(target)
                yield from self._imports(target, found.sites, function, longer)
                todo += ((target, each, longer) for each in found.calls if each.scope == function)

    def _resolve(self, module: str, call: Call, depth: int = 0) -> tuple[tuple[str, str], ...]:
        """The functions that a call runs: (module, name)."""
        key = module, call.name, call.scope
        if key not in self._resolved:
            self._resolved[key] = ()  # to itself, while it is looked for
            self._resolved[key] = tuple(self._look_up(module, call, depth))
        return self._resolved[key]

    def _look_up(self, module: str, call: Call, depth: int) -> Iterator[tuple[str, str]]:
        found = self._module(module)
        first, _, rest = call.name.partition(".")
        around = call.scope.split(".") if call.scope else []
        if first in ("self", "cls", "super()"):
            owner = ".".join(around[:-1])
            if owner in found.classes and rest and first != "super()":
                yield from self._method(module, owner, rest, depth)
            elif owner in found.classes:
                yield from self._inherited(module, owner, rest, depth) if rest else self._made(module, owner, depth)
            return
        for end in range(len(around), -1, -1):
            name = ".".join([*around[:end], call.name])
            above, _, method = name.rpartition(".")
            if name in found.functions:
                yield module, name
                return
            if name in found.classes:
                yield from self._made(module, name, depth)
                return
            if above in found.classes:
                yield from self._method(module, above, method, depth)
                return
        bound = found.names.get(first)
        if depth > _DEPTH:
            return
        if bound is None:
            for star in found.stars:
                if star in self._code.paths and star != module:
                    yield from self._resolve(star, Call(call.line, call.name, ""), depth + 1)
            return
        target, name = bound
        inside = ".".join(part for part in (name, rest) if part)
        while inside:
            # What a package has under a name, from elsewhere perhaps, and the module of its own that has that name.
            if target in self._code.paths and target != module:
                yield from self._resolve(target, Call(call.line, inside, ""), depth + 1)
            head, _, inside = inside.partition(".")
            target = f"{target}.{head}"
            if target not in self._code.paths:
                return

    def _made(self, module: str, owner: str, depth: int) -> Iterator[tuple[str, str]]:
        """The functions that run where an object of a class is made."""
        for made in ("__init__", "__new__", "__post_init__"):
            yield from self._method(module, owner, made, depth)

    def _method(self, module: str, owner: str, name: str, depth: int) -> Iterator[tuple[str, str]]:
        """A method of a class, its own or one that it inherits."""
        if f"{owner}.{name}" in self._module(module).functions:
            yield module, f"{owner}.{name}"
        else:
            yield from self._inherited(module, owner, name, depth)

    def _inherited(self, module: str, owner: str, name: str, depth: int) -> Iterator[tuple[str, str]]:
        scope = owner.rpartition(".")[0]
        for base in self._module(module).classes[owner] if depth <= _DEPTH else ():
            yield from self._resolve(module, Call(0, f"{base}.{name}", scope), depth + 1)

    def _with_parents(self, name: str) -> Iterator[str]:
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            module = ".".join(parts[:end])
            if module in self._code.paths:
                yield module

    def _own(self, site: Site) -> Iterator[str]:
        """The application's own modules that an import imports."""
        if any(True for _ in self._with_parents(site.target)):
            yield site.target
        for name in site.names:
            if f"{site.target}.{name}" in self._code.paths:
                yield f"{site.target}.{name}"

    def _later(self, loaded: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        """The modules that only calls import, with all that follows from that."""
        chains = dict(loaded)
        todo = deque(loaded)
        while todo:
            name = todo.popleft()
            for site in self._module(name).sites:
                if site.when == "typing":
                    continue
                for target in self._own(site):
                    for module in self._with_parents(target):
                        if module not in chains:
                            chains[module] = (*chains[name], f"{name}:{site.line} imports {module} when called")
                            todo.append(module)
        return {name: chain for name, chain in chains.items() if name not in loaded}

    def _judge(
        self,
        found: ImportCheck,
        name: str,
        site: Site,
        loaded: Mapping[str, tuple[str, ...]],
        later: Mapping[str, tuple[str, ...]],
        run: Mapping[tuple[str, str], tuple[str, ...]],
    ) -> None:
        reached = name in loaded or name in later
        path = self._code.paths[name]
        if site.when == "typing":
            return
        if not site.target:
            ran = (name, site.scope) in run if site.scope else name in loaded
            if ran and site.when in ("import", "called"):
                found.unread[f"{path}:{site.line}"] = (
                    "it runs on import, and the name of what it imports is made up then"
                )
            elif reached:
                found.dynamic.append(f"{path}:{site.line}")
            return
        if any(True for _ in self._own(site)) or site.target.partition(".")[0] in sys.stdlib_module_names:
            return
        hits = {
            hit for each in (site.target, *(f"{site.target}.{one}" for one in site.names)) if (hit := self._hit(each))
        }
        if not hits:
            if reached and not self._is_known(site):
                found.unknown.setdefault(site.target.partition(".")[0], f"{path}:{site.line}")
            return
        called = run.get((name, site.scope))
        when = site.when
        if when == "called" and name in loaded and called is not None:
            when = "import"
        chain = called if called is not None else loaded.get(name, later.get(name, ()))
        for hit in sorted(hits):
            one = Finding(path, site.line, name, hit, self._forbidden[hit], when, site.scope, chain)
            if not reached:
                found.elsewhere.append(one)
            elif name in loaded and when == "import":
                found.wrong.append(one)
            elif name in later and when == "import":
                # Its own import waits for a call.
                found.allowed.append(Finding(path, one.line, name, hit, one.distribution, "called", f"{name}", chain))
            else:
                found.allowed.append(one)

    def _hit(self, target: str) -> str:
        """The forbidden module that a name lies in; empty where there is none."""
        parts = target.split(".")
        for end in range(len(parts), 0, -1):
            name = ".".join(parts[:end])
            if name in self._known:
                return ""
            if name in self._forbidden:
                return name
        return ""

    def _is_known(self, site: Site) -> bool:
        names = (site.target, *(f"{site.target}.{one}" for one in site.names))
        return any(
            ".".join(parts[:end]) in self._known
            for parts in (name.split(".") for name in names)
            for end in range(1, len(parts) + 1)
        )
