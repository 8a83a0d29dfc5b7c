"""Builds both parts of a split project, over one base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from deadweight.build.builder import Built, Settings, build_project
from deadweight.build.dependencies import Progress
from deadweight.build.recipe import Recipe
from deadweight.build.split import CORE, ML, PARTS, Split
from deadweight.errors import UsageError, shown
from deadweight.image.reference import Reference, parse_destination
from deadweight.image.transports import check_destination

PLACEHOLDER = "{part}"


def part_destinations(text: str) -> dict[str, Reference]:
    """Where each part goes: `{part}` stands for its name; an OCI layout without a tag gets both, by name.

    Raises UsageError where both would go to one place.
    """
    if PLACEHOLDER not in text:
        to = parse_destination(text)
        if to.transport != "oci" or to.tag is not None:
            raise UsageError(f"{shown(text)} is one place for two images: write {PLACEHOLDER} for the part's name")
        text = f"{text}:{PLACEHOLDER}"
    return {name: parse_destination(text.replace(PLACEHOLDER, name)) for name in PARTS}


def part_recipes(split: Split) -> dict[str, Recipe]:
    """The recipe of each part, with the Debian packages of both, so that they share one base."""
    packages = tuple(dict.fromkeys([*split.core.packages, *split.ml.packages]))
    reasons = {**split.ml.reasons, **split.core.reasons}
    return {
        name: replace(recipe, packages=packages, reasons=reasons)
        for name, recipe in ((CORE, split.core), (ML, split.ml))
    }


def build_parts(
    recipes: Mapping[str, Recipe],
    base: str,
    destinations: Mapping[str, Reference],
    settings: Settings,
    progress: Progress | None = None,
) -> dict[str, Built]:
    """Builds the parts one after the other. Raises what `build_project` raises; a part that was written stays."""
    for to in destinations.values():
        check_destination(to, force=settings.force, one_platform=settings.platform is not None)
    found: dict[str, Built] = {}
    for name, recipe in recipes.items():
        # The core has no GPU code and none of the libraries that have CPU builds.
        options = settings.options if name == ML else replace(settings.options, target=None, cpu=None)
        mine = replace(settings, options=options, refresh_base=settings.refresh_base and not found)
        found[name] = build_project(recipe, base, destinations[name], mine, _named(name, progress))
    return found


def _named(name: str, progress: Progress | None) -> Progress | None:
    if progress is None:
        return None
    return lambda doing, done, total: progress(f"{name}: {doing}", done, total)
