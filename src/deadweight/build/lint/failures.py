"""The rule about failures that a RUN hides."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deadweight.build.lint.model import Charge, Finding, Rule
from deadweight.build.lint.shell import Command
from deadweight.build.lint.strip import strips
from deadweight.build.lint.subject import Step, Subject
from deadweight.errors import shown
from deadweight.ledger.known import known

_SWALLOWS = frozenset({"true", ":", "echo", "printf"})
_NULL = re.compile(r"(?:2|&)>>?\s*/dev/null\Z")


def _hidden(subject: Subject) -> Iterator[Finding]:
    final = {step.place: step for step in subject.steps}
    for step in subject.used:
        own = final.get(step.place, step)
        for command, how in _found(step):
            stripping = strips(command)
            name = "strip" if stripping else command.program
            sure = stripping or name in known("lint", "important")
            hidden = " and ".join(how)
            ends = any("/dev/null" not in one for one in how)
            tells = "whether it worked" if ends else "why it failed"
            yield subject.finding(
                own,
                f"{hidden} {'hides' if len(how) == 1 else 'hide'} {tells}: {shown(name, 40)[1:-1]}",
                command=command,
                charges=_left(subject) if stripping else None,
                severity="error" if sure and ends else "warning",
                weighs=stripping,
            )


def _left(subject: Subject) -> tuple[Charge, ...] | None:
    """What a strip that was hidden left: every symbol that the image still has."""
    return None if subject.measure is None else subject.measure.cuts("symbols")


def _found(step: Step) -> Iterator[tuple[Command, list[str]]]:
    commands = step.commands
    loose = False
    for at, command in enumerate(commands):
        following = commands[at + 1] if at + 1 < len(commands) else None
        if command.program == "set":
            loose = "+e" in command.words or (loose and not any(re.match(r"-\w*e", word) for word in command.words))
            continue
        if not command.words or command.condition or not _matters(command):
            continue
        how = []
        if any(_NULL.match(redirect) for redirect in command.redirects) or _both(command):
            how.append(next((one for one in command.redirects if _NULL.match(one)), ">/dev/null 2>&1"))
        after = _swallowed(command, following, last=at + 2 == len(commands))
        if after:
            how.append(after)
        elif loose:
            how.append("set +e")
        if how:
            yield command, how


def _both(command: Command) -> bool:
    """`>/dev/null 2>&1`."""
    redirects = command.redirects
    return "2>&1" in redirects and any(re.match(r"1?>>?/dev/null\Z", one) for one in redirects)


def _swallowed(command: Command, following: Command | None, last: bool) -> str:
    """The end that takes a command's failure: `|| true`, or `; true` as the last thing."""
    if following is None:
        return ""
    fine = following.program in ("true", ":") or (following.program == "exit" and following.words[1:] == ("0",))
    if command.after == "||" and (fine or following.program in _SWALLOWS):
        return f"|| {shown(' '.join(following.words[:2]) if fine else following.program, 40)[1:-1]}"
    return f"; {' '.join(following.words)}" if command.after == ";" and last and fine else ""


def _matters(command: Command) -> bool:
    if strips(command):
        return True
    name = command.program
    words = command.words
    if name in known("lint", "harmless") or name.startswith("$"):
        return False
    if "--version" in words or "-V" in words or "-version" in words or "--help" in words:
        return False
    if name in ("pip", "pip3", "uv") and {"uninstall", "cache", "check", "list", "freeze"} & set(words):
        return False
    if name in ("apt-get", "apt", "apk", "dnf", "yum", "conda") and {"clean", "autoremove", "purge", "del"} & set(
        words
    ):
        return False
    if name == "git" and {"config", "rev-parse", "describe"} & set(words):
        return False
    return not (name.startswith("python") and ("compileall" in words or "-c" in words))


RULES = (
    Rule(
        "hidden-failure",
        "error",
        "|| true, 2>/dev/null or set +e hides that a step failed",
        "the build goes on without what the step was for, and nobody learns of it: that is how a strip that never ran "
        "came to be reported as done",
        "let it fail; where a failure is expected, ask for what is expected (if command -v strip; then ...)",
        _hidden,
    ),
)
