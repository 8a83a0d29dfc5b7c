"""Models of a live tree, stored as smaller numbers: written beside the old files, read again, and held to them.

As for programs and libraries, nothing is replaced here: what is prepared is put in its place by whoever asked for it.
Names that are links (Hugging Face's cache) are not followed.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Final, NamedTuple

from deadweight.errors import BadInputError
from deadweight.files.prepare import Prepared, digest_of, write_checked
from deadweight.files.records import Change, encode_hash
from deadweight.files.smaller import Kept
from deadweight.files.tree import Tree
from deadweight.image.bytes import ByteRange
from deadweight.image.content import Reader
from deadweight.models.check import check_converted
from deadweight.models.choose import COMPUTES, refusal
from deadweight.models.config import LIMIT, SAYS_ENOUGH, new_config
from deadweight.models.convert import NOTHING, convert
from deadweight.models.finding import CONFIG, Model, find_models
from deadweight.models.sharing import Shared, disagreeing, why_not

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_INFO: Final = re.compile(r"([^/]+)-([^-/]+)\.dist-info/RECORD\Z")


class WeightsJob(NamedTuple):
    """One file of a model, and what it is to become."""

    path: str
    temporary: str
    size: int
    to: str
    """fp16, bf16 or int8; of a configuration what it is to say, as `COMPUTES`."""
    algorithms: tuple[str, ...]
    dry_run: bool


class Found(NamedTuple):
    """A file to be converted, or one that stays, with the reason."""

    path: str
    size: int
    to: str
    reason: str = ""


class _Files:
    """The regular files of a tree that may belong to models."""

    def __init__(self, tree: Tree) -> None:
        self._sizes = {path: inode.status.st_size for inode in tree.models.values() for path in inode.paths}
        self._all = {
            path: (*inode.paths, *tree.model_links.get(key, ()))
            for key, inode in tree.models.items()
            for path in inode.paths
        }

    def names(self) -> Iterable[str]:
        return sorted(self._sizes)

    def real(self, path: str) -> str | None:
        return path if path in self._sizes else None

    def paths_of(self, path: str) -> Iterable[str]:
        """All names of a file, and links to it."""
        return self._all[path]

    def size(self, path: str) -> int:
        return self._sizes[path]

    def reader(self, path: str) -> Reader:
        def read(offset: int, length: int) -> bytes:
            with ExitStack() as resources:
                return _opened(path, resources).read_at(offset, length)

        return read


def _opened(path: str, resources: ExitStack) -> ByteRange:
    """A file to be read; of no bytes where it is none any more."""
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        raise ValueError("it cannot be read") from None
    resources.callback(os.close, fd)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it changed while it was read")
    return ByteRange(fd, 0, status.st_size)


def find_weights(tree: Tree, to: str) -> Iterator[Found]:
    """The files of a tree to be converted, configurations before weights, and those that stay."""
    versions = dict(_versions(tree.records))
    files = _Files(tree)
    try:
        models = find_models(files)
    except ValueError as error:
        yield Found(tree.root, 0, to, str(error))
        return
    found: dict[str, list[Found]] = {}
    for model in models:
        reason = refusal(model, to, versions)
        if reason is None:
            found[model.folder] = list(_of_model(files, model, to))
        elif reason:
            yield Found(model.files[0].path, sum(file.size for file in model.files), to, reason)
    paths = {folder: tuple(each.path for each in every if not each.reason) for folder, every in found.items()}
    changes = {folder: Shared(names, frozenset(names)) for folder, names in paths.items()}
    stays = disagreeing(changes, files.paths_of)
    for folder, every in found.items():
        for each in every:
            yield each._replace(reason=why_not(stays[folder])) if folder in stays and not each.reason else each


def _versions(records: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in records:
        found = _INFO.search(path)
        if found:
            yield re.sub(r"[-_.]+", "-", found[1]).lower(), found[2]


def _of_model(files: _Files, model: Model, to: str) -> Iterator[Found]:
    good = []
    for file in model.weights:
        try:
            if convert(files.reader(file.path), file.size, to).content.size < file.size:
                good.append(file)
        except ValueError as error:
            if str(error) == NOTHING:
                continue
            yield Found(file.path, file.size, to, str(error))
            if to == "int8":  # its configuration is about all of them
                return
    if not good:
        return
    path = posixpath.join(model.folder, CONFIG)
    says = "int8" if to == "int8" else COMPUTES
    try:
        new_config(files.reader(path)(0, LIMIT), says)
    except ValueError as error:
        if str(error) != SAYS_ENOUGH:
            yield Found(path, files.size(path), says, str(error))
            return
    else:
        yield Found(path, files.size(path), says)
    for file in good:
        yield Found(file.path, file.size, to)


def prepare_weights(job: WeightsJob) -> Prepared:
    """Works one file out and writes it to `temporary`, unless it stays as it is or this is a dry run.

    Raises EnvironmentFailure where it cannot be written, and leaves no file then.
    """
    with ExitStack() as resources:
        try:
            old = _opened(job.path, resources)
            status = os.fstat(old.fd)
            if old.size != job.size:
                return Prepared((Kept("weights", "it changed while it was read"),))
            is_config = posixpath.basename(job.path) == CONFIG
            if is_config:
                content = new_config(old.read_at(0, old.size), job.to)
            else:
                content = convert(old.read_at, old.size, job.to).content
                if content.size >= old.size:
                    return Prepared((Kept("weights", "it would not get smaller"),))
            sha256 = ""
            if not job.dry_run:
                check = (lambda: None) if is_config else (lambda: _check(job, old))
                sha256 = write_checked(job.path, job.temporary, old, content, check)
            before = {name: encode_hash(digest_of(old, name)) for name in job.algorithms}
        except BadInputError:
            return Prepared((Kept("weights", "it changed while it was read"),))
        except ValueError as error:
            return Prepared(() if str(error) == NOTHING else (Kept("weights", str(error)),))
    change = Change(job.path, before, old.size, sha256, content.size)
    return Prepared((), old.size, 0, 0, change, status, weights=old.size - content.size)


def _check(job: WeightsJob, old: ByteRange) -> None:
    """Holds the new file of weights to the old one."""
    with ExitStack() as resources:
        new = _opened(job.temporary, resources)
        check_converted(old.read_at, old.size, new.read_at, new.size, job.to)
