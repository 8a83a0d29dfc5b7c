"""Rules about how the image runs: reloaders and debuggers in production, and root."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from deadweight.build.lint.model import Finding, Place, Rule
from deadweight.build.lint.shell import Command, commands
from deadweight.build.lint.subject import Step, Subject, is_base
from deadweight.errors import shown

_TRUE = frozenset({"1", "true", "yes", "on"})
_ROOT = re.compile(r"(?:root|0)(?::.*)?\Z")
_SWITCHES = frozenset({"gosu", "su-exec", "setpriv", "runuser", "su", "chroot", "s6-setuidgid"})


def _reload(subject: Subject) -> Iterator[Finding]:
    for step in subject.started:
        for command in _started(step):
            why = _reloads(command.argv)
            if why:
                yield subject.finding(step, f"{step.name} says {why}", command=command, weighs=False)
                continue
            yield from _scripts(subject, step, command)
    last: dict[str, tuple[Step, str]] = {}
    for step in subject.steps:
        if step.name == "ENV":
            for name in ("UVICORN_RELOAD", "FLASK_DEBUG", "FLASK_ENV", "GRANIAN_RELOAD", "DJANGO_DEBUG"):
                match = re.search(rf"(?:^|\s){name}[=\s]\s*[\"']?([^\s\"']+)", step.instruction.text)
                if match:
                    last[name] = step, match[1]
    for name, (step, value) in last.items():
        if value.lower() in _TRUE or value == "development":
            yield subject.finding(step, f"ENV says {name}={shown(value, 40)[1:-1]}", weighs=False)


def _started(step: Step) -> tuple[Command, ...]:
    """The commands of a CMD or ENTRYPOINT."""
    one = step.instruction
    if one.words is None:
        return commands(one.text, one.line_at)
    if len(one.words) > 2 and posixpath.basename(one.words[0]) in ("sh", "bash") and one.words[1].endswith("c"):
        return commands(one.words[2], lambda _: one.line)
    line = one.line
    for word in ("--reload", "dev", "--debug"):
        if word in one.words and f'"{word}"' in one.text:
            line = one.line_at(one.text.index(f'"{word}"'))
    return (Command(one.words, line),) if one.words else ()


def _reloads(words: Sequence[str]) -> str:
    names = [posixpath.basename(word) for word in words]
    if "--reload" in words:
        return "--reload"
    if "fastapi" in names and "dev" in names[names.index("fastapi") :]:
        return "fastapi dev, which reloads"
    if "flask" in names and "--debug" in words:
        return "flask --debug, which reloads and lets anybody run code"
    if any(name in ("watchmedo", "watchfiles", "nodemon", "jurigged") for name in names[:4]):
        return f"{next(n for n in names if n in ('watchmedo', 'watchfiles', 'nodemon', 'jurigged'))}, which reloads"
    return ""


def _scripts(subject: Subject, step: Step, command: Command) -> Iterator[Finding]:
    """The same in a shell script of the context that is run."""
    if subject.context is None:
        return
    for word in command.words[:4]:
        name = posixpath.basename(word)
        if not (name.endswith(".sh") or "entrypoint" in name or name in ("start", "run", "serve")):
            continue
        for path in (word.lstrip("/"), name, f"scripts/{name}", f"docker/{name}"):
            text = subject.context.read(posixpath.normpath(path))
            if text is None:
                continue
            for each in commands(text, lambda at, text=text: text.count("\n", 0, at) + 1):  # type: ignore[misc]
                why = "" if each.condition else _reloads(each.argv)
                if why:
                    place = Place(str(subject.context.folder / path), each.line)
                    yield subject.finding(step, f"{shown(path, 60)} says {why}", more=(place,), weighs=False)
            break


def _root(subject: Subject) -> Iterator[Finding]:
    user, said = subject.user
    if said is None and subject.measure is not None:  # then what the base says is known, too
        user = str(subject.measure.ledger.image.run_config.get("User") or "")
    if user and not _ROOT.match(user):
        return
    if said is None and is_base(subject.base, "bases_with_user"):
        return
    if any(command.program in _SWITCHES for step in subject.started for command in _started(step)):
        return
    if subject.context is not None and any(_switches(subject, step) for step in subject.started):
        return
    made = next(((step, command, name) for step in subject.runs() for command, name in _users(step)), None)
    if made is not None and said is None:
        step, command, name = made
        what = f"the user {shown(name, 40)} is made and never used: the image runs as root"
        yield subject.finding(step, what, command=command, weighs=False)
    elif said is not None:
        yield subject.finding(said, "the last USER is root", weighs=False)
    else:
        what = "no USER is set: the image runs as root"
        last = next(iter((*reversed(subject.started), *reversed(subject.steps))), None)
        place = subject.base_place if last is None else last.place
        comments = subject.base_comments if last is None else last.instruction.comments
        yield Finding(what, (place,), weighs=False, comments=comments)


def _users(step: Step) -> Iterator[tuple[Command, str]]:
    for command in step.commands:
        if command.program in ("useradd", "adduser") and len(command.words) > 1:
            plain = [word for word in command.argv[1:] if not word.startswith("-")]
            # `useradd -r app`, `useradd app -u 1000`, `adduser --disabled-password app`
            names = [word for word in plain if re.fullmatch(r"[a-z_][\w.-]*", word)]
            if names:
                yield command, names[-1]


def _switches(subject: Subject, step: Step) -> bool:
    """Whether an entrypoint's script goes on as another user."""
    assert subject.context is not None
    for command in _started(step):
        for word in command.words[:2]:
            name = posixpath.basename(word)
            for path in (word.lstrip("/"), name, f"docker/{name}", f"scripts/{name}"):
                text = subject.context.read(posixpath.normpath(path)) if "/" in word or "." in word else None
                if text and any(re.search(rf"\b{one}\b", text) for one in _SWITCHES - {"su", "chroot"}):
                    return True
    return False


RULES = (
    Rule(
        "reload-in-production",
        "error",
        "the server watches its files and reloads, as in development",
        "a reloader runs a second process, keeps every file in memory or polls them, allows one worker only, and a "
        "debugger runs whatever it is sent",
        "leave --reload to docker compose or the developer's own command line; in the image say --workers",
        _reload,
    ),
    Rule(
        "runs-as-root",
        "warning",
        "the image runs as root",
        "whoever gets into the service owns the container and every file in it",
        "make a user in the build, COPY --chown what it must write, and end with USER",
        _root,
    ),
)
