"""The variant `cpu`: CPU builds of torch in the place of the locked ones for GPUs, and nothing that only those need.

Versions and everything else stay as locked. What a GPU build of torch alone needs (nvidia-*, cuda-*, triton) is told
by its name first; whoever installs then sees by metadata whether something that stays needs it after all.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from deadweight.application.files import read_inside, read_toml
from deadweight.build.base import Python
from deadweight.build.locked import applies, pylock_packages
from deadweight.errors import BadInputError, UsageError, shown
from deadweight.files.cpu_wheel import GPU_BUILT, ONLY_FOR_GPUS, CpuWheel, Runs, Sources, find_cpu_wheel

_INCLUDE: Final = re.compile(r"(?:-r\s*|--requirement(?:\s+|\s*=\s*))(\S+)\Z")
_DEPTH: Final = 10


@dataclass(frozen=True)
class Entry:
    """One requirement of a flat requirements file, or another line of it."""

    name: str
    """Canonical; empty for options, and for what cannot be read."""
    text: str
    """Its lines, with hashes and comments."""
    requirement: Requirement | None = None

    @property
    def hashed(self) -> bool:
        """Whether the lock says its hash."""
        return "--hash=" in self.text

    @property
    def via(self) -> frozenset[str]:
        """Who brought it in, as uv and pip-tools note it below the line."""
        found = re.findall(r"^\s+#(?: via)?[ ]+([A-Za-z0-9][A-Za-z0-9._-]*)", self.text, re.MULTILINE)
        return frozenset(str(canonicalize_name(name)) for name in found if name != "via")


@dataclass(frozen=True)
class CpuRequirements:
    """What is to be installed for the variant."""

    text: str
    """A requirements file."""
    inputs: bytes
    """What it stands for, the same on every machine: wheels by their hash."""
    spare: Mapping[str, str]
    """What was left out, by canonical name: a requirements file each, with the options of the lock."""
    wheels: tuple[CpuWheel, ...]
    hashed: bool
    """Whether every line has a hash."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done, for the report."""
        return tuple(f"{one.name} is its CPU build {one.version}: {_place(one)}" for one in self.wheels)


def cpu_requirements(
    entries: Collection[Entry], python: Python, sources: Sources, required: Collection[str], into: Path
) -> CpuRequirements:
    """A lock's entries with CPU builds; `required` are names that the project itself asks for, which all stay.

    Wheels that have to be downloaded are put in the folder `into`. Raises UsageError where the lock has nothing that is
    built for GPUs, and what `find_cpu_wheel` raises.
    """
    runs = Runs(python.version, python.machine, python.glibc)
    lines: list[str] = []
    inputs: list[str] = []
    spare: dict[str, str] = {}
    wheels: dict[str, CpuWheel] = {}
    hashed = True
    for entry in entries:
        if entry.requirement is not None and not _applies(entry.requirement, python):
            continue
        if entry.name in GPU_BUILT:
            wheel = find_cpu_wheel(entry.name, locked_version(entry), runs, sources, into)
            wheels[entry.name] = wheel
            inputs.append(f"{entry.name} {wheel.version} {wheel.sha256}")
            lines.append(f"{entry.name} @ {wheel.path.absolute().as_uri()} --hash=sha256:{wheel.sha256}")
        elif ONLY_FOR_GPUS.match(entry.name) and entry.name not in required:
            spare[entry.name] = spare.get(entry.name, "") + entry.text + "\n"
        else:
            hashed = hashed and (entry.hashed or not entry.name)
            lines.append(entry.text)
            inputs.append(entry.text)
    if not wheels:
        raise UsageError(
            f"--variant cpu has nothing to do: the lock has none of {', '.join(GPU_BUILT)} for Python {python.version}"
        )
    options = "".join(f"{entry.text}\n" for entry in entries if not entry.name)
    inputs += [f"spare {name} {sha256(text.encode()).hexdigest()}" for name, text in sorted(spare.items())]
    text = "\n".join(lines) + "\n"
    spare = {name: options + text for name, text in spare.items()}
    return CpuRequirements(text, "\n".join(inputs).encode(), spare, tuple(wheels.values()), hashed)


def _place(wheel: CpuWheel) -> str:
    return shown(wheel.source.partition("#")[0])[1:-1]


def _applies(requirement: Requirement, python: Python) -> bool:
    if requirement.marker is None:
        return True
    marker = str(requirement.marker)
    if python.machine != "x86_64":  # what locks say of machines is otherwise asked for the usual one
        marker = re.sub(r"(platform_machine [!=]= )(['\"])" + python.machine + r"\2", r"\1'x86_64'", marker)
    return applies(marker, int(python.version.partition(".")[2]))


def locked_version(entry: Entry) -> str:
    """The version of a requirement that is pinned, or of the wheel that it names."""
    assert entry.requirement is not None
    if entry.requirement.url is not None:
        name = entry.requirement.url.partition("#")[0].rpartition("/")[2].replace("%2B", "+").replace("%2b", "+")
        try:
            return str(parse_wheel_filename(name)[1])
        except InvalidWheelFilename:
            raise BadInputError(f"{entry.name} is locked to {shown(name)}, which is no wheel: lock a version") from None
    pins = [one.version for one in entry.requirement.specifier if one.operator in ("==", "===")]
    try:
        return str(Version(pins[0]))
    except (IndexError, InvalidVersion):
        raise BadInputError(f"--variant cpu needs a lock, and {entry.name} has no version in it: uv lock") from None


def entries_of(folder: Path, path: str, depth: int = 0) -> Iterator[Entry]:
    """A requirements file and those that it includes by -r, entry by entry. Raises BadInputError for one too deep."""
    data = read_inside(folder, path)
    if data is None or depth > _DEPTH:
        raise BadInputError(f"{shown(path)} cannot be read as a lock: it has to lie in the project")
    for entry in split_requirements(data.decode("utf-8-sig", "replace")):
        line = _line(entry.text)
        included = _INCLUDE.match(line)
        if included:
            yield from entries_of(
                folder, posixpath.normpath(posixpath.join(posixpath.dirname(path), included[1])), depth + 1
            )
        elif line.startswith(("-c", "--constraint")):
            continue  # versions are pinned
        else:
            yield entry


def split_requirements(text: str) -> Iterator[Entry]:
    """The entries of a requirements file as pip reads it: a line, what continues it, and comments indented below."""
    block: list[str] = []
    for line in text.splitlines():
        about = line[:1].isspace() and line.lstrip().startswith("#")
        if block and (about or block[-1].rstrip().endswith("\\")):
            block.append(line)
            continue
        if block:
            yield _entry("\n".join(block))
        block = [] if not line.strip() or line.lstrip().startswith("#") else [line]
    if block:
        yield _entry("\n".join(block))


def _line(text: str) -> str:
    """An entry as one line, without its comments."""
    parts = (part.strip().rstrip("\\") for part in text.splitlines() if not part.lstrip().startswith("#"))
    return re.sub(r"\s#.*", "", " ".join(parts)).strip()


def _entry(text: str) -> Entry:
    line = re.split(r"\s--", _line(text), maxsplit=1)[0].strip()
    try:
        requirement = Requirement(line)
    except (InvalidRequirement, RecursionError):
        return Entry("", text)
    return Entry(str(canonicalize_name(requirement.name)), text, requirement)


def pylock_entries(folder: Path, path: str, extras: Collection[str], minor: int) -> Iterator[Entry]:
    """The packages of a pylock.toml that apply, as entries with hashes.

    Raises BadInputError for one that comes from elsewhere than an index: that is not known to stay what it is.
    """
    for one in pylock_packages(read_toml(folder, path), extras, minor):
        name, version = str(canonicalize_name(str(one.get("name")))), one.get("version")
        files = [*_tables(one.get("wheels")), *_tables([one.get("sdist")])]
        if not isinstance(version, str) or not files:
            raise BadInputError(f"{shown(path)} takes {shown(name)} from elsewhere than an index: export requirements")
        hashes = [each for file in files for each in _tables([file.get("hashes")])]
        words = [f"--hash=sha256:{each['sha256']}" for each in hashes if "sha256" in each]
        text = " ".join([f"{name}=={version}", *words])
        yield Entry(name, text, Requirement(f"{name}=={version}"))


def _tables(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
