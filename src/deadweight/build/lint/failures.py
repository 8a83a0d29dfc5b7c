"""The rule about failures that a RUN hides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from deadweight.build.lint.model import Charge, Finding, Rule
from deadweight.build.lint.shell import Command
from deadweight.build.lint.strip import strips
from deadweight.build.lint.subject import Step, Subject
from deadweight.errors import shown
from deadweight.ledger.known import known

_TESTS = frozenset({"test", "[", "[[", "command", "which", "type", "hash"})
_CONTROL = re.compile(r"(?:^|[\s;&|(])(?:if|for|while|until|case|then|do|function)\s|\(\)\s*\{")
_NULL = re.compile(r"(?:2|&)>>?\s*/dev/null\Z")


def _hidden(subject: Subject) -> Iterator[Finding]:
    final = {step.place: step for step in subject.steps}
    careful = any(step.name == "SHELL" and _sets_e(step.instruction.words or ()) for step in subject.used)
    for step in subject.used:
        own = final.get(step.place, step)
        for one in _found(step, careful):
            stripping = strips(one.command)
            name = "strip" if stripping else one.command.program
            hidden = " and ".join(one.how)
            tells = "whether it worked" if one.swallowed else "why it failed"
            sure = stripping or name in known("lint", "important")
            yield subject.finding(
                own,
                f"{hidden} {'hides' if len(one.how) == 1 else 'hide'} {tells}: {shown(name, 40)[1:-1]}",
                command=one.command,
                charges=_left(subject) if stripping else None,
                severity="error" if sure and one.swallowed and not one.tested else "warning",
                weighs=stripping,
            )


def _left(subject: Subject) -> tuple[Charge, ...] | None:
    """What a strip that was hidden left: every symbol that the image still has."""
    return None if subject.measure is None else subject.measure.cuts("symbols")


class _Hidden(NamedTuple):
    """A command whose failure is hidden."""

    command: Command
    how: list[str]
    swallowed: bool
    """Whether the build goes on; otherwise only the message is lost."""
    tested: bool
    """Whether something before it may fail as well, and may be what is meant."""


def _found(step: Step, careful: bool) -> Iterator[_Hidden]:
    commands = step.commands
    loose = False
    plain = not _CONTROL.search(" ".join((step.instruction.text, *(doc.content for doc in step.instruction.heredocs))))
    done = -1  # the end of the last chain that something was said of
    for at, command in enumerate(commands):
        if command.program == "set":
            loose = "+e" in command.words or (loose and not _sets_e(command.words))
            careful = (careful or _sets_e(command.words)) and "+e" not in command.words
            continue
        if not command.words or command.condition or not _matters(command):
            continue
        how = []
        if any(_NULL.match(redirect) for redirect in command.redirects):
            how.append(next(one for one in command.redirects if _NULL.match(one)))
        elif _both(command):
            how.append(">/dev/null 2>&1")
        end = at
        while commands[end].after in ("&&", "|", "|&") and end + 1 < len(commands):
            end += 1
        swallowed = _swallowed(commands, end) or ("set +e" if loose else "")
        if not swallowed and plain and not careful and _goes_on(commands, at):
            swallowed = "; without set -e" if command.after == ";" else "a script without set -e"
        if swallowed and end > done:
            how.append(swallowed)
            done = end
        if how:
            start = at
            while start and commands[start - 1].after in ("&&", "|"):
                start -= 1
            tested = commands[start].program in _TESTS or swallowed.endswith("set -e")
            yield _Hidden(command, how, bool(swallowed), tested)


def _sets_e(words: Sequence[str]) -> bool:
    return any(re.match(r"-[a-z]*e", word) for word in words) or "errexit" in words


def _goes_on(commands: Sequence[Command], at: int) -> bool:
    """Whether the shell goes on to another command that matters whatever this one gave."""
    name = commands[at].program
    return commands[at].after in (";", "\n") and name in known("lint", "important") and at + 1 < len(commands)


def _swallowed(commands: Sequence[Command], end: int) -> str:
    """What takes the failure of a chain of commands: `|| true`, or `; true` as the last thing."""
    if end + 1 >= len(commands):
        return ""
    following = commands[end + 1]
    fine = following.program in ("true", ":") or (following.program == "exit" and following.words[1:] == ("0",))
    says = following.program in ("echo", "printf") and commands[end].program in known("lint", "important")
    if commands[end].after == "||" and (fine or says):
        return f"|| {shown(' '.join(following.words[:2]) if fine else following.program, 40)[1:-1]}"
    last = end + 2 == len(commands)
    return f"; {' '.join(following.words)}" if commands[end].after == ";" and last and fine else ""


def _both(command: Command) -> bool:
    """`>/dev/null 2>&1`."""
    redirects = command.redirects
    return "2>&1" in redirects and any(re.match(r"1?>>?/dev/null\Z", one) for one in redirects)


def _matters(command: Command) -> bool:
    name = command.program
    words = command.words
    if "--version" in words or "-V" in words or "-version" in words or "--help" in words:
        return False
    if strips(command):
        return True
    if name in known("lint", "harmless") or name.startswith("$"):
        return False
    if name in ("pip", "pip3", "uv") and {"uninstall", "cache", "check", "list", "freeze"} & set(words):
        return False
    if name in ("apt-get", "apt", "apk", "dnf", "yum", "conda") and {
        "clean",
        "autoremove",
        "purge",
        "remove",
        "erase",
        "del",
    } & set(words):
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
