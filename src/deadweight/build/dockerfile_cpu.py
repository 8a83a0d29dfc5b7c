"""The stage of a Dockerfile with CPU builds: what is locked less what only GPU builds need, and wheels by hash."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from packaging.utils import canonicalize_name

from deadweight.application.files import read_toml
from deadweight.build.dockerfile_steps import CACHE, Step, bind
from deadweight.build.locked import packages, uv_packages
from deadweight.build.locks import SAFE_PATH
from deadweight.build.recipe import Recipe
from deadweight.build.variant import entries_of, locked_version
from deadweight.errors import BadInputError, UsageError, shown
from deadweight.files.cpu_wheel import GPU_BUILT, ONLY_FOR_GPUS, Runs, Sources, find_cpu_wheel

_BUILT: Final = "|".join(GPU_BUILT)
_ONLY: Final = "cuda-(bindings|pathfinder|toolkit|python|core)|(pytorch-)?triton(-rocm|-xpu)?"
"""With nvidia-*, ONLY_FOR_GPUS for awk."""
_END: Final = "[ =@[;]"
"""What comes after a name."""
_URL: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(?:/[A-Za-z0-9._~/%+-]*)?\Z")
_LOCKED: Final = "/tmp/locked.txt"  # noqa: S108  (in a build stage)
_REST: Final = "/tmp/rest.txt"  # noqa: S108
_CPU: Final = "/tmp/cpu.txt"  # noqa: S108


@dataclass(frozen=True)
class Pin:
    """A wheel that takes the place of a locked one."""

    name: str
    locked: str
    """The version in the lock."""
    version: str
    sha256: str


@dataclass(frozen=True)
class CpuChoice:
    """What the stage installs in place of what is locked."""

    pins: tuple[Pin, ...]
    stay: tuple[str, ...]
    """Names that look like a GPU build's alone, and that something else needs."""
    folders: tuple[str, ...]
    """Below the project, with wheels."""
    options: tuple[str, ...]
    """Where from, as words for uv."""


def cpu_choice(recipe: Recipe, sources: Sources, runs: Runs) -> CpuChoice:
    """Looks for CPU builds of what the recipe locks.

    Raises UsageError for sources that an engine's build would not have, and where there is no lock; BadInputError where
    there is no CPU build.
    """
    locked, needed = _locked(recipe, int(runs.python.partition(".")[2]))
    wanted = {name: version for name, version in locked.items() if name in GPU_BUILT}
    if not wanted:
        raise UsageError(f"--variant cpu has nothing to do: the lock has none of {', '.join(GPU_BUILT)}")
    folders, links = _links(recipe.folder, sources.find_links)
    if sources.index_url is not None:
        _check_url("--index-url", sources.index_url)
    pins = []
    with TemporaryDirectory(prefix="deadweight-wheels-") as place:
        for name, version in sorted(wanted.items()):
            wheel = find_cpu_wheel(name, version, runs, sources, Path(place))
            if not sources.find_links and sources.index_url is None:
                raise UsageError(
                    f"pip finds {shown(wheel.path.name)} where this machine is configured to look, which an engine's "
                    "build does not see: copy it to a folder of the project, as wheels, and say --find-links wheels; "
                    "or say --index-url"
                )
            pins.append(Pin(name, version, wheel.version, wheel.sha256))
    stay = [name for name in locked if ONLY_FOR_GPUS.match(name) and name in needed]
    options = [word for link in [*folders, *links] for word in ("--find-links", link)]
    if sources.index_url is None:
        options.insert(0, "--no-index")
    else:
        options += ["--default-index", sources.index_url]
    return CpuChoice(tuple(pins), tuple(sorted(stay)), tuple(folders), tuple(options))


def cpu_step(recipe: Recipe, choice: CpuChoice, develops: bool) -> Step:
    """How the variant is installed."""
    lock = recipe.lock
    assert lock is not None
    commands = []
    added = _developers(recipe) if develops else []
    if added:
        commands.append(f'if [ "$INCLUDE_DEV" = true ]; then set -- {shlex.join(added)}; fi')
    more = ' "$@"' if added else ""
    source, install_more = lock.path, more
    mounts = [CACHE, *map(bind, lock.files)]
    if lock.kind == "uv":
        source, install_more = _LOCKED, ""
        extras = "".join(f" --extra {name}" for name in recipe.extras)
        export = "uv export -q --frozen --no-emit-project --no-default-groups"
        commands.append(f"{export}{extras}{more} -o {_LOCKED}")
    elif added and recipe.dev_lock is not None:
        mounts += [bind(path) for path in recipe.dev_lock.files if path not in lock.files]
    moved = "{ echo 'the lock has moved on: write this Dockerfile anew' >&2; exit 1; }"
    commands += [f"{{ grep -qF '{pin.name}=={pin.locked}' {source} \\\n        || {moved}; }}" for pin in choice.pins]
    kept = f"\n        && !/^({'|'.join(choice.stay)}){_END}/" if choice.stay else ""
    gone = f"(/^({_BUILT}|nvidia-[a-z0-9-]+){_END}/\n        || /^({_ONLY}){_END}/){kept}"
    commands += [
        f"awk '/^[A-Za-z0-9]/ {{ gpu = {gone} }} !gpu'\n        {source} > {_REST}".replace("\n", " \\\n"),
        f"uv pip install --no-deps{' --require-hashes' if lock.hashes else ''} -r {_REST}{install_more}",
        "printf '%s\\n' "
        + " ".join(f"'{pin.name}=={pin.version} --hash=sha256:{pin.sha256}'" for pin in choice.pins)
        + f" > {_CPU}",
        f"uv pip install --no-deps --require-hashes {shlex.join(choice.options)} -r {_CPU}",
        "uv pip check",
    ]
    mounts += [bind(folder) for folder in choice.folders]
    return Step(tuple(mounts), tuple(commands), True)


def _developers(recipe: Recipe) -> list[str]:
    if recipe.dev_lock is not None and recipe.dev_lock.kind == "requirements":
        return ["-r", recipe.dev_lock.path]
    if recipe.lock is not None and recipe.lock.kind == "uv":
        extras = [word for extra in recipe.dev_extras for word in ("--extra", extra)]
        return [*extras, *(word for group in recipe.dev_groups for word in ("--group", group))]
    return []


def _locked(recipe: Recipe, minor: int) -> tuple[dict[str, str], set[str]]:
    """(versions by name; names that others need than GPU builds), of the image's lock."""
    lock = recipe.lock
    if (
        lock is None
        or lock.kind == "pylock"
        or not lock.pinned
        or (lock.kind == "requirements" and len(lock.files) > 1)
    ):
        raise UsageError(
            "in a Dockerfile --variant cpu takes the versions of uv.lock, or of one requirements file without -r and "
            "-c: lock the project so (uv lock; uv pip compile --generate-hashes)"
        )
    found: dict[str, str] = {}
    needed = set(recipe.required)
    if lock.kind == "uv":
        document = read_toml(recipe.folder, lock.path)
        for one in uv_packages(document, recipe.name, recipe.extras, minor):
            found[str(one.get("name"))] = str(one.get("version"))
        for one in packages(document):
            if not _for_gpus(str(one.get("name"))) and one.get("name") in found:
                needed |= {str(each.get("name")) for each in _requirements(one)}
        return found, needed
    for entry in entries_of(recipe.folder, lock.path):
        if not entry.name:
            continue
        found[entry.name] = locked_version(entry) if entry.name in GPU_BUILT else ""
        others = entry.via - {str(canonicalize_name(recipe.name))}
        if any(not _for_gpus(name) for name in others):
            needed.add(entry.name)
    return found, needed


def _for_gpus(name: str) -> bool:
    return name in GPU_BUILT or ONLY_FOR_GPUS.match(name) is not None


def _requirements(package: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = package.get("dependencies")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _links(folder: Path, links: Collection[str]) -> tuple[list[str], list[str]]:
    """(folders below the project, URLs). Raises UsageError for places that a build does not have."""
    folders, urls = [], []
    for link in links:
        if "://" in link and not link.startswith("file:"):
            _check_url("--find-links", link)
            urls.append(link)
            continue
        place = Path(link.removeprefix("file://"))
        if not place.exists() and (folder / link).exists():
            place = folder / link
        below = os.path.relpath(os.path.realpath(place), os.path.realpath(folder))
        if not SAFE_PATH.match(below) or not place.is_dir():
            raise UsageError(
                f"--find-links {shown(link)}: an engine's build sees the project alone: name a folder in it, with "
                "the wheels, or a URL"
            )
        folders.append(below)
    return folders, urls


def _check_url(option: str, url: str) -> None:
    if not _URL.match(url):
        raise BadInputError(f"{option} {shown(url)} is no plain URL, and would be in the Dockerfile for all to read")
