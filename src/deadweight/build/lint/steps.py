"""What a command of a RUN installs, and with what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from deadweight.build.lint.shell import Command

Tool = Literal["apt", "apk", "dnf", "pip", "uv-pip", "uv-sync", "poetry", "pdm", "pipenv", "conda", "npm"]
PYTHON: frozenset[Tool] = frozenset({"pip", "uv-pip", "uv-sync", "poetry", "pdm", "pipenv"})
SYSTEM: frozenset[Tool] = frozenset({"apt", "apk", "dnf"})

_PYTHON = re.compile(r"(?:python|pypy)[\d.]*\Z")
_PIP = re.compile(r"pip[\d.]*\Z")
_VALUES: dict[Tool, frozenset[str]] = {
    "apt": frozenset({"-t", "-o", "-c", "-a", "--target-release", "--option", "--config-file"}),
    "apk": frozenset({"-t", "--virtual", "-X", "--repository", "-p", "--root", "--arch"}),
    "dnf": frozenset({"-c", "--enablerepo", "--disablerepo", "--setopt", "--installroot", "-x", "--exclude"}),
    "conda": frozenset({"-n", "--name", "-p", "--prefix", "-c", "--channel", "-f", "--file"}),
}
_PIP_VALUES = frozenset(
    {
        *("-c", "--constraint", "-i", "--index-url", "--extra-index-url", "-f", "--find-links", "-t", "--target"),
        *(
            "--prefix",
            "--root",
            "--platform",
            "--python-version",
            "--implementation",
            "--abi",
            "--no-binary",
            "--python",
        ),
        *(
            "--only-binary",
            "--progress-bar",
            "--report",
            "--src",
            "--upgrade-strategy",
            "--cache-dir",
            "--timeout",
            "-p",
        ),
        *(
            "--trusted-host",
            "--retries",
            "--index-strategy",
            "--torch-backend",
            "--index",
            "--link-mode",
            "--config-file",
        ),
        *("--build-constraint", "--override", "--exclude-newer", "--directory", "--project", "--proxy", "--cert"),
    }
)
_EXTRA = re.compile(r"[^\[\]]*\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Install:
    """A command that installs something."""

    tool: Tool
    command: Command
    packages: tuple[str, ...] = ()
    """By name, without versions; Python's normalised."""
    files: tuple[str, ...] = ()
    """Of `-r` and the like."""
    project: bool = False
    """Whether it installs the project itself: `.`, `-e .`, `uv sync`, `poetry install`."""
    extras: tuple[str, ...] = ()
    """Of the project; `*` for all."""
    groups: tuple[str, ...] = ()
    """Dependency groups that it adds."""
    options: frozenset[str] = frozenset()

    @property
    def target(self) -> str:
        """The directory that it installs to, where it says one: --target, --prefix, --root."""
        words = self.command.words
        for at, word in enumerate(words):
            name, equals, value = word.partition("=")
            if name in ("--target", "-t", "--prefix", "--root"):
                return value if equals else (words[at + 1] if at + 1 < len(words) else "")
        return ""


def installs(commands: Sequence[Command]) -> Iterator[Install]:
    """What these commands install, in order."""
    for command in commands:
        found = install_of(command)
        if found is not None:
            yield found


def install_of(command: Command) -> Install | None:
    """What a command installs; None where it installs nothing."""
    words = list(command.argv)
    if not words:
        return None
    name = command.program
    if _PYTHON.match(name) and words[1:2] == ["-m"] and len(words) > 2:
        words = words[2:]
        name = words[0]
    rest = words[1:]
    if name in ("apt-get", "apt", "aptitude"):
        return _system("apt", command, rest, ("install",))
    if name == "apk":
        return _system("apk", command, rest, ("add",))
    if name in ("dnf", "yum", "microdnf", "zypper"):
        return _system("dnf", command, rest, ("install", "groupinstall"))
    if name in ("conda", "mamba", "micromamba"):
        return _system("conda", command, rest, ("install", "create", "env", "update"))
    if _PIP.match(name):
        return _pip("pip", command, rest)
    if name == "uv":
        return _uv(command, rest)
    verbs = [word for word in rest if not word.startswith("-")][:1]
    if name in ("poetry", "pdm", "pipenv") and verbs and verbs[0] in ("install", "sync"):
        tool: Tool = "poetry" if name == "poetry" else "pdm" if name == "pdm" else "pipenv"
        return _project(tool, command, rest)
    if name in ("npm", "yarn") and verbs and verbs[0] in ("install", "ci", "i"):
        return Install("npm", command)
    return None


def _system(tool: Tool, command: Command, words: Sequence[str], verbs: Sequence[str]) -> Install | None:
    values = _VALUES[tool]
    plain: list[str] = []
    options: set[str] = set()
    rest = iter(words)
    for word in rest:
        if word in values:
            options.add(word)
            next(rest, None)
        elif word.startswith("-"):
            options.add(word.partition("=")[0])
        else:
            plain.append(word)
    if not plain or plain[0] not in verbs:
        return None
    packages = tuple(re.split(r"[=<>~/]", word, maxsplit=1)[0].lower() for word in plain[1:] if word != "create")
    return Install(tool, command, packages, options=frozenset(options))


def _uv(command: Command, words: Sequence[str]) -> Install | None:
    plain = [word for word in words if not word.startswith("-")]
    if plain[:1] == ["sync"]:
        return _project("uv-sync", command, words)
    if plain[:2] in (["pip", "install"], ["pip", "sync"]):
        rest = list(words)
        rest.remove("pip")
        return _pip("uv-pip", command, rest)
    return None


def _pip(tool: Tool, command: Command, words: Sequence[str]) -> Install | None:
    packages: list[str] = []
    files: list[str] = []
    extras: list[str] = []
    groups: list[str] = []
    options: set[str] = set()
    project = False
    verb = ""
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        name = name if word.startswith("--") else word[:2] if word.startswith("-") else ""
        if name in ("-r", "--requirement", "--requirements", "--extra", "--group"):
            value = value if word.startswith("--") and equals else "" if word.startswith("--") else word[2:]
            value = value or next(rest, "")
            (extras if name == "--extra" else groups if name == "--group" else files).append(value)
        elif name in ("-e", "--editable"):
            value = value or next(rest, "")
            project = True
            extras += _extras(value)
        elif name:
            options.add(name)
            if name in _PIP_VALUES and not equals and len(word) == len(name):
                next(rest, None)
        elif not verb:
            verb = word
        elif word.startswith((".", "/", "$")) and not word.endswith((".whl", ".txt", ".in", ".toml")):
            project = True
            extras += _extras(word)
        elif verb == "sync" or word.endswith((".txt", ".in", ".toml")):
            files.append(word)
        else:
            packages.append(distribution(word))
    if verb not in ("install", "sync"):
        return None
    if "--all-extras" in options:
        extras.append("*")
    found = tuple(filter(None, packages))
    return Install(tool, command, found, tuple(files), project, tuple(extras), tuple(groups), frozenset(options))


def _project(tool: Tool, command: Command, words: Sequence[str]) -> Install:
    extras: list[str] = []
    groups: list[str] = []
    options: set[str] = set()
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in ("--extra", "--extras", "-E"):
            extras += re.split(r"[ ,]+", value if equals else next(rest, ""))
        elif name in ("--group", "--with", "-G", "--only-group", "--only", "--without", "--no-group"):
            value = value if equals else next(rest, "")
            if name in ("--group", "--with", "-G"):
                groups += re.split(r"[ ,]+", value)
            options.add(f"{name} {value}")
            options.add(name)
        elif name.startswith("-"):
            options.add(name)
    if "--all-extras" in options:
        extras.append("*")
    if "--all-groups" in options:
        groups.append("*")
    return Install(tool, command, (), (), True, tuple(extras), tuple(groups), frozenset(options))


def _extras(word: str) -> list[str]:
    match = _EXTRA.match(word)
    return [part.strip() for part in match[1].split(",") if part.strip()] if match else []


def distribution(text: str) -> str:
    """The normalised name of a requirement; empty where it is none."""
    try:
        return str(canonicalize_name(Requirement(text).name))
    except (InvalidRequirement, RecursionError):
        match = re.match(r"[A-Za-z0-9][\w.-]*", text)
        return str(canonicalize_name(match[0])) if match else ""
