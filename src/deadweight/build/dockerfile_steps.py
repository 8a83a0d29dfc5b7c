"""How a Dockerfile installs what a recipe locks: shell commands for a RUN, and what they have mounted."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deadweight.build.recipe import Lock, Recipe

SOURCE = "/src"
"""Where the project is mounted in the builder, and its working directory."""
CACHE = "--mount=type=cache,target=/root/.cache/uv"


@dataclass(frozen=True)
class Step:
    """One RUN that installs dependencies."""

    mounts: tuple[str, ...]
    commands: tuple[str, ...]
    locked: bool
    """Whether versions are pinned."""


@dataclass(frozen=True)
class Install:
    """How dependencies are installed."""

    whole: Step
    core: Step | None
    """Without extras; None where there are none."""
    develops: str
    """What INCLUDE_DEV adds, in words; empty where the project names nothing."""


def install_steps(recipe: Recipe) -> Install:
    """How the dependencies of a recipe are installed, with INCLUDE_DEV as a condition of the shell."""
    develops = ""
    if recipe.dev_lock is not None and recipe.dev_lock.kind == "requirements":
        develops = recipe.dev_lock.path
    elif recipe.dev_extras or recipe.dev_groups:
        develops = ", ".join(dict.fromkeys([*recipe.dev_extras, *recipe.dev_groups]))
    whole = _step(recipe, recipe.lock, recipe.core_lock, recipe.extras, bool(develops))
    core = _step(recipe, recipe.core_lock, recipe.lock, (), bool(develops)) if recipe.extras else None
    return Install(whole, core, develops)


def run(commands: Sequence[str], mounts: Iterable[str] = ()) -> str:
    """A RUN instruction, one command a line."""
    lines = [*mounts, *(f"&& {one}" if at else one for at, one in enumerate(commands))]
    return "RUN " + " \\\n    ".join(lines)


def bind(path: str) -> str:
    """The mount of a file of the project, where the builder works."""
    return f"--mount=type=bind,source={path},target={SOURCE}/{path}"


def _step(recipe: Recipe, lock: Lock | None, other: Lock | None, extras: Sequence[str], develops: bool) -> Step:
    wanted = [word for extra in extras for word in ("--extra", extra)]
    added = [word for extra in recipe.dev_extras for word in ("--extra", extra)]
    added += [word for group in recipe.dev_groups for word in ("--group", group)]
    if lock is None:
        return _resolved(recipe, other, wanted, added if develops else [])
    if lock.kind == "uv":
        install = ["uv", "sync", "--frozen", "--no-install-project", "--no-default-groups", *wanted]
        return _with_developers(install, added if develops else [], lock.files, True)
    if lock.kind == "pylock":
        return _with_developers(
            ["uv", "pip", "install", "-r", lock.path, *wanted], added if develops else [], lock.files, True
        )
    dev = recipe.dev_lock if recipe.dev_lock is not None and recipe.dev_lock.kind == "requirements" else None
    hashes = lock.hashes and (dev is None or dev.hashes)
    install = ["uv", "pip", "install", *(["--require-hashes"] if hashes else []), "-r", lock.path]
    if dev is not None or not develops:
        files = dict.fromkeys([*lock.files, *(dev.files if dev is not None else ())])
        return _with_developers(install, ["-r", dev.path] if dev is not None else [], files, lock.pinned)
    more = _words(["uv", "pip", "install", "-r", recipe.metadata, *added, "--constraint", lock.path])
    return Step(
        (CACHE, *map(bind, dict.fromkeys([*lock.files, recipe.metadata]))),
        (_words(install), f'if [ "$INCLUDE_DEV" = true ]; then {more}; fi'),
        lock.pinned,
    )


def _resolved(recipe: Recipe, other: Lock | None, wanted: Sequence[str], added: Sequence[str]) -> Step:
    """What the project itself says; where another image's lock is there, in its versions."""
    install = ["uv", "pip", "install", "-r", recipe.metadata, *wanted]
    files = [recipe.metadata]
    if other is not None and other.kind == "requirements":
        install += ["--constraint", other.path]
        files += other.files
    return _with_developers(install, added, [] if recipe.dynamic else files, False)


def _with_developers(install: Sequence[str], added: Sequence[str], files: Iterable[str], locked: bool) -> Step:
    mounts = [CACHE, *(map(bind, files) if files else [f"--mount=type=bind,target={SOURCE},rw"])]
    if not added:
        return Step(tuple(mounts), (_words(install),), locked)
    condition = f'if [ "$INCLUDE_DEV" = true ]; then set -- {_words(added)}; fi'
    return Step(tuple(mounts), (condition, f'{_words(install)} "$@"'), locked)


def _words(words: Iterable[str]) -> str:
    return " ".join(map(shlex.quote, words))
