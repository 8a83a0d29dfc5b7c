"""The page of `inspect`: where every byte of an image is."""

from __future__ import annotations

from deadweight.report.html import sections
from deadweight.report.html.markup import Child, Markup, name, tag
from deadweight.report.html.page import page
from deadweight.report.html.tables import number, share, size, strip, table, words
from deadweight.report.model import InspectReport
from deadweight.report.tree_model import Tree
from deadweight.sizes import show_size


def inspect_page(report: InspectReport, tree: Tree) -> bytes:
    """The page of `inspect`."""
    stored = f"{show_size(report.stored_bytes)} as it is stored" if report.stored_bytes != report.bytes else ""
    parts = [(line.name, line.bytes, f"category-{line.name.replace(' ', '-')}") for line in report.categories]
    layers = f"in {len(report.layers):,} layer{'' if len(report.layers) == 1 else 's'}"
    header = [
        tag("h1", name(report.image.reference)),
        sections.image_facts(report.image, f"{report.bytes:,} bytes", stored),
        tag(
            "div",
            sections.figure(show_size(report.bytes), layers),
            [sections.figure(show_size(line.bytes), line.name) for line in report.categories[:3]],
            class_="hero",
        ),
        strip(parts),
    ]
    main: list[Child] = [
        sections.treemap(tree),
        sections.section("Packages", sections.owners(tree)),
        tag(
            "div",
            sections.section("Categories", _categories(report)),
            sections.section("Models", _models(report)),
            class_="columns",
        ),
        sections.section("Layers", _layers(report)),
        sections.section(
            "GPU code", sections.gpu_code(report.gpu_code, report.gpu_libraries), sections.savings(report.gpu_savings)
        ),
        sections.section("Hidden by later layers", _hidden(report)),
        sections.section("Files of no package", _unlisted(report)),
        sections.section("Notes", sections.notes(report.notes)),
    ]
    return page("where every byte is", header, main, tree)


def _layers(report: InspectReport) -> Markup:
    rows = [
        (
            sections.layer_name(line.layer, line.created_by),
            *size(line.bytes),
            share(line.bytes, report.bytes),
            number(line.entries),
            *size(line.hidden_bytes)[:1],
            words(name(", ".join(f"{part.name} {show_size(part.bytes)}" for part in line.owners[:4])), "why"),
        )
        for line in report.layers
    ]
    total = (
        tag("th", "total", scope="row"),
        *size(report.bytes),
        share(report.bytes, report.bytes),
        number(sum(line.entries for line in report.layers)),
        *size(report.hidden_bytes)[:1],
        words(""),
    )
    return table("Layers", ["layer", "#size", "#=bytes", "#share", "#entries", "#hidden", "mostly"], rows, total)


def _categories(report: InspectReport) -> Markup:
    rows = [
        (tag("th", line.name, scope="row"), *size(line.bytes), share(line.bytes, report.bytes))
        for line in report.categories
    ]
    total = (tag("th", "total", scope="row"), *size(report.bytes), share(report.bytes, report.bytes))
    return table("Categories", ["category", "*#size", "#=bytes", "#share"], rows, total)


def _models(report: InspectReport) -> Markup:
    if not report.models:
        return Markup()
    rows = [
        (
            tag("th", name(line.folder), scope="row", class_="name"),
            words(line.format),
            *size(line.bytes),
            words(", ".join(f"{count:,} {kind}" for kind, count in line.dtypes.items()), "why"),
        )
        for line in report.models
    ]
    return table("Models", ["folder", "format", "*#size", "#=bytes", "numbers"], rows)


def _hidden(report: InspectReport) -> Markup:
    if not report.hidden:
        return Markup()
    rows = [
        (
            tag("th", name(line.path), scope="row", class_="name"),
            number(line.layer + 1),
            *size(line.bytes),
            number(line.entries),
            number(line.overwritten),
        )
        for line in report.hidden
    ]
    total = (tag("th", "total", scope="row"), words(""), *size(report.hidden_bytes), words(""), words(""))
    headers = ["directory", "#layer", "*#size", "#=bytes", "#entries", "#overwritten"]
    return table("Hidden bytes", headers, rows, total)


def _unlisted(report: InspectReport) -> Markup:
    if not report.unlisted:
        return Markup()
    whole = sum(line.bytes for line in report.unlisted)
    rows = [
        (
            tag("th", name(line.path), scope="row", class_="name"),
            *size(line.bytes),
            share(line.bytes, whole),
            number(line.files),
        )
        for line in report.unlisted
    ]
    total = (tag("th", "total", scope="row"), *size(whole), words(""), words(""))
    return table("Files of no package", ["directory", "*#size", "#=bytes", "#share", "#files"], rows, total)
