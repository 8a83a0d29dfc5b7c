"""Sections of the page that several reports have: the tree's owners, GPU code, layers, the verdict, notes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.resources import files

from deadweight.report.gpu_code import runs_on
from deadweight.report.html.markup import Child, Markup, joined, name, tag
from deadweight.report.html.tables import share, size, table, words
from deadweight.report.model import GpuLibraryLine, GpuLine, ImageLine, SavingLine
from deadweight.report.terminal import command
from deadweight.report.tree_model import Tree
from deadweight.report.verdict import WORDS, conclusion
from deadweight.sizes import show_size
from deadweight.verify.model import Verdict

KINDS = {
    "python": "Python",
    "debian": "Debian",
    "interpreter": "interpreter",
    "application": "application",
    "system": "no package",
    "hidden": "hidden",
    "framing": "tar",
}


def asset(file: str) -> str:
    """A part of the page, as it is in assets/."""
    return (files(__package__) / "assets" / file).read_text("utf-8")


def section(title: str, *content: Child, id_: str | None = None) -> Markup:
    """A section with its heading; nothing where it would be empty."""
    inside = joined(content)
    return tag("section", tag("h2", title), inside, id=id_) if inside else Markup()


def image_facts(image: ImageLine, *more: str) -> Markup:
    """What is said of an image below its name."""
    facts = [tag("code", image.digest[:19]), name(image.platform), *more]
    return tag("ul", (tag("li", fact) for fact in facts if fact), class_="facts")


def figure(big: str, what: str, kind: str | None = None) -> Markup:
    """A number to begin with."""
    return tag(
        "div", tag("span", big, class_=f"big {kind or ''}".rstrip()), tag("span", what, class_="what"), class_="figure"
    )


def treemap(tree: Tree) -> Markup:
    """Where the treemap and all that goes with it are put, and what it leaves out."""
    said = []
    if tree.folded:
        said.append(f"{tree.folded:,} of the smallest parts of files are shown with the directories that they lie in.")
    if tree.cuts_left_out:
        said.append(f"{tree.cuts_left_out:,} cuts that save the least are not listed one by one.")
    return joined([Markup(asset("map.html")), [tag("p", line, class_="note") for line in said]])


def owners(tree: Tree) -> Markup:
    """Whose the bytes are, and why they are there; with what is left of them where there are two sides."""
    two = tree.after_bytes is not None
    headers = [
        "package",
        "kind",
        *(["#before", "*#after", "#=bytes after"] if two else ["*#size", "#=bytes"]),
        "#share after" if two else "#share",
    ]
    rows = []
    for owner in sorted(tree.owners, key=lambda one: -(one.bytes if one.after_bytes is None else one.after_bytes)):
        old, new = owner.version, owner.after_version
        version = f"{old} → {new}" if two and old and new and old != new else old or new
        amount = owner.bytes if owner.after_bytes is None else owner.after_bytes
        rows.append(
            (
                tag(
                    "th", name(owner.name), " ", tag("span", name(version), class_="exact"), scope="row", class_="name"
                ),
                words(KINDS.get(owner.kind, owner.kind)),
                *(size(owner.bytes)[:1] if two else ()),
                *size(amount),
                share(amount, tree.bytes if tree.after_bytes is None else tree.after_bytes),
                words(name(owner.why), "why"),
            )
        )
    whole = tree.bytes if tree.after_bytes is None else tree.after_bytes
    before = size(tree.bytes)[:1] if two else ()
    total = (tag("th", "total", scope="row"), words(""), *before, *size(whole), words(""), words(""))
    return table("Packages", [*headers, "why it is there"], rows, total)


def gpu_code(lines: Sequence[GpuLine], libraries: Sequence[GpuLibraryLine]) -> Markup:
    """GPU code by architecture and by library."""
    if not lines:
        return Markup()
    whole = sum(line.bytes for line in lines)
    by_arch = [
        (
            tag("th", line.arch, scope="row"),
            *size(line.bytes),
            share(line.bytes, whole),
            words(", ".join(line.products) or runs_on(line), "why"),
        )
        for line in lines
    ]
    by_library = [
        (
            tag("th", name(line.path), scope="row", class_="name"),
            words(name(line.owner)),
            *size(line.bytes),
            share(line.bytes, whole),
            words(", ".join(f"{arch} {show_size(part)}" for arch, part in line.by_arch.items()), "why"),
        )
        for line in libraries
    ]
    total = (tag("th", "total", scope="row"), *size(whole), words(""), words(""))
    return joined(
        [
            table(
                "GPU code by architecture",
                ["architecture", "*#size", "#=bytes", "#share", "GPUs, or what it is"],
                by_arch,
                total,
            ),
            tag("h3", "By library"),
            table(
                "GPU code by library",
                ["library", "package", "*#size", "#=bytes", "#share", "architectures"],
                by_library,
            ),
        ]
    )


def savings(lines: Sequence[SavingLine]) -> Markup:
    """What declaring a GPU would take out."""
    if not lines:
        return Markup()
    rows = [
        (
            tag("th", tag("code", f"--gpu {line.gpu}"), scope="row"),
            *size(line.ptx_kept),
            *size(line.ptx_dropped),
            words(", ".join(line.products) or "machines without a GPU", "why"),
        )
        for line in lines
    ]
    headers = ["declared", "#PTX kept", "#=bytes", "#PTX dropped", "#=bytes", "GPUs"]
    return joined([tag("h3", "What declaring a GPU would save, about"), table("Savings by GPU", headers, rows)])


def layer_name(position: int, created_by: str) -> Markup:
    """A row's header: the layer's number and the command that made it."""
    return tag("th", f"{position + 1}: ", name(command(created_by), 300), scope="row", class_="name")


def verdict(found: Verdict) -> Markup:
    """What comparing two images, or looking at one, came to: every probe, what differs first."""
    if not found.probes:
        return Markup()
    rows = []
    for probe in sorted(found.probes, key=lambda one: one.ok):
        kind = "open" if probe.outcome == "no answer" else "good" if probe.ok else "bad"
        details = [*probe.details[:10], *probe.notes]
        rows.append(
            (
                tag("th", name(probe.name), scope="row", class_="name"),
                words(tag("strong", WORDS[probe.outcome], class_=kind)),
                words(name(probe.before or ""), "why"),
                words(name(probe.after), "why"),
                tag("td", f"{(probe.before_seconds or 0) + probe.after_seconds:.1f}", class_="n"),
                words(joined(tag("div", name(note, 400)) for note in details), "why"),
            )
        )
    said = tag("p", conclusion(found), class_=_VERDICT[found.same])
    headers = ["probe", "outcome", "before", "after", "#seconds", "details"]
    return joined([said, table("Probes", headers, rows), notes(found.notes)])


_VERDICT = {True: "good", False: "bad", None: "open"}


def notes(lines: Iterable[str]) -> Markup:
    """Notes, each a line."""
    items = [tag("li", name(line)) for line in lines]
    return tag("ul", items, class_="notes") if items else Markup()
