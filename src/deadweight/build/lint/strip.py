"""Rules about stripping symbols: after the copy it adds a second copy, and without binutils it does nothing."""

from __future__ import annotations

from collections.abc import Iterator

from deadweight.build.lint.measure import Measure
from deadweight.build.lint.model import Finding, Rule
from deadweight.build.lint.shell import Command
from deadweight.build.lint.steps import SYSTEM
from deadweight.build.lint.subject import Step, Subject, is_base
from deadweight.errors import shown

_STRIPS = frozenset({"strip", "eu-strip", "llvm-strip"})
_BRING = ("binutils", "gcc", "g++", "build-essential", "build-base", "clang", "llvm", "elfutils", "alpine-sdk", "rust")


def strips(command: Command) -> bool:
    """Whether a command strips symbols: itself, by find -exec, or by xargs."""
    words = [word.rpartition("/")[2] for word in command.argv]
    if command.program in _STRIPS:
        return True
    if command.program in ("find", "sh", "bash", "parallel"):
        inside = " ".join(words)
        return any(word in _STRIPS for word in inside.replace(";", " ").replace('"', " ").replace("'", " ").split())
    return False


def _after_copy(subject: Subject) -> Iterator[Finding]:
    brought = False
    for step in subject.steps:
        if step.name in ("COPY", "ADD"):
            brought = True
        if step.name != "RUN":
            continue
        own = any(one.tool not in SYSTEM for one in step.installs)  # then it strips what this layer brings
        command = next((one for one in step.commands if strips(one)), None)
        if command is not None and not own and (brought or _replaces(subject, step)):
            yield _copied_again(subject, step, command)
        brought = brought or bool(step.installs)


def _replaces(subject: Subject, step: Step) -> bool:
    return bool(subject.cost(step, Measure.replaced_by))


def _copied_again(subject: Subject, step: Step, command: Command) -> Finding:
    charges = subject.cost(step, Measure.replaced_by)
    more = ": here it stripped nothing, or its layer would have a second copy" if charges == () else ""
    what = f"strip runs on files of an earlier layer, which stay there as they were{more}{subject.inherited(step)}"
    return subject.finding(step, what, command=command, charges=charges)


def _without(subject: Subject) -> Iterator[Finding]:
    steps = {id(step): step for step in (*subject.used, *subject.steps)}
    done = set()
    for step in steps.values():
        command = next((one for one in step.commands if strips(one)), None)
        if command is None or step.place in done or not _lacks(subject, step):
            continue
        done.add(step.place)
        own = next((one for one in subject.steps if one.place == step.place), step)
        charges = None if subject.measure is None else subject.measure.cuts("symbols")
        base = _base(subject, own)
        what = f"nothing in {shown(base, 80)} or after it brings strip" if base else "the image has no strip"
        yield subject.finding(own, f"{what}, so nothing is stripped", command=command, charges=charges, layer=None)


def _lacks(subject: Subject, step: Step) -> bool:
    """Whether the stage surely has no `strip` where a step wants it."""
    if step.stage < 0 or subject.dockerfile is None:
        return False
    stage = subject.dockerfile.stages[step.stage]
    if not is_base(subject.dockerfile.chain(stage)[0].base, "bases_without_binutils"):
        return False
    chain = {one.index for one in subject.dockerfile.chain(stage)}
    for other in {id(one): one for one in (*subject.used, *subject.steps)}.values():
        if other.stage in chain and other.place.line <= step.place.line:
            for one in other.installs:
                if any(name.startswith(_BRING) for name in one.packages):
                    return False
            if other.from_stage and any(word.endswith("strip") or "/usr/bin" in word for word in other.copied):
                return False
    return True


def _base(subject: Subject, step: Step) -> str:
    if subject.dockerfile is None or step.stage < 0:
        return ""
    return subject.dockerfile.chain(subject.dockerfile.stages[step.stage])[0].base


RULES = (
    Rule(
        "strip-after-copy",
        "error",
        "symbols are stripped in another layer than the one that brought the files",
        "each stripped file is in the image twice, as it was and as it is: what should have shrunk the image makes it "
        "grow",
        "strip in the build stage, before the COPY --from that takes the files",
        _after_copy,
    ),
    Rule(
        "strip-without-binutils",
        "error",
        "strip is called in a stage that does not have it",
        "slim bases have no binutils: the step fails, and where that is hidden every symbol stays",
        "strip in a build stage that installs binutils, and let a failure fail the build",
        _without,
    ),
)
