"""The report of `deadweight build`: which layers, how large, which of them were there already, and how long it took."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from rich.console import Console
from rich.text import Text

from deadweight.build.builder import Built, BuiltLayer
from deadweight.build.recipe import Recipe
from deadweight.image.reference import Reference
from deadweight.report.model import ImageLine
from deadweight.report.tables import BOLD, heading, new_table, paragraphs
from deadweight.report.text import plain, valid
from deadweight.sizes import show_size


class BuildReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.build/1"):
    """The document of `deadweight build`. The layers' bytes add up to `bytes`."""

    project: str
    """Its name."""
    extras: list[str]
    base: str
    """As it was named."""
    python: str
    """The base's, as 3.11.2."""
    image: ImageLine
    gpus: list[str] | None
    """As sm_90; empty for machines without a GPU, null where none was declared and GPU code stays."""
    bytes: int
    """Of the layers' uncompressed tars."""
    stored_bytes: int
    """Of the blobs as they were stored."""
    layers: list[BuiltLayer]
    distributions: int | None
    """How many were installed beside the project; null where that layer holds none."""
    pruned_bytes: int
    """That left the dependencies."""
    cache_bytes: int
    """Of layers in the cache afterwards."""
    seconds: float
    notes: list[str]


class PartReport(msgspec.Struct, frozen=True):
    """One part of a project that was built as several."""

    part: str
    """`api-core` or `ml-inference`."""
    build: BuildReport


class SplitBuildReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.build-split/1"):
    """The document of `deadweight build --split`."""

    project: str
    extra: str
    """That the inference part has, and the core has not."""
    parts: list[PartReport]
    shared_bytes: int
    """Of the layers that are in every part, which a store has once."""
    bytes: int
    """Of all layers, each counted once."""


def split_build_report(
    extra: str,
    recipes: Mapping[str, Recipe],
    base: str,
    places: Mapping[str, Reference],
    built: Mapping[str, Built],
) -> SplitBuildReport:
    """The report of the parts that were built."""
    parts = [PartReport(name, build_report(recipes[name], base, places[name], one)) for name, one in built.items()]
    layers = [{layer.diff_id: layer.bytes for layer in part.build.layers} for part in parts]
    shared = set(layers[0]).intersection(*layers)
    together = {diff_id: size for one in layers for diff_id, size in one.items()}
    return SplitBuildReport(
        parts[0].build.project,
        extra,
        parts,
        sum(together[diff_id] for diff_id in shared),
        sum(together.values()),
    )


def print_parts(console: Console, report: SplitBuildReport) -> None:
    """What was built, part by part."""
    for part in report.parts:
        console.print(Text(part.part, BOLD))
        print_build(console, part.build)
        console.print()
    heading(console, "Together")
    sizes = ", ".join(f"{part.part} {show_size(part.build.bytes)}" for part in report.parts)
    line = f"{sizes}; {show_size(report.shared_bytes)} are in both, so it is {report.bytes:,} bytes"
    console.print(Text(f"{line} ({show_size(report.bytes)}) in all"))


def build_report(recipe: Recipe, base: str, to: Reference, built: Built) -> BuildReport:
    """The report of an image that was built at `to`."""
    written, savings = built.written, built.savings
    return BuildReport(
        project=valid(recipe.name),
        extras=list(recipe.extras),
        base=valid(base),
        python=built.python,
        image=ImageLine(
            reference=valid(str(to)),
            digest=written.config_digest,
            platform=valid(built.platform),
            tag=to.tag,
            manifest_digest=written.manifest_digest,
        ),
        gpus=None if built.gpus is None else list(built.gpus),
        bytes=sum(written.sizes),
        stored_bytes=sum(written.stored_sizes),
        layers=[msgspec.structs.replace(layer, created_by=valid(layer.created_by)) for layer in built.layers],
        distributions=savings.get("distributions"),
        pruned_bytes=savings.get("before_bytes", 0) - savings.get("after_bytes", 0),
        cache_bytes=built.cache_bytes,
        seconds=round(built.seconds, 3),
        notes=[valid(note) for note in built.notes],
    )


def print_build(console: Console, report: BuildReport) -> None:
    """What was built, layer by layer."""
    console.print(Text(plain(report.image.reference), BOLD))
    console.print(report.image.digest)
    extras = f"[{','.join(report.extras)}]" if report.extras else ""
    line = f"{report.project}{extras} on {report.base}, Python {report.python}, {report.image.platform}"
    console.print(Text(plain(line)))
    console.print(f"{report.bytes:,} bytes ({show_size(report.bytes)}) in layers, {report.seconds:.1f} s")
    if report.distributions is not None:
        line = f"{report.distributions:,} distributions"
        if report.pruned_bytes:
            line += f", {report.pruned_bytes:,} bytes ({show_size(report.pruned_bytes)}) pruned"
        console.print(line)
    heading(console, "Layers")
    table = new_table()
    for header in ("bytes", "size", "seconds"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("layer")
    for layer in report.layers:
        state = "cached" if layer.cached else "made"
        row = (f"{layer.bytes:,}", show_size(layer.bytes), f"{layer.seconds:.1f}", state, plain(layer.created_by, 300))
        table.add_row(*map(Text, row))
    table.add_section()
    table.add_row(f"{report.bytes:,}", show_size(report.bytes), f"{report.seconds:.1f}", "", "total", style=BOLD)
    console.print(table)
    paragraphs(console, "Notes", report.notes)
