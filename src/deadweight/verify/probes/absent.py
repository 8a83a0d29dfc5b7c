"""Commands that are not in PATH, modules that do not import."""

from __future__ import annotations

import posixpath
from typing import Any, Literal

import msgspec

from deadweight.decoding import from_values
from deadweight.errors import shown
from deadweight.image.filesystem import Filesystem
from deadweight.passes.commands import follow, path_directories
from deadweight.verify.model import Observation
from deadweight.verify.probes import Kind, nothing_differs
from deadweight.verify.side import NoAnswer, Side
from deadweight.verify.spec import AbsentProbe


class Found(msgspec.Struct, frozen=True):
    """What the agent says of a module.

    A module is there when it imports. A directory that is left over, without anything in it that could be imported,
    imports as an empty namespace: that is not the module. One that is there and does not import meets the probe, and
    is noted.
    """

    state: Literal["absent", "leftover", "imports", "fails"]
    detail: str


def observe(probe: AbsentProbe, side: Side) -> Observation:
    """Looks for commands in the merged view, and imports modules in the sandbox."""
    there: dict[str, str] = {}
    notes = []
    for command in probe.commands:
        path = find_command(side.fs, command)
        if path is not None:
            there[command] = f"is there: {shown('/' + path)}"
    for name, found in _modules(probe, side).items():
        if found.state == "imports":
            there[name] = f"imports, from {shown(found.detail)}" if found.detail else "imports"
        elif found.state == "leftover":
            notes.append(f"{name}: a directory without code is left of it, {shown(found.detail)}")
        elif found.state == "fails":
            notes.append(f"{name}: is there, and does not import: {shown(found.detail)}")
    every = [*probe.commands, *probe.modules]
    facts = {name: there.get(name, "absent") for name in every}
    summary = f"{', '.join(list(there)[:5])} there" if there else "absent"
    return Observation(summary, facts, notes=tuple(notes), data=there)


def unmet(probe: AbsentProbe, seen: Observation) -> list[str]:
    """What is there after all."""
    return [f"{name}: {how}" for name, how in seen.data.items()]


def find_command(fs: Filesystem, word: str) -> str | None:
    """The path of the executable file that a word names: as a path, or in the image's PATH."""
    workdir = str(fs.image.run_config.get("WorkingDir") or "/")
    directories = [""] if "/" in word else path_directories(fs.image)
    for directory in directories:
        chain = list(follow(fs, posixpath.join(workdir, directory, word)))
        last = chain[-1].source if chain else None
        if last is not None and last.kind == "file" and last.mode & 0o111:
            return chain[0].path
    return None


def _modules(probe: AbsentProbe, side: Side) -> dict[str, Found]:
    if not probe.modules:
        return {}
    arguments = {"modules": probe.modules, "paths": [side.directory]}
    answer: Any = side.ask("absent", arguments, probe.timeout, env=side.app.env)
    try:
        found = from_values(answer, dict[str, Found])
    except msgspec.ValidationError as error:
        raise NoAnswer(f"the image's Python answers nonsense: {error}") from None
    missing = [name for name in probe.modules if name not in found]
    if missing:
        raise NoAnswer(f"the image's Python says nothing of {', '.join(missing)}")
    return found


KIND = Kind(observe, nothing_differs, unmet, must=lambda _: True)
