"""Rules about the order of instructions: lock files that nothing reads, layers that are made anew each time."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

from deadweight.build.lint.model import Finding, Rule
from deadweight.build.lint.steps import PYTHON, Install, Tool
from deadweight.build.lint.subject import Step, Subject

_LOCKS: dict[str, tuple[str, ...]] = {
    "uv.lock": ("uv sync", "uv export", "uv run", "uv lock", "uv tree"),
    "poetry.lock": ("poetry install", "poetry export", "poetry sync", "poetry run"),
    "Pipfile.lock": ("pipenv install", "pipenv sync", "pipenv requirements", "pipenv run"),
    "pdm.lock": ("pdm install", "pdm sync", "pdm export", "pdm run"),
}


def _locks(subject: Subject) -> Iterator[Finding]:
    ran = [" ".join((command.program, *command.argv[1:3])) for step in subject.used for command in step.commands]
    texts = " ".join(step.instruction.text for step in subject.used if step.name in ("RUN", "CMD", "ENTRYPOINT"))
    for name, readers in _LOCKS.items():
        step = next((one for one in subject.used if _brings(one, name)), None)
        if step is None or name in texts or any(line.startswith(readers) for line in ran):
            continue
        install = _installs(subject, frozenset({"pip", "uv-pip"}))
        if install is not None:
            by = "uv pip install" if install.tool == "uv-pip" else "pip install"
            what = f"{name} is copied, and {by} does not read it: versions are whatever is newest that day"
            yield subject.finding(step, what, weighs=False)


def _brings(step: Step, name: str) -> bool:
    return step.from_stage is None and any(
        posixpath.basename(source).rstrip("*") in (name, name + "?") for source in step.copied
    )


def _installs(subject: Subject, tools: frozenset[Tool]) -> Install | None:
    """A command that installs the project, or what its pyproject.toml says, with one of these tools."""
    for step in subject.used:
        for one in step.installs:
            reads = one.project or any(name.endswith("pyproject.toml") for name in one.files)
            # Requirements that were written from the lock are pinned: those are files of other names.
            if one.tool in tools and reads and not {"-c", "--no-deps", "--constraint"} & one.options:
                return one
    return None


def _updates(subject: Subject) -> Iterator[Finding]:
    for step in subject.runs():
        update = next((c for c in step.commands if c.program in ("apt-get", "apt") and "update" in c.words), None)
        if update is None or any(one.tool == "apt" for one in step.installs):
            continue
        if any(
            c.program in ("apt-get", "apt") and {"upgrade", "dist-upgrade", "download"} & set(c.words)
            for c in step.commands
        ):
            continue
        if any(not command.words or "/" in command.words[0] for command in step.commands):
            continue  # a script that may well install
        later = [one for other in subject.runs() if other.place.line > step.place.line for one in other.installs]
        if any(one.tool == "apt" for one in later):
            what = "apt-get update is a layer of its own: the lists in it are older than what is installed from them"
            yield subject.finding(step, what, command=update, charges=subject.cuts("caches", step))


def _copies(subject: Subject) -> Iterator[Finding]:
    stages: dict[int, list[Step]] = {}
    for step in subject.used:
        stages.setdefault(step.stage, []).append(step)
    for steps in stages.values():
        yield from _copied_first(subject, steps)


def _copied_first(subject: Subject, steps: Sequence[Step]) -> Iterator[Finding]:
    """`COPY . .` before the first RUN that installs what the project requires."""
    copy: Step | None = None
    for step in steps:
        if step.name in ("COPY", "ADD") and step.from_stage is None:
            whole = any(posixpath.normpath(source.strip("/") or ".") == "." for source in step.copied)
            copy = step if whole and copy is None else copy
        for one in step.installs:
            if one.tool not in PYTHON or not (one.project or one.files):
                continue
            if copy is not None and "--no-deps" not in one.options:
                what = f"everything is copied before dependencies are installed in line {one.command.line}"
                if step.stage >= 0:
                    yield subject.finding(copy, what, weighs=False)
            return


RULES = (
    Rule(
        "lock-ignored",
        "warning",
        "a lock file is copied, and nothing reads it",
        "two builds of the same commit can install different versions, and neither is the one that was tested",
        "uv sync --locked, or uv export --frozen -o requirements.txt and install that with --require-hashes",
        _locks,
    ),
    Rule(
        "apt-update-alone",
        "warning",
        "apt-get update is in a layer of its own",
        "the lists stay in the image, and a cached layer makes apt install what no mirror has any more",
        "update, install and clean in one RUN",
        _updates,
    ),
    Rule(
        "copy-before-install",
        "warning",
        "the whole project is copied before its dependencies are installed",
        "any change to any file installs everything again, into a new layer of gigabytes that every machine pulls "
        "again",
        "copy pyproject.toml and the lock first, install, and copy the code last",
        _copies,
    ),
)
