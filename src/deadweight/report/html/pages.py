"""The pages of `inspect`, `slim` and `compare`: which sections each has, and what it says first."""

from __future__ import annotations

from deadweight.report.html import sections
from deadweight.report.html.markup import Child, Markup, joined, name, tag
from deadweight.report.html.page import page
from deadweight.report.html.tables import number, share, size, strip, table, words
from deadweight.report.model import CompareReport, InspectReport, SlimReport
from deadweight.report.tree import Tree
from deadweight.sizes import show_share, show_size


def inspect_page(report: InspectReport, tree: Tree) -> bytes:
    """The page of `inspect`."""
    stored = f"{show_size(report.stored_bytes)} as it is stored" if report.stored_bytes != report.bytes else ""
    parts = [(line.name, line.bytes, f"category-{line.name.replace(' ', '-')}") for line in report.categories]
    header = [
        tag("h1", name(report.image.reference)),
        sections.image_facts(report.image, f"{report.bytes:,} bytes", stored),
        tag(
            "div",
            sections.figure(show_size(report.bytes), f"in {_count(len(report.layers), 'layer')}"),
            [sections.figure(show_size(line.bytes), line.name) for line in report.categories[:3]],
            class_="hero",
        ),
        strip(parts),
    ]
    main: list[Child] = [
        sections.treemap(),
        sections.section("Packages", sections.owners(tree)),
        tag(
            "div",
            sections.section("Categories", _categories(report)),
            sections.section("Models", _models(report)),
            class_="columns",
        ),
        sections.section("Layers", _inspected_layers(report)),
        sections.section(
            "GPU code", sections.gpu_code(report.gpu_code, report.gpu_libraries), sections.savings(report.gpu_savings)
        ),
        sections.section("Hidden by later layers", _hidden(report)),
        sections.section("Files of no package", _unlisted(report)),
        sections.section("Notes", sections.notes(report.notes)),
    ]
    return page("where every byte is", header, main, tree)


def slim_page(report: SlimReport, tree: Tree) -> bytes:
    """The page of `slim`, or of a plan that was not applied."""
    after = report.predicted_bytes if report.after_bytes is None else report.after_bytes
    left = report.before_bytes - after
    parts = [("stays", after, "stays"), *((line.pass_, line.bytes, f"risk-{line.risk}") for line in report.passes)]
    header = [
        tag("h1", name(report.image.reference), *([" → ", name(report.after.reference)] if report.after else [])),
        sections.image_facts(
            report.image, *([f"now {report.after.digest[:19]}"] if report.after else ["not built yet"])
        ),
        tag(
            "div",
            sections.figure(show_size(report.before_bytes), "before"),
            sections.figure(show_size(after), "predicted" if report.after_bytes is None else "after"),
            sections.figure(show_share(left, report.before_bytes), f"smaller: {show_size(left)} left"),
            *_compressed(report),
            class_="hero",
        ),
        strip([part for part in parts if part[1] > 0]),
        tag("ul", [tag("li", text, class_=f"pill {kind}") for text, kind in _pills(report)], class_="pills"),
    ]
    main: list[Child] = [
        sections.treemap(),
        sections.section("Verdict", sections.verdict(report.verdict)),
        sections.section("Prediction and result", _projection(report)),
        sections.section("What left, and why", _passes(report), tag("h3", "Every cut"), id_="cuts"),
        sections.section("Packages afterwards", sections.owners(tree)),
        sections.section("Layers", _slim_layers(report)),
        sections.section("GPUs", sections.savings(report.gpu_savings)),
        sections.section("Notes", sections.notes(report.notes)),
    ]
    return page("what left, and why", header, main, tree)


def compare_page(report: CompareReport, tree: Tree) -> bytes:
    """The page of `compare`: the table of all images, and the bytes of the first beside those of the last."""
    first, last = report.images[0], report.images[-1]
    header = [
        tag("h1", name(first.reference), " → ", name(last.reference)),
        tag(
            "div",
            sections.figure(show_size(first.bytes), "before"),
            sections.figure(show_size(last.bytes), "after"),
            sections.figure(show_size(last.cumulative), f"{show_share(last.bytes, first.bytes)} of what it was"),
            class_="hero",
        ),
    ]
    main: list[Child] = [
        sections.section("Images", _phases(report)),
        sections.treemap(),
        sections.section("Packages", sections.owners(tree)),
        sections.section("Notes", sections.notes(report.notes)),
    ]
    return page("images compared", header, main, tree)


def _count(amount: int, what: str) -> str:
    return f"{amount:,} {what}{'' if amount == 1 else 's'}"


def _compressed(report: SlimReport) -> list[Markup]:
    before, after = report.compressed_before_bytes, report.compressed_after_bytes
    if before is None or after is None or (before, after) == (report.before_bytes, report.after_bytes):
        return []
    return [sections.figure(show_size(after), f"as it is stored, before {show_size(before)}")]


def _pills(report: SlimReport) -> list[tuple[str, str]]:
    found = []
    if report.after_bytes is not None:
        exact = report.after_bytes == report.predicted_bytes
        found.append(("Built as predicted, to the byte", "good") if exact else ("Not as predicted", "bad"))
    same = report.verdict.same
    if report.verdict.probes:
        words_ = {True: "Behaves the same", False: "Does not behave the same", None: "No verdict"}
        found.append((words_[same], {True: "good", False: "bad", None: "open"}[same]))
    else:
        found.append(("Not verified", "open"))
    if report.edited:
        found.append(("The plan was edited by hand", "open"))
    return found


def _projection(report: SlimReport) -> Markup:
    """What was predicted beside what was built."""
    most = max(report.before_bytes, report.predicted_bytes)
    lines = [("before", report.before_bytes), ("predicted", report.predicted_bytes)]
    if report.after_bytes is not None:
        lines.append(("built", report.after_bytes))
    rows = [(tag("th", what, scope="row"), *size(amount), share(amount, most)) for what, amount in lines]
    said = "The result has not been built."
    if report.after_bytes is not None:
        difference = report.after_bytes - report.predicted_bytes
        said = (
            f"{difference:+,} bytes between prediction and result."
            if difference
            else "The result is what was predicted, to the byte."
        )
    return joined(
        [table("Prediction and result", ["what", "#size", "#=bytes", "#share"], rows), tag("p", said, class_="note")]
    )


def _passes(report: SlimReport) -> Markup:
    left = sum(line.bytes for line in report.passes)
    rows = [
        (
            tag("th", line.pass_, scope="row"),
            words(tag("span", line.risk, class_=f"risk {line.risk}")),
            *size(line.bytes),
            share(line.bytes, report.before_bytes),
            number(line.cuts),
        )
        for line in report.passes
    ]
    total = (
        tag("th", "total", scope="row"),
        words(""),
        *size(left),
        share(left, report.before_bytes),
        number(sum(line.cuts for line in report.passes)),
    )
    return table("Passes", ["pass", "risk", "*#leaves", "#=bytes", "#of the image", "#cuts"], rows, total)


def _slim_layers(report: SlimReport) -> Markup:
    built = report.after_bytes is not None
    rows = []
    for line in report.layers:
        after = line.predicted_bytes if line.after_bytes is None else line.after_bytes
        same = "stays as it is" if line.kept or line.after_diff_id == line.diff_id else ""
        rows.append(
            (
                sections.layer_name(line.layer, line.created_by),
                *size(line.before_bytes)[:1],
                *size(after),
                share(after, line.before_bytes),
                words(same, "why"),
            )
        )
    after = sum(line.predicted_bytes if line.after_bytes is None else line.after_bytes for line in report.layers)
    total = (
        tag("th", "total", scope="row"),
        *size(report.before_bytes)[:1],
        *size(after),
        share(after, report.before_bytes),
        words(""),
    )
    headers = ["layer", "#before", "#after" if built else "#predicted", "#=bytes after", "#stays", "note"]
    return table("Layers", headers, rows, total)


def _inspected_layers(report: InspectReport) -> Markup:
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
            tag("th", name(f"/{line.folder}"), scope="row", class_="name"),
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


def _phases(report: CompareReport) -> Markup:
    rows = []
    for line in report.images:
        gap = () if line.gap is None else (tag("td", show_size(line.gap), class_="n", data_v=line.gap),)
        rows.append(
            (
                tag("th", name(line.reference), scope="row", class_="name"),
                *size(line.bytes),
                *size(line.stored_bytes)[:1],
                *size(line.difference)[:1],
                share(line.bytes, report.images[0].bytes),
                *gap,
            )
        )
    headers = ["image", "#size", "#=bytes", "#stored", "#difference", "#of the first"]
    return table("Images", [*headers, *(["#above the target"] if report.target_bytes is not None else [])], rows)
