"""Rules about bytes that a later layer has again, or deletes: they are in the image twice, or for nothing."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from deadweight.build.lint.measure import SMALL, Measure
from deadweight.build.lint.model import Finding, Rule
from deadweight.build.lint.shell import Command
from deadweight.build.lint.steps import Tool
from deadweight.build.lint.strip import strips
from deadweight.build.lint.subject import Step, Subject
from deadweight.errors import shown

_ARCHIVES = (".whl", ".tar", ".tgz", ".gz", ".xz", ".bz2", ".zst", ".zip", ".deb", ".rpm", ".run", ".apk")
_CHANGES = frozenset({"chown", "chmod", "chgrp"})


def _changed(subject: Subject) -> Iterator[Finding]:
    for number, step in enumerate(subject.steps):
        if step.name != "RUN":
            continue
        found = _recursive(step, subject.steps[:number])
        charges = subject.cost(step, Measure.replaced_by)
        if charges is not None:
            if not charges:
                continue
            if not found and (
                any(strips(command) for command in step.commands) or sum(c.bytes for c in charges) < SMALL * 10
            ):
                continue
        if found:
            command, path = found
            what = f"{command.program} of {shown(path, 80)} copies what earlier layers have there"
            yield subject.finding(step, what + subject.inherited(step), command=command, charges=charges)
        elif charges and not step.installs:
            yield subject.finding(
                step, f"it has files of earlier layers again{subject.inherited(step)}", charges=charges
            )


def _recursive(step: Step, before: tuple[Step, ...]) -> tuple[Command, str] | None:
    """A recursive chown of what earlier instructions brought."""
    brought = [one.destination for one in before if one.name in ("COPY", "ADD")]
    for command in step.commands:
        words = command.argv
        flags = "".join(word for word in words[1:] if word.startswith("-"))
        if command.program not in _CHANGES or ("R" not in flags and "recursive" not in flags):
            continue
        plain = [word for word in words[1:] if not word.startswith("-")]
        for word in plain[1:]:
            path = posixpath.normpath(posixpath.join(step.workdir, word.removesuffix("*")))
            if any(
                place == path or place.startswith(path.rstrip("/") + "/") or path.startswith(place.rstrip("/") + "/")
                for place in brought
            ):
                return command, path
    return None


def _late(subject: Subject) -> Iterator[Finding]:
    for number, step in enumerate(subject.steps):
        if step.name != "RUN":
            continue
        found = _removes(step, subject.steps[:number])
        charges = subject.cost(step, Measure.deleted_by)
        if charges is not None and sum(charge.bytes for charge in charges) < SMALL:
            continue
        if found:
            command, what = found
            yield subject.finding(step, f"{what}{subject.inherited(step)}", command=command, charges=charges)
        elif charges:
            what = f"it deletes files of earlier layers, which keep them{subject.inherited(step)}"
            yield subject.finding(step, what, charges=charges)


def _updates(step: Step) -> set[Tool]:
    """The tools that a RUN uses to fetch lists or newer packages, which it then cleans after itself."""
    names: dict[str, Tool] = {"apt-get": "apt", "apt": "apt", "apk": "apk", "dnf": "dnf", "yum": "dnf"}
    verbs = {"update", "upgrade", "dist-upgrade", "full-upgrade"}
    return {names[one.program] for one in step.commands if one.program in names and verbs & set(one.words)}


def _brought(step: Step, path: str) -> bool:
    """Whether a COPY surely brought what is at a path."""
    if step.name not in ("COPY", "ADD") or set(path) & set("*?[$"):
        return False
    large = bool(step.from_stage) or path.endswith(_ARCHIVES)  # a script of some kilobytes is no matter
    return (path in step.placed and large) or (
        # A whole directory, as COPY --from=build /opt/venv /opt/venv
        bool(step.from_stage) and step.placed == (step.destination,) and path.startswith(f"{step.destination}/")
    )


def _removes(step: Step, before: tuple[Step, ...]) -> tuple[Command, str] | None:
    """A removal of what surely was made by an earlier instruction, and not by this one."""
    tools = {one.tool for other in before for one in other.installs}
    own = {one.tool for one in step.installs} | _updates(step)
    for command in step.commands:
        words = command.argv
        name = command.program
        plain = [word for word in words[1:] if not word.startswith("-")]
        if name in ("apt-get", "apt") and plain[:1] and plain[0] in ("purge", "remove", "autoremove", "clean"):
            gone = {package for other in before for one in other.installs for package in one.packages}
            if "apt" in tools and "apt" not in own and (plain[0] in ("autoremove", "clean") or gone & set(plain[1:])):
                return command, f"apt-get {plain[0]} takes nothing out of the layer that has it"
        if name == "apk" and plain[:1] == ["del"] and "apk" in tools and "apk" not in own:
            return command, "apk del takes nothing out of the layer that has it"
        if name in ("pip", "pip3", "uv") and "uninstall" in plain and tools and not own:
            return command, f"{name} uninstall takes nothing out of the layer that has it"
        if name == "rm" and not own:
            for word in plain:
                path = posixpath.normpath(posixpath.join(step.workdir, word.rstrip("/").removesuffix("/*")))
                lists = "apt" in tools and path.startswith(("/var/lib/apt", "/var/cache/apt"))
                cache = tools & {"pip", "uv-pip", "uv-sync", "poetry"} and path.startswith("/root/.cache")
                if lists or cache or any(_brought(one, path) for one in before):
                    return command, f"removing {shown(path, 80)} takes nothing out of the layer that has it"
    return None


RULES = (
    Rule(
        "chown-after-copy",
        "warning",
        "owner or mode of files is changed in another layer than theirs",
        "a layer holds whole files: each one that only changes hands is in the image twice",
        "COPY --chown=USER --chmod=MODE, and only for what the service must write",
        _changed,
    ),
    Rule(
        "removed-too-late",
        "warning",
        "files are deleted in another layer than the one that has them",
        "the layer below keeps every byte: a deletion only hides it",
        "delete in the RUN that makes the files, or leave them in a build stage",
        _late,
    ),
)
