"""Rules about what COPY takes along: whole prefixes of a build stage, tests and scripts."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from deadweight.application.servers import TOOLS
from deadweight.build.lint.measure import Measure
from deadweight.build.lint.model import Charge, Finding, Rule
from deadweight.build.lint.subject import Step, Subject
from deadweight.errors import shown
from deadweight.ledger.known import known

_PREFIXES = frozenset(
    {"/usr/local", "/usr", "/root/.local", "/root", "/opt/conda", "/home", "/opt", "/var", "/lib", "/"}
)
_SITES = ("/site-packages", "/dist-packages")
_WASTE = ("build-tools", "dev-tools", "caches", "tests")


def _prefixes(subject: Subject) -> Iterator[Finding]:
    for step in subject.steps:
        if not step.from_stage:
            continue
        sources = [posixpath.normpath(source) for source in step.copied]
        whole = [source for source in sources if source in _PREFIXES and (source == "/") <= (step.destination == "/")]
        if not whole or (whole[0] == "/" and not _of_stage(subject, step.from_stage)):
            continue
        charges = subject.cost(step, _wasted)
        what = f"all of {whole[0]} is copied from {shown(step.from_stage, 60)}{subject.inherited(step)}"
        yield subject.finding(step, what, charges=charges)


def _scripts(subject: Subject) -> Iterator[Finding]:
    installed = {name for step in subject.steps for one in step.installs for name in one.packages}
    brought = [source.rstrip("/") for step in subject.steps if step.from_stage for source in step.copied]
    for step in subject.steps:
        site = next((one for one in step.copied if one.rstrip("/").endswith(_SITES)), None) if step.from_stage else None
        if site is None:
            continue
        prefix = posixpath.normpath(site).partition("/lib/")[0]
        for start in subject.started:
            program = next(iter(start.instruction.words or ()), "")
            if program not in (*TOOLS, "celery", "alembic") or program in installed:
                continue
            if any(f"{prefix}/bin/{program}".startswith(one) or posixpath.basename(one) == program for one in brought):
                continue
            what = f"{start.name} runs {program}, whose script is not copied along with {shown(site, 80)}"
            yield subject.finding(step, what, more=(start.place,), weighs=False)


def _wasted(measure: Measure, layer: int) -> tuple[Charge, ...]:
    """What came along, and what the base has itself."""
    wasted = (charge for name in _WASTE for charge in measure.cuts(name, layer))
    return (*wasted, *measure.replaced_by(layer))


def _of_stage(subject: Subject, name: str) -> bool:
    """Whether all of a root filesystem comes from a stage, and not to squash layers, or to lay a tool's image over."""
    return subject.dockerfile is not None and subject.base != "scratch" and subject.dockerfile.stage(name) is not None


def _tests(subject: Subject) -> Iterator[Finding]:
    mentioned = _mentions(subject)
    for step in subject.steps:
        if step.name not in ("COPY", "ADD"):
            continue
        named = [source for source in step.copied if _is_unneeded(source, mentioned)]
        if named:
            what = f"{_words(named)} copied into the image{subject.inherited(step)}"
            yield subject.finding(step, what, charges=_charges(subject, step, named), severity="error")
        elif step.from_stage is None and subject.context is not None and step.stage >= 0:
            yield from _whole_context(subject, step, mentioned)
        elif subject.measure is not None and step.layer is not None and (found := _measured(subject.measure, step)):
            yield subject.finding(
                step, f"it brings tests along{subject.inherited(step)}", charges=found, severity="error"
            )


def _whole_context(subject: Subject, step: Step, mentioned: str) -> Iterator[Finding]:
    """`COPY . .` takes whatever .dockerignore does not name."""
    context = subject.context
    assert context is not None
    whole = [source for source in step.copied if posixpath.normpath(source.strip("/") or ".") == "."]
    if not whole:
        return
    tops: dict[str, list[str]] = {}
    weight = known("lint", "context_weight")
    for path in context.files:
        first = path.partition("/")[0]
        if "/" in path and (first in weight or _is_unneeded(first, mentioned)):
            tops.setdefault(first, []).append(path)
    if not tops:
        return
    names = sorted(tops, key=lambda top: -sum(context.files[path] for path in tops[top]))
    lacks = "" if context.has_ignore_file else ", and there is no .dockerignore"
    what = f"{_words(names)} copied along with all the rest{lacks}{subject.inherited(step)}"
    yield subject.finding(step, what, charges=_charges(subject, step, names), severity="error")


def _charges(subject: Subject, step: Step, sources: list[str]) -> tuple[Charge, ...] | None:
    """The bytes of what is copied: of the image's layer, or of the files in the context."""
    if subject.measure is not None and step.layer is not None:
        places = {posixpath.normpath(source.strip("/")).rpartition("/")[2] for source in sources}
        below = step.destination.strip("/")
        found = subject.measure.entries(step.layer, lambda path: _below(path, below, places))
        return (*found, *(charge for charge in _measured(subject.measure, step) if charge not in found))
    if subject.context is None or step.from_stage is not None:
        return None
    files = subject.context.copied(sources)
    return tuple(Charge(("context", path), path, size) for path, size in files.items()) or None


def _below(path: str, destination: str, names: set[str]) -> bool:
    """Whether a path of a layer is, or is below, one of the copied directories."""
    if posixpath.basename(destination) in names and (path == destination or path.startswith(f"{destination}/")):
        return True  # COPY tests ./tests/
    rest = path.removeprefix(f"{destination}/" if destination else "")
    return (not destination or rest != path) and rest.partition("/")[0] in names


def _measured(measure: Measure, step: Step) -> tuple[Charge, ...]:
    """The application's tests that a layer has: as a container sees them, or as first copies of what it sees."""
    assert step.layer is not None
    below = step.destination.strip("/")
    cuts = [one for one in measure.cuts("tests") if one.path.startswith(below) and measure.is_application(one.path)]
    paths = {charge.path for charge in cuts}
    own = measure.entries(step.layer, paths.__contains__)
    mine = {charge.path for charge in own}
    return (*own, *(charge for charge in cuts if charge.path in mine and charge not in own))


def _is_unneeded(source: str, mentioned: str) -> bool:
    clean = posixpath.normpath(source.strip("/") or ".")
    name = posixpath.basename(clean).lower()
    if name in known("lint", "tests"):
        return f"{name}/" not in mentioned and f"{name}." not in mentioned
    return name in known("lint", "scripts") and name not in mentioned


def _mentions(subject: Subject) -> str:
    """What the image runs, and what any RUN runs: a directory named there is needed."""
    steps = [*subject.started, *(step for step in subject.steps if step.name in ("RUN", "ENV", "HEALTHCHECK"))]
    return "\n".join(step.instruction.text for step in steps)


def _words(names: list[str]) -> str:
    quoted = [shown(name, 40)[1:-1] for name in names]
    if len(quoted) > 4:
        return f"{', '.join(quoted[:3])} and {len(quoted) - 3} more are"
    return f"{quoted[0]} is" if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]} are"


RULES = (
    Rule(
        "whole-prefix-copied",
        "error",
        "all of /usr/local, /root/.local or another prefix is copied from a build stage",
        "pip, setuptools, installers, headers, tests and whatever else was built there come along, and what the base "
        "has itself (Python in /usr/local) is in the image twice",
        "install into a virtual environment and copy that alone: python -m venv /opt/venv; COPY --from=build /opt/venv "
        "/opt/venv",
        _prefixes,
    ),
    Rule(
        "scripts-left-behind",
        "error",
        "site-packages is copied without the scripts that the image runs",
        "the build stage's bin directory has uvicorn, gunicorn, alembic; without it the container does not start",
        "copy a whole virtual environment, or run modules: python -m uvicorn",
        _scripts,
    ),
    Rule(
        "tests-copied",
        "error",
        "tests, scripts, documentation or version control are copied into the image",
        "nothing runs them there, each change to them makes a new layer, and they say more about the service than they "
        "should",
        "copy what runs, by name (COPY src ./src), or list the rest in .dockerignore",
        _tests,
    ),
)
