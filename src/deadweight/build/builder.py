"""Builds a project's image without an engine: the base, the user, the dependencies, and last the project.

    built = build_project(read_recipe(folder), "debian:bookworm", parse_destination("oci:out:latest"), Settings())

Nothing of the base is run. Building runs the project's build backend on this machine, as pip does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache as once
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from deadweight.binary.target_document import gpu_names, labels, target_document
from deadweight.build.base import Base, read_base
from deadweight.build.configuration import make_config
from deadweight.build.debian import PREFIX, debian_image
from deadweight.build.dependencies import Host, Options, Progress, dependencies_layer, find_host, silent
from deadweight.build.pack import pack
from deadweight.build.places import APP, APP_LIB, UID, USER, VENV
from deadweight.build.project import project_layer
from deadweight.build.pythons import holds
from deadweight.build.recipe import Recipe
from deadweight.build.running import EPOCH
from deadweight.build.slimming import slim_layers
from deadweight.build.users import FORMAT, user_items
from deadweight.build.uv import find_uv, parse_epoch
from deadweight.build.uv_settings import check_settings
from deadweight.cache.keeping import trim
from deadweight.cache.layers import Cache, Cached, key_of
from deadweight.cache.place import default_folder, distrust, limit, make_folder
from deadweight.errors import BadInputError, EnvironmentFailure, UsageError, shown
from deadweight.image.compression import temporary_folder
from deadweight.image.model import Image, Layer
from deadweight.image.output import NewImage, OutputLayer, Written
from deadweight.image.reference import Reference, parse_reference
from deadweight.image.transports import CompressionChoice, check_destination, open_image, write_image


@dataclass(frozen=True)
class Settings:
    """How to build."""

    options: Options = field(default_factory=Options)
    compression: CompressionChoice = "keep"
    force: bool = False
    cache: Path | None = None
    """The cache; None: the usual place."""
    keep: bool = True
    """Whether there is a cache at all."""
    platform: str | None = None
    mirror: str | None = None
    """Debian's archive, for `debian:SUITE`."""
    refresh_base: bool = False
    slim: bool = False
    """Whether what `deadweight slim` takes out by policy leaves: tests, headers, type stubs."""


class BuiltLayer(msgspec.Struct, frozen=True):
    """One layer of the image."""

    name: str
    """`base`, `user`, `dependencies` or `project`."""
    diff_id: str
    bytes: int
    stored_bytes: int
    cached: bool
    """Whether it was there already: the base's own always are."""
    seconds: float
    """That making it took, or finding it."""
    created_by: str


@dataclass(frozen=True)
class Built:
    """What was built."""

    written: Written
    layers: tuple[BuiltLayer, ...]
    platform: str
    python: str
    """As X.Y.Z."""
    gpus: tuple[str, ...] | None
    """Those that were declared, as sm_90; None: GPU code stays."""
    savings: dict[str, int]
    """What pruning the dependencies took out; empty where nothing was pruned."""
    cache_bytes: int
    """Of layers in the cache afterwards."""
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Made:
    name: str
    made_by: str
    cached: Cached
    seconds: float


def build_project(
    recipe: Recipe, base: str, destination: Reference, settings: Settings, progress: Progress | None = None
) -> Built:
    """Builds the image of a recipe over the image that `base` names, `debian:SUITE` or a reference.

    Raises what reading the base raises, BadInputError where the project or its dependencies cannot be installed there,
    EnvironmentFailure where this machine lacks something, and what `write_image` raises. Nothing is left behind then
    but the cache.
    """
    started = time.monotonic()
    most = limit()
    check_destination(destination, force=settings.force, one_platform=settings.platform is not None)
    epoch = parse_epoch(os.environ, EPOCH)
    uv = find_uv()
    check_settings(recipe.folder, os.environ)
    say = progress or silent
    with ExitStack() as resources:
        cache = Cache(resources.enter_context(_cache_folder(settings)))
        work = resources.enter_context(cache.workplace())
        say(f"opening {base}", 0, 0)
        used: list[str] = []
        fresh = False
        opened = time.monotonic()
        if base.startswith(PREFIX):
            key, layer, image = debian_image(
                base,
                recipe.packages,
                cache,
                work,
                epoch,
                resources,
                platform=settings.platform,
                mirror=settings.mirror,
                refresh=settings.refresh_base,
            )
            used.append(key)
            fresh = layer.fresh
            files: dict[int, Cached] = {0: layer}
        else:
            image = resources.enter_context(open_image(base, settings.platform))
            files = {}
        _check_tag(image, destination)
        facts = read_base(image, cache)
        check_python(recipe, facts)
        took = time.monotonic() - opened
        host: Callable[[], Host] = once(lambda: find_host(uv, facts.python, work, epoch))
        steps: list[tuple[str, str, Callable[[], tuple[str, Cached]]]] = [
            ("user", f"USER {USER} ({UID}), WORKDIR {APP}", lambda: _user_layer(facts, cache, epoch, resources)),
            (
                "dependencies",
                f"dependencies in {VENV}",
                lambda: dependencies_layer(
                    recipe, facts, uv, host, settings.options, cache, work, epoch, resources, progress
                ),
            ),
            (
                "project",
                f"{recipe.name} in {APP_LIB if recipe.installable else APP}",
                lambda: project_layer(
                    recipe, facts, uv, host, cache, work, epoch, resources, progress, destination.path
                ),
            ),
        ]
        made = []
        for name, made_by, make in steps:
            start = time.monotonic()
            key, cached = make()
            used.append(key)
            made.append(_Made(name, made_by, cached, time.monotonic() - start))

        def config(diff_ids: Sequence[str]) -> bytes:
            return make_config(
                image,
                facts,
                recipe,
                [f"deadweight build: {one.made_by}" for one in made],
                diff_ids,
                _labels(settings.options),
                epoch,
                curl=base.startswith(PREFIX) and "curl" in recipe.packages,
            )

        if settings.slim:
            start = time.monotonic()
            say("looking for what can leave", 0, 0)
            diff_ids = [one.diff_id for one in image.layers] + [one.cached.record.diff_id for one in made]
            slimmed = slim_layers(image, config(diff_ids), [one.cached for one in made], 1, cache, resources, progress)
            used += [key for key, _ in slimmed]
            took_slim = time.monotonic() - start
            made = [
                replace(one, cached=cached, seconds=one.seconds + (took_slim if cached.fresh else 0.0))
                for one, (_, cached) in zip(made, slimmed, strict=True)
            ]
        new = NewImage(
            (
                *(_base_layer(one, facts, files.get(one.position)) for one in image.layers),
                *(_new_layer(one.cached, image) for one in made),
            ),
            config,
            recipe.name,
        )
        written = write_image(
            new,
            destination,
            compression=settings.compression,
            force=settings.force,
            progress=None if progress is None else lambda count: progress("writing", count, new.size),
            memory=cache.memory,
        )
        kept = trim(cache, most, used)
        notes = dict.fromkeys(
            [
                *image.notes,
                *recipe.notes,
                *_base_notes(base, recipe),
                *(n for one in made for n in one.cached.record.notes),
                *written.notes,
            ]
        )
        about: dict[str, Any] = made[1].cached.record.about
        return Built(
            written,
            tuple(_lines(image, made, written, took, fresh)),
            image.platform,
            facts.python.full_version,
            None if settings.options.target is None else gpu_names(settings.options.target.gpus),
            {name: value for name, value in about.items() if isinstance(value, int)},
            kept if settings.keep else 0,
            time.monotonic() - started,
            tuple(notes),
        )


@contextmanager
def _cache_folder(settings: Settings) -> Iterator[Path]:
    if settings.keep:
        try:
            root = settings.cache or default_folder()
        except EnvironmentFailure as error:
            raise EnvironmentFailure(f"no cache to build with: {error}; or build with --no-cache") from None
        make_folder(root)
        reason = distrust(root)
        if reason is not None:
            raise EnvironmentFailure(f"no cache to build with: {reason}; or build with --no-cache")
        yield root
        return
    with TemporaryDirectory(prefix="deadweight-build-", dir=temporary_folder()) as name:
        yield Path(name)


def _check_tag(image: Image, destination: Reference) -> None:
    """Refuses to give the result the very name that the base has in an OCI layout."""
    if destination.transport != "oci" or destination.tag != image.tag or image.reference.startswith(PREFIX):
        return
    source = parse_reference(image.reference)
    if source.transport == "oci" and os.path.realpath(source.path) == os.path.realpath(destination.path):
        raise UsageError(f"{shown(str(destination))} is the base, which never changes: choose another tag")


def check_python(recipe: Recipe, base: Base) -> None:
    """Raises BadInputError where the project does not allow the base's Python."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415

    python = base.python
    try:
        allowed = SpecifierSet(recipe.requires_python)
    except InvalidSpecifier:
        return  # which the recipe says
    if python.exact:
        fits = allowed.contains(python.full_version, prereleases=True)
    else:  # some release of that Python, and nothing tells which
        fits = holds(recipe.requires_python, int(python.version.partition(".")[2]))
    if not fits:
        known = python.full_version if python.exact else python.version
        raise BadInputError(
            f"the base has Python {known}, and the project asks for {recipe.requires_python}: take another base"
        )


def _user_layer(base: Base, cache: Cache, epoch: int, resources: ExitStack) -> tuple[str, Cached]:
    key = key_of(
        layer="user", format=FORMAT, accounts=msgspec.to_builtins(base.accounts), folders=base.folders, epoch=epoch
    )
    cached = cache.layer(key, resources)
    return key, cached or cache.make(key, lambda file: pack(user_items(base), file, epoch), resources)


def _base_layer(layer: Layer, base: Base, file: Cached | None) -> OutputLayer:
    """A layer of the base, as it is. Its size is known: a compressed one is unpacked only where it has to be."""
    if file is not None:
        return OutputLayer(
            file.record.bytes, file.blob.chunks, diff_id=layer.diff_id, file=file.blob, file_state=file.state
        )

    def chunks() -> Iterator[bytes]:
        return layer.tar.chunks()

    return OutputLayer(base.sizes[layer.position], chunks, layer, layer.compression)


def _new_layer(cached: Cached, image: Image) -> OutputLayer:
    compression = image.layers[-1].compression if image.layers else "none"
    record = cached.record
    return OutputLayer(record.bytes, cached.blob.chunks, None, compression, record.diff_id, cached.blob, cached.state)


def _labels(options: Options) -> dict[str, str]:
    return {} if options.target is None else labels(target_document(options.target))


def _base_notes(reference: str, recipe: Recipe) -> Iterator[str]:
    if not reference.startswith(PREFIX):
        wanted = [name for name in recipe.packages if name != "curl"]
        if wanted:
            yield (
                f"the base has to bring what these Debian packages hold: {', '.join(wanted)}; with debian:SUITE as a "
                "base they are installed"
            )
    if not recipe.command:
        yield "no command was found: the image runs what the base says"


def _lines(image: Image, made: list[_Made], written: Written, took: float, fresh: bool) -> Iterator[BuiltLayer]:
    rows = [("base", layer.created_by, not fresh, took if layer.position == 0 else 0.0) for layer in image.layers]
    rows += [(one.name, one.made_by, not one.cached.fresh, one.seconds) for one in made]
    for (name, made_by, cached, seconds), diff_id, size, stored in zip(
        rows, written.diff_ids, written.sizes, written.stored_sizes, strict=True
    ):
        yield BuiltLayer(name, diff_id, size, stored, cached, round(seconds, 3), made_by)
