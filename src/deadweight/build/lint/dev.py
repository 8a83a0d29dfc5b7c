"""Rules about what only developers need: in a runtime extra, in a group that is installed unasked, by default."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from packaging.utils import canonicalize_name

from deadweight.application.dockerfile import expand
from deadweight.build.lint.compilers import installed_by
from deadweight.build.lint.measure import SMALL
from deadweight.build.lint.model import Charge, Finding, Place, Rule
from deadweight.build.lint.steps import PYTHON, Install, distribution
from deadweight.build.lint.subject import Step, Subject
from deadweight.errors import shown
from deadweight.ledger.known import known, matcher

_DEV = re.compile(
    r"(?:^|[-_./])(?:dev|develop|development|test|tests|testing|lint|typing|docs)(?:$|[-_./])", re.IGNORECASE
)
_DEV_ARG = re.compile(
    r"(?:(?:INCLUDE|INSTALL|WITH|ENABLE|BUILD|ADD)_)?(?:DEV|TEST|TESTS|DEVELOPMENT)(?:_DEPS|_TOOLS)?\Z"
)
_TRUE = frozenset({"1", "true", "yes", "on", "y"})


def _dev(subject: Subject) -> Iterator[Finding]:
    found = False
    final = {step.place for step in subject.steps}
    for step in subject.used:
        own = next((one for one in subject.steps if one.place == step.place), step)
        for install in step.installs:
            if install.tool not in PYTHON or (install.target and step.place not in final):
                continue
            for what, more in _reasons(subject, step, install):
                charges = _charges(subject, own)
                if charges == ():
                    continue  # the image shows that it is not so
                found = True
                where = subject.inherited(step) if step.place in final else _copied_from(subject, step)
                yield subject.finding(own, what + where, command=install.command, charges=charges, more=more)
    if found or subject.measure is None:
        return
    for step in subject.steps:
        charges = subject.cuts("dev-tools", step) or ()
        if sum(charge.bytes for charge in charges) >= SMALL:
            what = f"development tools are in this layer{subject.inherited(step)}"
            yield subject.finding(step, what, charges=charges)


def _charges(subject: Subject, step: Step) -> tuple[Charge, ...] | None:
    """The tools in the step's layer, or in all where it made none: what a build stage installs is copied from there."""
    return None if subject.measure is None else subject.measure.cuts("dev-tools", step.layer)


def _copied_from(subject: Subject, step: Step) -> str:
    if subject.dockerfile is None or step.stage < 0:
        return ""
    name = subject.dockerfile.stages[step.stage].name or str(step.stage)
    return f", in {shown(name, 60)}, which the final stage copies from"


def _reasons(subject: Subject, step: Step, install: Install) -> Iterator[tuple[str, tuple[Place, ...]]]:
    """What a command installs for developers, each with further places: the lines of pyproject.toml."""
    tool = matcher(known("dev_tools", "distributions"))
    by = installed_by(install)
    named = [name for name in install.packages if tool(name)]
    if named:
        yield f"{by} installs {', '.join(named)}", ()
    project = _project(subject)
    for name in install.files:
        if _DEV.search(name.rpartition(".")[0] or name):
            yield f"{by} installs {shown(name, 80)}", ()
        elif subject.context is not None and (text := subject.context.read(name)):
            lines = [
                (n, distribution(line.strip())) for n, line in enumerate(text.splitlines(), 1) if line[:1].isalpha()
            ]
            tools = [(n, one) for n, one in lines if tool(one)]
            # In a lock file they may come with something that needs them: a file that people write is what counts.
            if tools and not re.search(r"#.*\bvia\b|--hash", text):
                place = Place(str(subject.context.folder / name), tools[0][0])
                yield f"{shown(name, 80)} has {', '.join(one for _, one in tools)}", (place,)
    if install.project or install.tool in ("uv-sync", "poetry", "pdm"):
        yield from project.reasons(install, by, step)


class _Project:
    """What a pyproject.toml says of requirements; lines count from 1."""

    def __init__(self, subject: Subject) -> None:
        self.text = (subject.context.read("pyproject.toml") or "") if subject.context else ""
        self.document: Mapping[str, Any] = subject.context.pyproject if subject.context else {}
        self.file = str(subject.context.folder / "pyproject.toml") if subject.context else ""
        self.tool = matcher(known("dev_tools", "distributions"))

    def table(self, *names: str) -> Mapping[str, Any]:
        """A table of it, empty where there is none."""
        here: Any = self.document
        for name in names:
            here = here.get(name) if isinstance(here, dict) else None
        return here if isinstance(here, dict) else {}

    def tools(self, listed: Any) -> list[str]:
        """The development tools among requirements."""
        names = listed if isinstance(listed, list) else []
        return [name for one in names if isinstance(one, str) and self.tool(name := distribution(one))]

    def place(self, tools: list[str], after: str = "") -> tuple[Place, ...]:
        """Where the first of them is required: below a line that begins like `after`."""
        below = not after
        for number, line in enumerate(self.text.splitlines(), 1):
            below = below or re.match(after, line.strip()) is not None
            named = re.findall(r"[\"']\s*([A-Za-z0-9][\w.-]*)", line.partition("#")[0])
            if below and any(str(canonicalize_name(name)) in tools for name in named):
                return (Place(self.file, number),)
        return ()

    def reasons(self, install: Install, by: str, step: Step) -> Iterator[tuple[str, tuple[Place, ...]]]:
        """Why installing the project, so, installs what developers need."""
        tools = self.tools(self.table("project").get("dependencies"))
        tools += [n for n in map(str.lower, self.table("tool", "poetry", "dependencies")) if self.tool(n)]
        if tools:
            what = f"{by} installs the project, whose dependencies have {', '.join(tools)}"
            yield what, self.place(tools, r"dependencies\s*=|\[tool\.poetry\.dependencies")
        optional = self.table("project", "optional-dependencies") or self.table("tool", "poetry", "extras")
        extras = [_value(step, extra) for extra in install.extras]
        for extra in dict.fromkeys([*optional] if "*" in extras else extras):
            tools = self.tools(optional.get(extra))
            if tools:
                what = f"{by} installs the extra {shown(extra, 40)}, which has {', '.join(tools)}"
                yield what, self.place(tools, rf"[\"']?{re.escape(extra)}[\"']?\s*=")
            elif _DEV.search(extra) and extra not in optional:
                yield f"{by} installs the extra {shown(extra, 40)}", ()
        if "*" in extras and not self.text:
            yield f"{by} installs all extras", ()
        yield from self._groups(install, by, step)

    def _groups(self, install: Install, by: str, step: Step) -> Iterator[tuple[str, tuple[Place, ...]]]:
        """Dependency groups: uv and pdm install `dev` unasked, poetry every group that is not optional."""
        options = install.options
        unasked: list[str] = []
        groups: Mapping[str, Any] = self.table("dependency-groups")
        if install.tool == "uv-sync":
            legacy = self.table("tool", "uv").get("dev-dependencies")
            groups = {**groups, **({"dev": legacy} if isinstance(legacy, list) else {})}
            default = self.table("tool", "uv").get("default-groups", ["dev"])
            unasked = [*groups] if default == "all" else [one for one in default if isinstance(one, str)]
            left_out = {"--no-dev", "--no-default-groups", "--only-group", "--no-group dev"} & options
            if left_out or step.environment.get("UV_NO_DEV", "").lower() in _TRUE:
                unasked = []
        elif install.tool == "pdm":
            legacy = self.table("tool", "pdm", "dev-dependencies")
            groups = {**groups, **legacy}
            unasked = [] if {"--prod", "--production", "--no-default"} & options else [*groups]
        elif install.tool == "poetry":
            old = self.table("tool", "poetry", "dev-dependencies")
            poetry = self.table("tool", "poetry", "group")
            named = {name: [*self.table("tool", "poetry", "group", name, "dependencies")] for name in poetry}
            groups = {**groups, **named, **({"dev": [*old]} if old else {})}
            out = {"--only", "--without", "--no-dev", "--only-root"} & options
            unasked = [] if out else [name for name in groups if not self._optional(name)]
        asked = [*groups] if "*" in install.groups else [*install.groups]
        for group in dict.fromkeys([*asked, *unasked]):
            tools = self.tools(groups.get(group))
            if tools:
                how = "" if group in asked else " unasked"
                what = f"{by} installs the group {shown(group, 40)}{how}, which has {', '.join(tools)}"
                yield what, self.place(tools, rf"[\"']?{re.escape(group)}[\"']?\s*=|\[.*\b{re.escape(group)}\b.*\]")
            elif group in asked and _DEV.search(group) and group not in groups:
                yield f"{by} installs the group {shown(group, 40)}", ()

    def _optional(self, name: str) -> bool:
        return self.table("tool", "poetry", "group", name).get("optional") is True


def _project(subject: Subject) -> _Project:
    return _Project(subject)


def _value(step: Step, text: str) -> str:
    """An extra's name, with build arguments in place."""
    return expand(text, step.environment)


def _by_default(subject: Subject) -> Iterator[Finding]:
    for step in subject.used:
        if step.name != "ARG":
            continue
        name, equals, value = step.instruction.text.partition("=")
        if equals and _DEV_ARG.match(name.strip()) and value.strip().strip("\"'").lower() in _TRUE:
            what = f"the build argument {shown(name.strip(), 40)} is on unless somebody turns it off"
            yield subject.finding(step, what, weighs=False)


RULES = (
    Rule(
        "dev-dependencies",
        "error",
        "pytest, mypy and other development tools are installed in the image that runs",
        "they and what only they need take tens to hundreds of megabytes, and a test runner in production is something "
        "to attack",
        "move them to an extra or dependency group of their own and leave that out: pip install ., uv sync --no-dev, "
        "poetry install --only main",
        _dev,
    ),
    Rule(
        "dev-by-default",
        "warning",
        "a build argument turns development tools on by default",
        "whoever builds without thinking of it gets the heavier image, and that is the one in production",
        "make the default false, and let developers say --build-arg",
        _by_default,
    ),
)
