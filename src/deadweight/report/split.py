"""The report of `deadweight split`: what each part has, and whether the core imports what only the other has."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.text import Text

from deadweight.application.image_split import ImageSplit
from deadweight.application.import_graph import Finding, ImportCheck
from deadweight.build.split import CORE, ML, Split
from deadweight.report.tables import BOLD, Line, bytes_table, heading, paragraphs
from deadweight.report.text import plain, valid
from deadweight.sizes import show_size


class ImportLine(msgspec.Struct, frozen=True):
    """An import of a package that only inference brings."""

    path: str
    line: int
    module: str
    """The application's, which imports."""
    imports: str
    distribution: str
    when: str
    """`import`, `called`, `optional`."""
    scope: str
    """The function that it stands in; empty at the top level."""
    chain: list[str]
    text: str
    """All of it in words."""


class ImportsReport(msgspec.Struct, frozen=True):
    """Of the core's own modules."""

    entry: str
    modules: list[str]
    """Those that are imported with the entry."""
    proved: bool
    """Whether the core imports nothing that only inference brings: every module was read, and none does."""
    wrong: list[ImportLine]
    allowed: list[ImportLine]
    elsewhere: list[ImportLine]
    """In modules that the entry does not lead to."""
    unknown: dict[str, str]
    """Modules of which nothing tells what brings them, with the place."""
    unread: dict[str, str]
    dynamic: list[str]
    """Places where the name of what is imported is made up as the program goes."""


class SplitReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.split/1"):
    """The document of `deadweight split`."""

    project: str
    extra: str
    url_variable: str
    """By which the core finds the other part; empty where nothing shows it."""
    url_evidence: str
    core: list[str]
    """Distributions of the core, by canonical name."""
    ml: list[str]
    """Those that only inference brings."""
    imports: ImportsReport
    files: list[str]
    """That were written."""
    notes: list[str]


class ImageSplitReport(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.split-image/1"):
    """The document of `deadweight split` for an image. Bytes are those of the layers; maps have the largest first."""

    image: str
    """As it was named."""
    bytes: int
    named: list[str]
    """The distributions that inference begins with."""
    by: str
    """Who said so."""
    ml: dict[str, int]
    """Distributions that only inference needs, with their bytes."""
    core: dict[str, int]
    both: dict[str, int]
    other: dict[str, int]
    """Nothing that was looked at needs these."""
    core_bytes: int
    """What the image would come to without those of `ml`."""
    imports: ImportsReport | None
    """None where no application was found."""


def image_split_report(image: str, found: ImageSplit) -> ImageSplitReport:
    """The report of an image."""
    return ImageSplitReport(
        valid(image),
        found.bytes,
        list(found.named),
        valid(found.by),
        found.ml,
        found.core,
        found.both,
        found.other,
        found.core_bytes,
        None if found.check is None else imports_report(found.check),
    )


def print_image_split(console: Console, report: ImageSplitReport, top: int) -> None:
    """What each part needs, and what it would come to."""
    console.print(Text(plain(report.image), BOLD))
    console.print(f"{report.bytes:,} bytes ({show_size(report.bytes)}) in layers")
    console.print(Text(plain(f"inference begins with {', '.join(report.named)} ({report.by})", 1000)))
    parts = ((f"only {ML} needs", report.ml), ("both need", report.both), (f"only {CORE} needs", report.core))
    for title, names in (*parts, ("nothing that was looked at needs", report.other)):
        if names:
            lines = [Line(size, name) for name, size in names.items()]
            bytes_table(console, title, lines, what="distribution", top=top)
    if report.imports is not None:
        print_imports(console, report.imports)
    heading(console, "Parts")
    sizes = [f"{CORE}: {report.core_bytes:,} bytes ({show_size(report.core_bytes)}), without what only {ML} needs"]
    sizes.append(f"{ML}: {report.bytes:,} bytes ({show_size(report.bytes)}), the image as it is")
    for line in sizes:
        console.print(Text(line))


def split_report(split: Split, check: ImportCheck, files: list[str], notes: list[str]) -> SplitReport:
    """The report of a project."""
    return SplitReport(
        valid(split.core.name),
        split.extra,
        split.variable,
        valid(split.variable_evidence),
        sorted(split.core_names),
        sorted(split.ml_names),
        imports_report(check),
        [valid(file) for file in files],
        [valid(note) for note in [*split.notes, *notes]],
    )


def imports_report(check: ImportCheck) -> ImportsReport:
    """What following the imports found."""
    return ImportsReport(
        valid(check.entry),
        [valid(name) for name in check.modules],
        check.proved,
        [_line(one) for one in check.wrong],
        [_line(one) for one in check.allowed],
        [_line(one) for one in check.elsewhere],
        {valid(name): valid(place) for name, place in check.unknown.items()},
        {valid(name): why for name, why in check.unread.items()},
        [valid(place) for place in check.dynamic],
    )


def _line(one: Finding) -> ImportLine:
    return ImportLine(
        valid(one.path),
        one.line,
        valid(one.module),
        valid(one.imported),
        one.distribution,
        one.when,
        valid(one.scope),
        [valid(step) for step in one.chain],
        valid(str(one)),
    )


def print_split(console: Console, report: SplitReport) -> None:
    """The parts, and the imports."""
    console.print(Text(plain(f"{report.project}, split by the extra {report.extra}"), BOLD))
    _print_names(console, f"{CORE} has", report.core)
    _print_names(console, f"{ML} has these as well", report.ml)
    print_imports(console, report.imports)
    if report.url_variable:
        line = f"{CORE} finds {ML} by {report.url_variable} ({report.url_evidence})"
        console.print(Text(plain(line)))
    paragraphs(console, "Written", report.files)
    paragraphs(console, "Notes", report.notes)


def print_imports(console: Console, found: ImportsReport) -> None:
    """The verdict on the core's imports, with the place of each that matters."""
    heading(console, "Imports")
    console.print(Text(plain(f"{found.entry} imports {len(found.modules) - 1} modules of the project when it starts")))
    for one in found.wrong:
        console.print(Text(plain(one.text), "bold red"))
        for step in one.chain:
            console.print(Text(plain(f"    {step}")))
    for path, why in found.unread.items():
        console.print(Text(plain(f"{path}: {why}"), "bold red"))
    for one in found.allowed:
        console.print(Text(plain(one.text)))
    for name, place in found.unknown.items():
        console.print(Text(plain(f"{place} imports {name}: no distribution of the lock is known to bring it")))
    for place in found.dynamic:
        console.print(Text(plain(f"{place} imports what a name says that is made up as the program goes")))
    for one in found.elsewhere:
        console.print(Text(plain(f"{one.text} (the core does not import {one.module})")))
    if found.proved:
        console.print(Text(f"{CORE} imports nothing that only {ML} has", "bold green"))


def _print_names(console: Console, title: str, names: list[str]) -> None:
    heading(console, f"{title}: {len(names)} distributions")
    console.print(Text(plain(", ".join(names), 100_000)))
