"""The work on one file of a live tree: reads it, writes the smaller one beside it, and checks that.

This runs in processes of their own, so everything here is passed by value. Nothing is replaced here: a prepared file
is put in its place by whoever asked for it, or removed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from deadweight.binary.gpu import Target
from deadweight.binary.loadcheck import LoadError, check_load
from deadweight.errors import BadInputError
from deadweight.files.records import Change, encode_hash
from deadweight.files.replace import changing, remove, write_new
from deadweight.files.smaller import CheckFailed, Kept, Smaller, check_rewritten, make_smaller
from deadweight.image.bytes import ByteRange
from deadweight.image.content import Content
from deadweight.ledger.reach import Reach

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Job(NamedTuple):
    """One file, and what is to be done."""

    path: str
    temporary: str
    """Where the new file goes: a name that is free, in the same directory."""
    size: int
    """Bytes of the file, as it was found."""
    target: Target | None
    symbols: bool
    algorithms: tuple[str, ...]
    """The hashes of the old content that are asked for."""
    dry_run: bool
    """Everything is worked out and checked, and nothing written."""
    check_load: bool


class Prepared(NamedTuple):
    """What became of it. Sizes are bytes."""

    kept: tuple[Kept, ...]
    before: int = 0
    gpu_code: int = 0
    symbols: int = 0
    change: Change | None = None
    """None if the file stays as it is."""
    read: os.stat_result | None = None
    """The old file's, when it was opened."""
    reach: Reach | None = None
    """What declaring GPUs does not change in it."""
    weights: int = 0
    """Bytes by which a model's numbers got smaller."""
    leftovers: int = 0
    """Bytes that patchelf left behind."""


def prepare(job: Job) -> Prepared:
    """Works one file out and writes it to `temporary`, unless it stays as it is or this is a dry run.

    Raises EnvironmentFailure where it cannot be written, and leaves no file then.
    """
    with ExitStack() as resources:
        try:
            fd = os.open(job.path, _FLAGS)
            resources.callback(os.close, fd)
            status = os.fstat(fd)
            old = ByteRange(fd, 0, status.st_size)
            if not stat.S_ISREG(status.st_mode) or status.st_size != job.size:
                return Prepared((Kept("file", "it changed while it was read"),))
            smaller = make_smaller(old.read_at, old.size, job.target, symbols=job.symbols)
            content = smaller.content
            if content is None:
                return Prepared(smaller.kept, reach=smaller.reach)
            if job.dry_run:
                check_rewritten(old.read_at, smaller, content.reader(old.read_at), content.size, job.target)
                sha256 = ""
            else:
                sha256 = write_checked(job.path, job.temporary, old, content, lambda: _check(job, old, smaller))
            before = {name: encode_hash(digest_of(old, name)) for name in job.algorithms}
        except CheckFailed as error:
            return Prepared((Kept("file", str(error)),))
        except BadInputError:
            return Prepared((Kept("file", "it changed while it was read"),))
        except OSError as error:
            return Prepared((Kept("file", f"cannot be read: {error.strerror}"),))
        change = Change(job.path, before, old.size, sha256, content.size)
        sizes = old.size, smaller.gpu_code, smaller.symbols
        return Prepared(smaller.kept, *sizes, change, status, smaller.reach, leftovers=smaller.leftovers)


def write_checked(path: str, temporary: str, old: ByteRange, content: Content, check: Callable[[], None]) -> str:
    """Writes new content for the file at `path` to `temporary`, and has `check` read it again.

    Gives its sha256 as RECORD has it. Raises what `check` raises; then nothing stays behind.
    """
    digest = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        for chunk in content.chunks(old):
            digest.update(chunk)
            yield chunk

    with changing(path):
        write_new(temporary, chunks(), old.fd)
    try:
        check()
    except BaseException:
        remove([temporary])
        raise
    return encode_hash(digest.digest())


def _check(job: Job, old: ByteRange, smaller: Smaller) -> None:
    fd = os.open(job.temporary, _FLAGS)
    try:
        new = ByteRange(fd, 0, os.fstat(fd).st_size)
        check_rewritten(old.read_at, smaller, new.read_at, new.size, job.target)
    finally:
        os.close(fd)
    if job.check_load:
        try:
            check_load(Path(job.temporary), Path(job.path))
        except LoadError as error:
            raise CheckFailed(f"the rewritten file did not pass its check: {error}") from error


def digest_of(content: ByteRange, algorithm: str) -> bytes:
    """A hash of all of a content, by its name in hashlib."""
    digest = hashlib.new(algorithm)
    for chunk in content.chunks():
        digest.update(chunk)
    return digest.digest()
