"""Where results go: people read standard output, programs get one document, messages go to standard error."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from deadweight.errors import EnvironmentFailure, UsageError, shown

if TYPE_CHECKING:
    from msgspec import Struct
    from rich.console import Console

    from deadweight.cli.options import Documents
    from deadweight.image.model import Image
    from deadweight.image.reference import Reference
    from deadweight.plan import Plan

STANDARD = "-"


class ReaderGone(Exception):
    """Nobody reads standard output any more. Not a BrokenPipeError, of which click makes an exit with status 1."""


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Standard output, flushed at the end. Raises ReaderGone when it is a pipe that nobody reads."""
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderGone from None


def check_outputs(
    documents: Iterable[str | None], inputs: Iterable[str | None], destination: Path | None = None
) -> None:
    """Refuses, before any work, what could only fail or destroy something at the end. Raises UsageError.

    `documents` are files to write or `-`, `inputs` references and files that are read, `destination` where an image
    is written: never over a file that is read, not even by --force. An OCI layout may take another image.
    """
    files = [document for document in documents if document is not None]
    if files.count(STANDARD) > 1:
        raise UsageError("only one document can go to standard output: give a file for the others")
    taken = {os.path.realpath(path): "an input" for path in map(_path_of, inputs) if path is not None}
    if destination is not None:
        if destination.is_file() and os.path.realpath(destination) in taken:
            raise UsageError(f"{shown(str(destination))} is an input, which never changes: choose another name")
        taken[os.path.realpath(destination)] = "where the image goes"
    for name in files:
        if name == STANDARD:
            continue
        path = Path(name)
        if path.is_dir():
            raise UsageError(f"{shown(name)} is a directory; name a file in it")
        if not path.parent.is_dir():
            raise UsageError(f"there is no directory {shown(str(path.parent))} to write {shown(path.name)} to")
        real = os.path.realpath(path)
        if real in taken:
            raise UsageError(f"{shown(name)} is {taken[real]}: choose another file for this document")
        if not path.exists() or path.is_file():
            taken[real] = "another document"


def check_tag(image: Image, destination: Reference, force: bool) -> None:
    """Refuses to give the result the name that the original has in an OCI layout or, without `force`, in an engine.

    Raises UsageError.
    """
    if destination.name:
        from deadweight.image.transports import check_destination  # noqa: PLC0415
        from deadweight.image.transports.names import known_as  # noqa: PLC0415

        check_destination(destination, force=force, source_id=image.config_digest, source_name=known_as(image))
    if destination.transport != "oci" or destination.tag != image.tag:
        return
    path = _path_of(image.reference)
    if path is not None and os.path.realpath(path) == os.path.realpath(destination.path):
        raise UsageError(f"{shown(str(destination))} is the original, which never changes: choose another tag")


def _path_of(reference: str | None) -> Path | None:
    """The file that a reference reads, where there is one."""
    if reference is None or "\0" in reference:
        return None
    rest = reference.partition(":")[2]
    return next(
        (Path(text) for text in (reference, rest, rest.partition(":")[0]) if text and Path(text).exists()), None
    )


def write_document(name: str, document: bytes) -> None:
    """Writes a document to standard output (`-`) or to a file, which is complete or absent, and replaced."""
    if name == STANDARD:
        with standard_output() as out:
            out.buffer.write(document)
        return
    path = Path(os.path.realpath(name))
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_bytes(document)  # a pipe, or /dev/stdout
            return
        _replace(path, document)
    except OSError as error:
        raise EnvironmentFailure(f"cannot write {shown(name)}: {error.strerror}") from None


def _replace(path: Path, document: bytes) -> None:
    descriptor, beside = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(document)
            mask = os.umask(0)
            os.umask(mask)
            os.fchmod(file.fileno(), 0o666 & ~mask)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def deliver(
    report: Struct,
    documents: Documents,
    render: Callable[[Console], None],
    *,
    quiet: bool = False,
    **makers: Callable[[], bytes],
) -> None:
    """Hands a report over: as the documents that were asked for, and for people unless one has standard output.

    `makers` make the documents of forms that take more than the report.
    """
    makers = {"json": lambda: _json(report), "markdown": lambda: _markdown(report), **makers}
    for form, name in documents.items():
        if name is not None:
            write_document(name, makers[form]())
    if STANDARD not in documents.values() and not quiet:
        show_report(render)


def _json(report: Struct) -> bytes:
    from deadweight.report.model import encode  # noqa: PLC0415

    return encode(report)


def _markdown(report: Struct) -> bytes:
    from deadweight.report.markdown import markdown  # noqa: PLC0415

    return markdown(report)


def show_report(render: Callable[[Console], None]) -> None:
    """Shows people what `render` prints."""
    from deadweight.report.terminal import show  # noqa: PLC0415

    with standard_output() as out:
        show(out, os.environ, render)


def announce_plan(plan: Plan, edited: bool) -> None:
    """Says, before anything is written, what a plan edited by hand comes to."""
    if edited:
        message(
            f"the plan was edited by hand; worked out again, it takes {plan.before_bytes:,} bytes to "
            f"{plan.predicted_bytes:,}"
        )


def message(text: str) -> None:
    """A line for people, on standard error."""
    from deadweight.report.text import plain  # noqa: PLC0415

    click.echo(f"deadweight: {plain(text)}", err=True)
