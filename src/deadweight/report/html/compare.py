"""The page of `compare`: images one after the other, and what changed from each to the next."""

from __future__ import annotations

from collections.abc import Sequence

from deadweight.report.html import sections
from deadweight.report.html.markup import Child, Markup, joined, name, tag
from deadweight.report.html.page import page
from deadweight.report.html.tables import Cells, growth, share, size, table, words
from deadweight.report.model import BytesChange, CompareReport, ImageChange
from deadweight.report.tree_model import Tree
from deadweight.sizes import show_share, show_size


def compare_page(report: CompareReport, tree: Tree) -> bytes:
    """The page of `compare`: the table of all images, and the bytes of the first beside those of the last."""
    first, last = report.images[0], report.images[-1]
    header = [
        tag("h1", name(first.reference), " → ", name(last.reference)),
        tag(
            "div",
            sections.figure(show_size(first.bytes), "before"),
            sections.figure(show_size(last.bytes), "after"),
            sections.figure(_signed(last.cumulative), f"{show_share(last.bytes, first.bytes)} of what it was"),
            class_="hero",
        ),
    ]
    main: list[Child] = [
        sections.treemap(tree),
        sections.section("Images", _phases(report)),
        *_changes(report),
        sections.section("Packages", sections.owners(tree)),
        sections.section("Notes", sections.notes(report.notes)),
    ]
    return page("images compared", header, main, tree)


def _signed(difference: int) -> str:
    return f"{'+' if difference > 0 else ''}{show_size(difference)}"


def _phases(report: CompareReport) -> Markup:
    rows = []
    for line in report.images:
        gap = () if line.gap is None else (tag("td", show_size(line.gap), class_="n", data_v=line.gap),)
        rows.append(
            (
                tag("th", name(line.reference), scope="row", class_="name"),
                *size(line.bytes),
                *size(line.stored_bytes)[:1],
                *growth(line.difference)[:1],
                share(line.bytes, report.images[0].bytes),
                *gap,
            )
        )
    headers = ["image", "#size", "#=bytes", "#stored", "#difference", "#of the first"]
    return table("Images", [*headers, *(["#above the target"] if report.target_bytes is not None else [])], rows)


def _changes(report: CompareReport) -> list[Markup]:
    """What changed from each image to the next: packages, categories, GPU code, layers."""
    made = []
    for change in report.changes:
        step = f" from image {change.before + 1} to {change.after + 1}" if len(report.changes) > 1 else ""
        made.append(
            sections.section(
                f"What changed{step}",
                _owners(change, step),
                tag("h3", "Categories"),
                _kinds(f"Categories{step}", change.categories),
                [tag("h3", "GPU code"), _kinds(f"GPU code{step}", change.gpu_code)] if change.gpu_code else "",
                _layers(change, step),
            )
        )
    return made


def _owners(change: ImageChange, step: str) -> Markup:
    rows = [
        (
            tag("th", name(one.name), scope="row", class_="name"),
            words(sections.KINDS.get(one.kind, one.kind)),
            words(tag("span", one.change, class_=f"change {one.change}")),
            words(name(_versions(one.before_version, one.after_version)), "why"),
            *_difference(one.before_bytes, one.after_bytes),
        )
        for one in change.owners
    ]
    same = (
        tag("th", f"as before ({change.unchanged:,})", scope="row"),
        words(""),
        words(""),
        words(""),
        *_difference(change.unchanged_bytes, change.unchanged_bytes),
    )
    total = (
        tag("th", "total", scope="row"),
        words(""),
        words(""),
        words(""),
        *_difference(change.before_bytes, change.after_bytes),
    )
    headers = ["package", "kind", "change", "version", *_DIFFERENCE]
    return table(f"Packages that changed{step}", headers, [*rows, same], total)


def _kinds(caption: str, lines: Sequence[BytesChange]) -> Markup:
    rows = [(tag("th", one.name, scope="row"), *_difference(one.before_bytes, one.after_bytes)) for one in lines]
    before, after = sum(one.before_bytes for one in lines), sum(one.after_bytes for one in lines)
    total = (tag("th", "total", scope="row"), *_difference(before, after))
    return table(caption, ["what", *_DIFFERENCE], rows, total)


def _layers(change: ImageChange, step: str) -> Markup:
    """Layers that only one of them has."""
    rows = [
        (
            sections.layer_name(one.layer, one.created_by),
            words(tag("span", kind, class_=f"change {kind}")),
            *size(one.bytes),
        )
        for kind, layers in (("removed", change.layers_gone), ("added", change.layers_new))
        for one in layers
    ]
    said = f"Layers that are in both, which a registry stores once: {change.shared_layers:,}"
    said += f", {show_size(change.shared_bytes)}." if change.shared_layers else "."
    shared = tag("p", said, class_="note")
    if not rows:
        return shared
    return joined(
        [
            tag("h3", "Layers"),
            table(f"Layers of one of them{step}", ["layer", "change", "#size", "#=bytes"], rows),
            shared,
        ]
    )


_DIFFERENCE = ("#before", "#after", "#difference", "#=bytes")


def _difference(before: int, after: int) -> Cells:
    return (*size(before)[:1], *size(after)[:1], *growth(after - before))


def _versions(before: str, after: str) -> str:
    return f"{before} → {after}" if before and after and before != after else before or after
