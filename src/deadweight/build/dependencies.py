"""The layer with the dependencies: what the lock names, installed for the base's Python and pruned."""

from __future__ import annotations

import platform as machine
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from packaging.utils import canonicalize_name

from deadweight.binary.gpu import Target
from deadweight.build.base import Base, Python
from deadweight.build.pack import Item, Packed, pack
from deadweight.build.places import VENV
from deadweight.build.recipe import Recipe
from deadweight.build.stage import Layout, Stage, new_stage, platform_words, put_right
from deadweight.build.uv import Uv, UvFailed, run_uv
from deadweight.build.uv_settings import overridden
from deadweight.build.variant import cpu_requirements, entries_of, pylock_entries, split_requirements
from deadweight.cache.layers import Cache, Cached, key_of
from deadweight.errors import BadInputError, shown
from deadweight.files.cpu_wheel import Sources

if TYPE_CHECKING:
    from deadweight.prune import Pruned

FORMAT = 2
"""Of the layer: raised where the same inputs give other bytes than before, so that none of those are used."""
Progress = Callable[[str, int, int], None]
_LOCAL = re.compile(r"^\s*(?:-e\b|--editable|[./])|file:", re.MULTILINE)
_BUILT = re.compile(r"^ +Built (\S+)$", re.MULTILINE)
_INSTALLED = re.compile(r"^Installed \d+ package", re.MULTILINE)
_REQUIRES = re.compile(r" requires `([A-Za-z0-9][A-Za-z0-9._-]*)")
_INTERPRETER = f"{VENV}/bin/python"


@dataclass(frozen=True)
class Options:
    """What is to become of the libraries."""

    target: Target | None = None
    symbols: bool = True
    """Whether symbols leave."""
    cpu: Sources | None = None
    """Where CPU builds come from that take the place of what is built for GPUs; None: what is locked is installed."""
    weights: str | None = None
    """What the numbers of models that distributions bring become: fp16, bf16 or int8; None: they stay."""


@dataclass(frozen=True)
class Requirements:
    """What is to be installed."""

    words: tuple[str, ...]
    """For `uv pip install`."""
    text: bytes
    """What the words stand for, as far as it is known: two equal ones install the same."""
    local: bool
    """Whether it names places on this machine, of which the text says too little."""
    notes: tuple[str, ...] = ()
    spare: Mapping[str, str] = field(default_factory=dict)
    """Requirements files of what is installed only where something turns out to need it, by canonical name."""


@dataclass(frozen=True)
class Host:
    """What stands in for the image's Python on this machine."""

    interpreter: str
    builds: bool
    """Whether what it builds runs in the image: it is of the same version, machine and C library."""


def find_host(uv: Uv, python: Python, work: Path, epoch: int) -> Host:
    """A Python of this machine: one of the image's version where there is one."""
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    interpreter, same = sys.executable, own == python.version
    if not same:
        try:
            words = ["python", "find", "--no-project", "--system", python.version]
            interpreter, same = run_uv(uv, words, work, epoch, said=False).strip(), True
        except UvFailed:
            same = False
    library, release = machine.libc_ver()
    glibc = tuple(int(part) for part in release.split(".")[:2] if part.isdigit()) if library == "glibc" else ()
    fits = machine.machine() == python.machine and not python.musl and () < glibc <= python.glibc
    return Host(interpreter if same else sys.executable, same and fits)


def read_requirements(recipe: Recipe, uv: Uv, python: Python, work: Path, epoch: int) -> Requirements | None:
    """What the project's lock names; resolved now where there is none. None where nothing is to be installed."""
    lock = recipe.lock if recipe.extras else recipe.core_lock or recipe.lock
    extras = [word for name in recipe.extras for word in ("--extra", name)]
    if lock is None:
        return _resolve(recipe, uv, python, extras, work, epoch)
    path = recipe.folder / lock.path
    if lock.kind == "uv":
        exported = work / "requirements.txt"
        words = [
            "export",
            "-q",
            "--frozen",
            "--no-default-groups",
            "--no-emit-project",
            "--no-editable",
            "--no-header",
            *extras,
        ]
        _try(uv, [*words, "-o", str(exported)], recipe.folder, epoch, f"{shown(lock.path)} cannot be used")
        text = exported.read_bytes()  # uv holds what has a hash to it; what comes from a repository has none
        return Requirements(("-r", str(exported)), text, _is_local(text))
    text = b"".join(_read(recipe.folder / name) for name in lock.files or (lock.path,))
    if lock.kind == "pylock":
        return Requirements(("-r", str(path), *extras), text + repr(extras).encode(), local=b"path = " in text)
    if not lock.pinned:
        return _resolve(recipe, uv, python, [], work, epoch, lock.path)
    local = _is_local(text)
    held = ("--require-hashes",) if lock.hashes and not local else ()
    notes = () if lock.hashes else (f"{lock.path} has no hashes: what is downloaded is not held to it",)
    return Requirements(("-r", str(path), *held), text, local, notes)


def cpu_variant(recipe: Recipe, locked: Requirements, sources: Sources, python: Python, work: Path) -> Requirements:
    """What is locked, with CPU builds. Raises what `cpu_requirements` raises."""
    lock = recipe.lock if recipe.extras else recipe.core_lock or recipe.lock
    exported = work / "requirements.txt"
    if exported.exists():  # of a uv.lock, or resolved now
        entries = list(split_requirements(exported.read_text("utf-8")))
    elif lock is not None and lock.kind == "pylock":
        entries = list(pylock_entries(recipe.folder, lock.path, recipe.extras, int(python.version.partition(".")[2])))
    else:
        assert lock is not None
        entries = list(entries_of(recipe.folder, lock.path))
    required = {str(canonicalize_name(name)) for name in recipe.required}
    found = cpu_requirements(entries, python, sources, required, work / "wheels")
    place = work / "cpu-requirements.txt"
    place.write_text(found.text, "utf-8")
    held = ("--require-hashes",) if found.hashed and not locked.local else ()
    words = ("-r", str(place), *held)
    return Requirements(words, found.inputs, locked.local, (*locked.notes, *found.notes), found.spare)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(f"cannot read {shown(str(path))}: {error.strerror}") from None


def _is_local(text: bytes) -> bool:
    """Whether requirements name a place on this machine."""
    return _LOCAL.search(text.decode("utf-8", "replace")) is not None


def _resolve(
    recipe: Recipe, uv: Uv, python: Python, extras: list[str], work: Path, epoch: int, loose: str | None = None
) -> Requirements | None:
    """What the project asks for, or a requirements file that leaves versions open, resolved now."""
    source = recipe.metadata if loose is None else loose
    if not (recipe.folder / source).is_file():
        return None
    resolved = work / "requirements.txt"
    words = ["pip", "compile", "-q", "--generate-hashes", "--no-header", "--no-annotate", *platform_words(python)]
    constraint = ["-c", recipe.core_lock.path] if recipe.core_lock is not None else []
    what = "the dependencies cannot be resolved"
    words += [*extras, *constraint, source, "-o", str(resolved)]
    _try(uv, words, recipe.folder, epoch, what)
    text = resolved.read_bytes()
    if not any(line[:1].isalnum() for line in text.decode("utf-8", "replace").splitlines()):
        return None
    note = "there is no lock: versions were resolved now, and another day gives other ones (uv lock, or uv pip compile)"
    return Requirements(("-r", str(resolved)), text, _is_local(text), (note,))


def dependencies_layer(
    recipe: Recipe,
    base: Base,
    uv: Uv,
    host: Callable[[], Host],
    options: Options,
    cache: Cache,
    work: Path,
    epoch: int,
    resources: ExitStack,
    progress: Progress | None,
) -> tuple[str, Cached]:
    """The layer and its key: from the cache, or made now.

    Raises BadInputError where something cannot be installed, EnvironmentFailure where this machine cannot do it.
    """
    say = progress or silent
    say("resolving", 0, 0)
    wanted = read_requirements(recipe, uv, base.python, work, epoch)
    if options.cpu is not None and wanted is not None:
        say("looking for CPU builds", 0, 0)
        wanted = cpu_variant(recipe, wanted, options.cpu, base.python, work)
    key = key_of(
        layer="dependencies",
        format=FORMAT,
        deadweight=version("deadweight"),
        uv=uv.version,
        requirements=sha256(wanted.text).hexdigest() if wanted is not None else None,
        python=msgspec.to_builtins(base.python),
        folders=base.folders,
        target=None if options.target is None else repr(options.target),
        symbols=options.symbols,
        **({} if options.weights is None else {"weights": options.weights}),
        epoch=epoch,
    )
    cached = None if wanted is not None and wanted.local else cache.layer(key, resources)
    if cached is not None:
        return key, cached
    notes: list[str] = []
    about: dict[str, Any] = {}
    items = list(_environment(base.python))
    if wanted is not None:
        notes += wanted.notes
        stage = new_stage(work / "venv", uv, host().interpreter, epoch)
        say("installing", 0, 0)
        notes += _install(stage, wanted, uv, base.python, host(), recipe.folder, epoch)
        about["distributions"] = sum(1 for _ in stage.site.glob("*.dist-info"))
        from deadweight.prune import OUTSIDE, prune_tree  # noqa: PLC0415  (heavy, and mostly the layer is cached)

        say("pruning", 0, 0)
        pruned = prune_tree(
            stage.site, options.target, symbols=options.symbols, weights=options.weights, progress=progress
        )
        notes += [note for note in pruned.notes if OUTSIDE not in note]  # uv's cache keeps its own files
        notes += [f"weights stay in {each.path}: {each.reason}" for each in pruned.left if each.what == "weights"]
        about |= _savings(pruned)
        layout = Layout(VENV.strip("/"), f"lib/python{base.python.version}/site-packages")
        items += put_right(stage, base.python, layout, _INTERPRETER)
    known = {item.path: item for item in items}
    items = [*known.values(), *(Item(folder) for folder in _above(base) if folder not in known)]
    say("packing", 0, 0)

    def write(file: Any) -> Packed:
        return pack(items, file, epoch)

    return key, cache.make(key, write, resources, lambda: (tuple(notes), about))


def silent(_doing: str, _done: int, _total: int) -> None:
    """Progress for who wants none."""


def _above(base: Base) -> Iterator[str]:
    """The directories above the environment that the base does not have."""
    parts = VENV.strip("/").split("/")
    return (path for end in range(1, len(parts)) if (path := "/".join(parts[:end])) not in base.folders)


def _environment(python: Python) -> Iterator[Item]:
    """What makes a directory a virtual environment of the image's Python (PEP 405)."""
    root = VENV.strip("/")
    settings = {
        "home": python.home,
        "implementation": "CPython",
        "version": python.full_version,
        "include-system-site-packages": "false",
    }
    text = "".join(f"{name} = {value}\n" for name, value in settings.items())
    for folder in ("", "/bin", "/lib", f"/lib/python{python.version}", f"/lib/python{python.version}/site-packages"):
        yield Item(root + folder)
    yield Item(f"{root}/pyvenv.cfg", text.encode(), mode=0o644)
    yield Item(f"{root}/bin/python", target=python.executable, mode=0o777)
    yield Item(f"{root}/bin/python3", target="python", mode=0o777)
    yield Item(f"{root}/bin/python{python.version}", target="python", mode=0o777)


def _install(
    stage: Stage, wanted: Requirements, uv: Uv, python: Python, host: Host, folder: Path, epoch: int
) -> list[str]:
    """Installs what is wanted; gives what is to be said of it."""
    into = ["--python", str(stage.root / "bin" / "python"), *platform_words(python)]
    wheels = [] if host.builds else ["--only-binary", ":all:"]
    where = f"Python {python.version} on {platform_words(python)[-1]}"
    what = f"the dependencies cannot be installed for {where}"
    if wheels:
        what += (
            " (wheels alone are used, since this machine's Python is another: what was built here would not run there)"
        )
    said = _try(uv, ["pip", "install", "--no-deps", *into, *wheels, *wanted.words], folder, epoch, what)
    if _INSTALLED.search(said) and not any(stage.site.glob("*.dist-info")):
        raise BadInputError(f"{what}: uv put them elsewhere; look for what its settings say of that (uv.toml, UV_...)")
    notes = [
        f"{_plain(name)} was built here from its sources, which ran its code; another machine's result may differ"
        for name in sorted(set(_BUILT.findall(said)))
    ]
    spare = dict(wanted.spare)
    while (failed := _check(uv, into, folder, epoch)) is not None:
        problems = [" ".join(line.split()) for line in failed.output.splitlines() if line.startswith("The package")]
        needed = {name for line in problems if "not installed" in line for name in _requires(line)} & spare.keys()
        if needed:
            for name in sorted(needed):
                again = stage.root.parent / "spare.txt"
                again.write_text(spare.pop(name), "utf-8")
                _try(uv, ["pip", "install", "--no-deps", *into, *wheels, "-r", str(again)], folder, epoch, what)
            notes.append(f"{', '.join(sorted(needed))} stays: something else needs it than GPU builds")
            continue
        # What uv was told to replace or leave out may be missing: whoever did so means it.
        meant = overridden(folder)
        missing = [line for line in problems if "not installed" in line and not _requires(line) & meant]
        if missing:
            raise BadInputError(
                f"the lock leaves out what {where} needs: {'; '.join(map(_plain, missing[:5]))}; lock for this platform"
            ) from None
        notes += [_plain(line) for line in problems] or [f"uv pip check: {failed}"]
        break
    if spare:
        notes.append(f"left out, since only GPU builds need them: {', '.join(sorted(spare))}")
    return notes


def _check(uv: Uv, into: list[str], folder: Path, epoch: int) -> UvFailed | None:
    """What `uv pip check` finds; None where all fits."""
    try:
        run_uv(uv, ["pip", "check", *into], folder, epoch)
    except UvFailed as error:
        return error
    return None


def _requires(line: str) -> set[str]:
    """The name of what is required, in a line of `uv pip check`."""
    return {canonicalize_name(name) for name in _REQUIRES.findall(line)}


def _plain(text: str) -> str:
    return shown(text, 300)[1:-1]


def _savings(pruned: Pruned) -> dict[str, int]:
    return {
        "before_bytes": pruned.before_bytes,
        "after_bytes": pruned.after_bytes,
        "gpu_code_bytes": pruned.gpu_code_bytes,
        "symbols_bytes": pruned.symbols_bytes,
        "leftovers_bytes": pruned.leftovers_bytes,
        "weights_bytes": pruned.weights_bytes,
    }


def _try(uv: Uv, words: list[str], where: Path, epoch: int, what: str) -> str:
    try:
        return run_uv(uv, words, where, epoch)
    except UvFailed as error:
        raise BadInputError(f"{what}: {error}") from None
