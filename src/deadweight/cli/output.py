"""Where results go: people read standard output, programs get one document, messages go to standard error."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
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
_OPEN_FILES = re.compile(r"/dev/fd|/proc/(?:self|thread-self|\d+(?:/task/\d+)?)/fd")
"""Where the names of open files are: of /dev/stdout, and of what a shell puts in the place of >(command)."""


class ReaderGone(Exception):
    """Nobody reads standard output any more. Not a BrokenPipeError, of which click makes an exit with status 1."""


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """Standard output, flushed at the end. Raises ReaderGone when it is a pipe that nobody reads.

    And EnvironmentFailure when whoever started us closed it.
    """
    if sys.stdout is None:
        raise EnvironmentFailure("standard output is closed: give a file for what is to be written")
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
    if sum(map(is_standard, files)) > 1:
        raise UsageError("only one document can go to standard output: give a file for the others")
    taken = {os.path.realpath(path): "an input" for path in map(_path_of, inputs) if path is not None}
    if destination is not None:
        if destination.is_file() and os.path.realpath(destination) in taken:
            raise UsageError(f"{shown(str(destination))} is an input, which never changes: choose another name")
        taken[os.path.realpath(destination)] = "where the image goes"
    for name in files:
        if is_standard(name):
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


def check_tag(image: Image, destination: Reference, force: bool, platform: str | None) -> None:
    """Refuses to give the result the name that the original has in an OCI layout or, without `force`, in an engine.

    `platform` is the one that the user named. Raises UsageError.
    """
    if destination.name:
        from deadweight.image.transports import check_destination  # noqa: PLC0415

        check_destination(
            destination,
            force=force,
            source_id=image.config_digest,
            source_name=image.name,
            one_platform=platform is not None,
        )
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


def is_standard(name: str | None) -> bool:
    """Whether a document's name is that of standard output: `-`, or /dev/stdout and the like."""
    return name == STANDARD or (name is not None and _open_file(name) == "1")


def becomes_file(name: str) -> bool:
    """Whether a document by this name is a file of its own, in the place of one that is there.

    Not `-`, and not what is written into: pipes, devices, and files that are open already, as /dev/stdout.
    """
    path = Path(name)
    return name != STANDARD and _open_file(name) is None and (not path.exists() or path.is_file())


def _open_file(name: str) -> str | None:
    """The number of the open file that a name leads to, which is not followed further; None of any other name."""
    path = Path(os.path.normpath(Path(name).absolute()))
    for _ in range(40):
        if _OPEN_FILES.fullmatch(str(path.parent)):
            return path.name
        if not path.is_symlink():
            return None
        path = Path(os.path.normpath(path.parent / path.readlink()))
    return None


def write_document(name: str, document: bytes) -> None:
    """Writes a document to standard output (`-`) or to a file, which is complete or absent, and replaced.

    Pipes and devices are written to, and so are files that are open already, at their end.
    """
    if is_standard(name):
        with standard_output() as out:
            out.buffer.write(document)
        return
    path = Path(name)
    try:
        if becomes_file(name):
            _replace(Path(os.path.realpath(name)), document)
            return
        with path.open("ab" if path.is_file() else "wb") as file:
            file.write(document)
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        raise EnvironmentFailure(f"cannot write {shown(name)}: {error.strerror}") from None


def _replace(path: Path, document: bytes) -> None:
    """Puts a file in the place of `path`, with the owner and mode of what is there."""
    there = path.stat() if path.exists() else None
    descriptor, beside = tempfile.mkstemp(prefix=".deadweight-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(document)
            mask = os.umask(0)
            os.umask(mask)
            if there is not None and os.geteuid() == 0:
                os.fchown(file.fileno(), there.st_uid, there.st_gid)
            os.fchmod(file.fileno(), 0o666 & ~mask if there is None else there.st_mode & 0o777)
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

    `makers` make the documents of forms that take more than the report. One that cannot be delivered does not keep
    the others from it: its error is raised when all is done.
    """
    makers = {"json": lambda: _json(report), "markdown": lambda: _markdown(report), **makers}
    wanted = sorted(((form, name) for form, name in documents.items() if name is not None), key=_last_is_standard)
    steps = [partial(_make_and_write, name, makers[form]) for form, name in wanted]
    if not quiet and not any(map(is_standard, documents.values())):
        steps.append(partial(show_report, render))
    failures: list[Exception] = []
    for step in steps:
        try:
            step()
        except Exception as error:  # raised below
            failures.append(error)
    for another in failures[1:]:
        message(f"error: {another}" if str(another) else "error: nobody reads the output")
    if failures:
        raise failures[0]


def _last_is_standard(wanted: tuple[str, str]) -> bool:
    """Orders documents: files first, since who reads standard output may stop."""
    return is_standard(wanted[1])


def _make_and_write(name: str, maker: Callable[[], bytes]) -> None:
    write_document(name, maker())


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
