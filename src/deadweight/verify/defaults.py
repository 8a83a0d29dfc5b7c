"""What is probed where nobody says what: everything that an image shows of itself.

In the order of the table: modules, libraries, routes, the server's start, what is to be gone, pip's own check, and what
importing the application takes. A default probe stays out where the specification has one that does the same.
"""

from __future__ import annotations

import keyword
from collections.abc import Collection

from deadweight.application.discover import Discovery, discover
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.python import Distribution
from deadweight.passes.commands import locate
from deadweight.verify.spec import (
    AbsentProbe,
    ImportProbe,
    LibrariesProbe,
    Probe,
    RoutesProbe,
    RunProbe,
    Spec,
    StartProbe,
)

TIME_RATIO = 2.0
"""An import may take twice as long: on busy machines the same import varies by half."""
MEMORY_RATIO = 1.25
"""Resident memory hardly varies: what a slimmed image adds to it is noticed from a quarter on."""
PIP_CHECK_ENV = {"PIP_NO_CACHE_DIR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "NO_COLOR": "1"}
BY_MISTAKE = frozenset(
    ("test", "tests", "testing", "docs", "doc", "examples", "example", "benchmarks", "benchmark", "conftest")
)
"""Top-level names that distributions install by mistake: nobody imports them from there."""
COMMANDS = ("gcc", "g++", "cc", "make", "uv")
MODULES = ("pytest", "mypy")
"""What a deployment has no use for: where a plan takes it out, it is to be gone."""
HOOKS = frozenset({"_distutils_hack", "_virtualenv", "distutils_precedence"})
"""Modules that .pth files set up when Python starts; imported again they only get in their own way."""


def default_probes(before: Ledger, after: Ledger, spec: Spec, removed: Collection[str] = frozenset()) -> list[Probe]:
    """The probes for two images, in the order of the table. `removed` are the paths that a plan removes."""
    found = discover(before, spec.app)
    heavy = heaviest(before, after, found)
    names = modules(before, after, removed)
    probes: list[Probe] = [ImportProbe(name="modules import", modules=names)] if names else []
    probes.append(LibrariesProbe(name="libraries resolve"))
    if found.app:
        probes.append(RoutesProbe(name="application loads"))
    if found.server:
        probes.append(StartProbe(name="server starts"))
    gone = _gone(before, after, removed)
    if gone is not None:
        probes.append(gone)
    python = _python_with_pip(before, after, spec)
    if python:
        command = [python, "-m", "pip", "check"]
        probes.append(RunProbe(name="pip check", command=command, env=PIP_CHECK_ENV))
    if heavy:
        probes.append(
            ImportProbe(
                name=f"import {heavy}: time, memory",
                modules=[heavy],
                time_ratio=TIME_RATIO,
                memory_ratio=MEMORY_RATIO,
            )
        )
    return [probe for probe in probes if not _asked(spec, probe)]


def not_probed(before: Ledger, spec: Spec) -> list[str]:
    """What is not probed by default since the image does not show it, and how to say it."""
    found = discover(before, spec.app)
    notes = []
    if not found.app and not any(isinstance(probe, RoutesProbe) for probe in spec.probe):
        notes.append("no application was found, so no routes are compared: name it by [app] asgi or wsgi")
    if not found.server and not any(isinstance(probe, StartProbe) for probe in spec.probe):
        notes.append("the image starts no server that is known here, so none is probed: say [app] port")
    return notes


def _asked(spec: Spec, probe: Probe) -> bool:
    """Whether the specification has a probe that does what a default one would."""
    for one in spec.probe:
        if isinstance(one, ImportProbe) and isinstance(probe, ImportProbe):
            measured = probe.time_ratio is not None
            if (one.time_ratio or one.memory_ratio) if measured else one.modules is None:
                return True
        elif type(one) is type(probe) and _as_wide(one):
            return True
    return False


def _as_wide(probe: Probe) -> bool:
    """Whether a probe of a specification looks at all that the default one of its kind does."""
    if isinstance(probe, LibrariesProbe):
        return not probe.paths
    if isinstance(probe, RoutesProbe):
        return probe.app is None
    return isinstance(probe, StartProbe) and probe.command is None


def _gone(before: Ledger, after: Ledger, removed: Collection[str]) -> AbsentProbe | None:
    """Compilers, installers and test tools that the plan says have left: they are to be really gone."""
    found = []
    for command in COMMANDS:
        chain = list(locate(before.fs, command))
        if chain and chain[0].path in removed:
            found.append(command)
    kept = {dist.name for dist in after.distributions}
    left = [name for name in MODULES if name not in kept and any(dist.name == name for dist in before.distributions)]
    return AbsentProbe(name="build and test tools are gone", commands=found, modules=left) if found or left else None


def modules(before: Ledger, after: Ledger, removed: Collection[str] = frozenset()) -> list[str]:
    """The top-level modules of the distributions that both images have, less those that `left_out` names."""
    out = left_out(before, after, removed)
    return [name for name in _of_both(before, after) if name not in out]


def left_out(before: Ledger, after: Ledger, removed: Collection[str]) -> dict[str, str]:
    """Modules of distributions in both images that are not probed, each with the reason.

    A directory called `tests` at the top of site-packages is not what a distribution is for: where a plan removes
    all of it, that is no difference in behaviour.
    """
    found = {}
    for name, dists in _of_both(before, after).items():
        if name in HOOKS or keyword.iskeyword(name) or not name.isidentifier():
            found[name] = "set up when Python starts, or no name that an import statement takes"
        elif not any(importable(before, dist.site, name) for dist in dists):
            found[name] = "listed, but there is no file of it"
        elif name in BY_MISTAKE:
            files = [path for dist in dists for path in _files(dist, name)]
            if files and all(path in removed and path not in after.fs.nodes for path in files):
                found[name] = f"{dists[0].display}'s, installed beside it by mistake, and removed by the plan"
    return found


def importable(ledger: Ledger, site: str, module: str) -> bool:
    """Whether there is something in a directory that a top-level module could be."""
    place, nodes = f"{site}/{module}", ledger.fs.nodes
    if f"{place}.py" in nodes or (place in nodes and nodes[place].kind == "dir"):
        return True
    return any(path.startswith(f"{place}.") and path.endswith((".so", ".pyc")) for path in ledger.fs.children(site))


def _of_both(before: Ledger, after: Ledger) -> dict[str, list[Distribution]]:
    """By top-level module, sorted: the distributions of it that both images have."""
    kept = {dist.name for dist in after.distributions}
    found: dict[str, list[Distribution]] = {}
    for dist in before.distributions:
        if dist.name in kept:
            for name in dist.top_level:
                found.setdefault(name, []).append(dist)
    return dict(sorted(found.items()))


def _files(dist: Distribution, module: str) -> list[str]:
    """The files that make a top-level module importable."""
    start = f"{dist.site}/{module}"
    suffixes = (".py", ".so", ".pyc")
    return [path for path in dist.files if path.startswith((f"{start}/", f"{start}.")) and path.endswith(suffixes)]


def _python_with_pip(before: Ledger, after: Ledger, spec: Spec) -> str:
    """The interpreter for `pip check`, where both images have it and pip."""
    if not all(any(dist.name == "pip" for dist in ledger.distributions) for ledger in (before, after)):
        return ""
    words = (spec.app.python,) if spec.app.python else ("python3", "python")
    return next((word for word in words if all(list(locate(ledger.fs, word)) for ledger in (before, after))), "")


def heaviest(before: Ledger, after: Ledger, found: Discovery) -> str:
    """The module whose import is measured: the application's, else that of the largest distribution in both images."""
    workdir = str(before.image.run_config.get("WorkingDir") or "/")
    if found.app and found.directory.rstrip("/") == workdir.rstrip("/"):
        return found.app.partition(":")[0]
    kept = {dist.name for dist in after.distributions}
    sizes = []
    for dist in before.distributions:
        names = [name for name in dist.top_level if f"{dist.site}/{name}/__init__.py" in before.fs.nodes]
        if dist.name in kept and names and not dist.name.startswith("nvidia-"):  # those bring libraries for others
            size = sum(before.fs.nodes[path].size for path in dist.files if path in before.fs.nodes)
            sizes.append((size, min(names, key=lambda name: (name.startswith("_"), name not in dist.name, name))))
    return max(sizes, default=(0, ""))[1]
