"""Rules about what builds software and stays: in the base, in the packages, in site-packages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from deadweight.build.lint.measure import SMALL, Measure
from deadweight.build.lint.model import Charge, Finding, Rule
from deadweight.build.lint.shell import Command
from deadweight.build.lint.steps import PYTHON, SYSTEM, Install
from deadweight.build.lint.subject import Step, Subject, is_base
from deadweight.errors import shown
from deadweight.ledger.known import known, matcher

_SCRIPTS = {"astral.sh/uv": "uv", "install.python-poetry": "poetry", "sh.rustup.rs": "rustup"}


def _compilers(subject: Subject) -> Iterator[Finding]:
    if _compiles_at_run_time(subject):
        return
    if is_base(subject.base, "bases_with_compilers", "bases_without_compilers"):
        charges = _of_base(subject)
        if charges is None or charges:
            what = f"the base {shown(subject.base, 80)} brings compilers"
            yield Finding(what, (subject.base_place,), charges, comments=subject.base_comments)
    elif (charges := _of_base(subject)) is not None and sum(c.bytes for c in charges) >= SMALL:
        what = f"the base {shown(subject.base, 80)} brings build tools"
        yield Finding(what, (subject.base_place,), charges, comments=subject.base_comments)
    for step in subject.runs():
        left = _left(step)
        charges = subject.cost(step, _packages)
        if charges is not None:
            if not charges or (not left and sum(charge.bytes for charge in charges) < SMALL):
                continue
            if not left:
                yield subject.finding(step, f"build tools stay in this layer{subject.inherited(step)}", charges=charges)
                continue
        if left:
            command, names = left
            real = [name for name in names if matcher(known("lint", "compilers"))(name)]
            what = f"{_listing(real or names)} {'stays' if len(real or names) == 1 else 'stay'} in the image"
            yield subject.finding(
                step,
                what + subject.inherited(step),
                line=command.line_of((real or names)[0]),
                charges=charges,
                severity="error" if real else "warning",
            )


def _compiles_at_run_time(subject: Subject) -> bool:
    needs = matcher(known("compilers", "needed_by"))
    return any(needs(name) for step in subject.used for one in step.installs for name in one.packages)


def _of_base(subject: Subject) -> tuple[Charge, ...] | None:
    if subject.measure is None or subject.dockerfile is None:
        return None
    measure = subject.measure
    return tuple(charge for layer in subject.base_layers for charge in _packages(measure, layer))


def _packages(measure: Measure, layer: int) -> tuple[Charge, ...]:
    """Cuts of Debian packages: installers of Python are another rule's."""
    return tuple(charge for charge in measure.cuts("build-tools", layer) if not measure.is_installer(charge.path))


def _tools(measure: Measure, layer: int) -> tuple[Charge, ...]:
    return tuple(charge for charge in measure.cuts("build-tools", layer) if measure.is_installer(charge.path))


def _left(step: Step) -> tuple[Command, list[str]] | None:
    """Build tools that a RUN installs and does not remove again."""
    is_tool = matcher([*known("build_tools", "packages"), *known("lint", "other_packages")])
    is_none = matcher(known("build_tools", "not_packages"))
    removed = _removed(step)
    for one in step.installs:
        if one.tool not in SYSTEM and one.tool != "conda":
            continue
        names = [name for name in one.packages if is_tool(name) and not is_none(name)]
        if names and not removed.intersection(names) and "*" not in removed:
            return one.command, names
    return None


def _removed(step: Step) -> set[str]:
    """The packages that a RUN removes; `*` where it removes what no longer is needed, or what a variable names."""
    found: set[str] = set()
    for command in step.commands:
        words = command.argv
        verbs = {"apt-get": ("purge", "remove", "autoremove", "autopurge"), "apk": ("del",)}
        verbs |= {"apt": verbs["apt-get"], "dnf": ("remove", "autoremove", "erase"), "yum": ("remove", "erase")}
        plain = [word for word in words[1:] if not word.startswith("-")]
        if plain and plain[0] in verbs.get(command.program, ()):
            found.update(plain[1:])
            if any(word.startswith(("$", ".")) for word in plain[1:]) or "auto" in "".join(words):
                found.add("*")
    return found


def _installers(subject: Subject) -> Iterator[Finding]:
    is_tool = matcher(known("build_tools", "distributions"))
    programs = known("build_tools", "programs")
    for step in subject.steps:
        charges = subject.cost(step, _tools)
        if charges == ():
            continue
        left = _installer(step, is_tool, programs)
        if left is None and (charges is None or sum(charge.bytes for charge in charges) < SMALL):
            continue
        command, name = left or (None, "what installs or builds software")
        what = f"{name} stays in the image{subject.inherited(step)}"
        yield subject.finding(step, what, command=command, charges=charges)


def _installer(
    step: Step, is_tool: Callable[[str], bool], programs: Sequence[str]
) -> tuple[Command | None, str] | None:
    if step.from_stage:
        names = [source.rstrip("/").rpartition("/")[2] for source in step.copied]
        found = next((name for name in names if name in programs), None)
        return (None, found) if found else None
    for one in step.installs:
        found = next((name for name in one.packages if is_tool(name)), None) if one.tool in PYTHON else None
        if found and not _uninstalled(step, found) and not one.target:
            return one.command, found
    for command in step.commands:
        words = " ".join(command.words) if command.program in ("curl", "wget") else ""
        found = next((name for place, name in _SCRIPTS.items() if place in words), None)
        if found:
            return command, found
    return None


def _uninstalled(step: Step, name: str) -> bool:
    return any("uninstall" in command.words and name in command.words for command in step.commands)


def _listing(names: Sequence[str]) -> str:
    shown_names = [shown(name, 40)[1:-1] for name in dict.fromkeys(names)]
    if len(shown_names) > 4:
        return f"{', '.join(shown_names[:3])} and {len(shown_names) - 3} more"
    return shown_names[0] if len(shown_names) == 1 else f"{', '.join(shown_names[:-1])} and {shown_names[-1]}"


def installed_by(install: Install) -> str:
    """What installs, in a word or two."""
    return {"uv-pip": "uv pip install", "uv-sync": "uv sync", "pip": "pip install"}.get(install.tool, install.tool)


RULES = (
    Rule(
        "compilers-in-runtime",
        "error",
        "compilers, headers and what only they need stay in the image that runs",
        "gcc, g++ and their packages take hundreds of megabytes that the running service never reads, in every pull, "
        "and a later layer cannot take them out again",
        "install them in a build stage, and copy the virtual environment from there into a slim base; or install, "
        "build and purge in one RUN",
        _compilers,
    ),
    Rule(
        "installer-in-runtime",
        "warning",
        "uv, poetry or another installer stays in the image that runs",
        "what installs software is not needed to run it: uv alone is 40 to 60 MB",
        "use it in the build stage only, or mount it: RUN --mount=from=ghcr.io/astral-sh/uv,source=/uv,target=/bin/uv",
        _installers,
    ),
)
