"""Prunes a directory in place: GPU code that no declared GPU runs, symbols, leftovers, and the size of models' numbers.

    pruned = prune_tree("/usr/local/lib/python3.12/site-packages", Target((90,)))

Every file is replaced whole or not at all, after the new one was read again and checked. A file with several names
below the directory keeps them all; its names elsewhere (a package manager's cache) keep the old content. RECORD files
follow, and `deadweight-target.json` says which GPUs were kept. A second run changes nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from deadweight.binary.fixed import fixed_reason
from deadweight.binary.gpu import Target
from deadweight.binary.target_document import IN_DIRECTORY, gpu_names
from deadweight.errors import EnvironmentFailure, shown
from deadweight.files.account import LeftFile, PrunedFile
from deadweight.files.declared import check_covered, declare
from deadweight.files.pool import prepare_all
from deadweight.files.prepare import Job, Prepared
from deadweight.files.records import (
    ALGORITHMS,
    Change,
    Listed,
    add_to_journal,
    read_journal,
    read_listing,
    remove_journal,
    update_records,
)
from deadweight.files.replace import Changed, beside, changing, put_in_place, remove
from deadweight.files.smaller import Kept
from deadweight.files.tree import Inode, Tree, find_root, read_tree
from deadweight.files.weights import WeightsJob, find_weights, prepare_weights
from deadweight.ledger.reach import Reach, reach_notes

OUTSIDE: Final = "had other names outside the directory"
"""In the note on such files: whoever has put them there knows."""
Progress = Callable[[str, int, int], None]
"""Called with what is being done, and the bytes done and to be done."""


class Pruned(msgspec.Struct, frozen=True, tag_field="schema", tag="deadweight.prune/1"):
    """What was done, or in a dry run, what would be."""

    directory: str
    gpus: list[str] | None
    """As sm_90; empty for machines without a GPU, null where none was declared and GPU code stays."""
    keep_ptx: bool
    raw_blobs: bool
    recompress: bool
    symbols: bool
    """Whether symbols were to leave."""
    dry_run: bool
    before_bytes: int
    """Of all regular files in the directory, each once however many names it has."""
    after_bytes: int
    """The same less what left; RECORD files change by a few digits beside that."""
    gpu_code_bytes: int
    symbols_bytes: int
    files: list[PrunedFile]
    """What lost weight, most first."""
    left: list[LeftFile]
    """In the order of their paths."""
    notes: list[str]
    weights: str | None = None
    """What models' numbers were to become."""
    weights_bytes: int = 0
    """By which models got smaller."""
    leftovers_bytes: int = 0
    """Of what patchelf left behind in libraries."""


def prune_tree(
    directory: str | os.PathLike[str],
    target: Target | None,
    *,
    symbols: bool = True,
    weights: str | None = None,
    dry_run: bool = False,
    check_load: bool = False,
    workers: int | None = os.cpu_count(),
    progress: Progress | None = None,
) -> Pruned:
    """Prunes `directory` for a target; without one its GPU code stays. Symbolic links are never followed.

    With `weights` (fp16, bf16 or int8) the models of transformers in it are stored as smaller numbers.

    A dry run works everything out, checks it, and writes nothing. `check_load` loads each library in a fresh process
    before and after, which runs the library's own code, and follows its pointers to GPU code there. With `workers`
    above 1 and much to do, processes are started: a script must then have its own code below
    `if __name__ == "__main__"`, as for multiprocessing.

    Raises UsageError for GPUs that an earlier run did not keep; BadInputError where there is no directory;
    EnvironmentFailure where files cannot be written. What was replaced until then is whole, and the next run goes on
    from there. Nothing half-written stays, whatever is raised.
    """
    root = find_root(os.fspath(directory))
    with ExitStack() as resources:
        if not dry_run:
            _lock(root, resources)
        tree = read_tree(root)
        if target is not None:
            for path in tree.declarations:
                check_covered(path, target)
        notes = [] if dry_run else _finish_earlier(tree)
        work = _Work(tree, read_listing(tree.records, _paths(tree)), target, dry_run, weights)
        jobs = _jobs(work, symbols=symbols, check_load=check_load)
        total, done = sum(job.size for job in jobs), 0
        try:
            with closing(prepare_all(list(jobs), workers or 1)) as results:
                for job, prepared in results:
                    _take(work, jobs[job], job, prepared)
                    done += job.size
                    if progress is not None:
                        progress("pruning", done, total)
            _convert(work)
            notes += _finish(work)
        except BaseException:  # whatever ended it, a signal too: RECORD is to be true
            _finish(work)
            raise
        # Where links lead elsewhere and nothing was changed, it may be that nothing was looked at either.
        if not dry_run and (work.files or not tree.links_out):
            _declare(work)
    return _result(work, symbols, notes + _notes(work))


@dataclass
class _Work:
    """A run, and how far it has come."""

    tree: Tree
    listing: Mapping[str, list[Listed]]
    target: Target | None
    dry_run: bool
    weights: str | None = None
    declared: bool = False
    """Whether the directory says already for which GPUs it was pruned."""
    replacing: list[tuple[Change, int]] = field(default_factory=list)
    """Listed files that were to be replaced, each with the inode of the new one."""
    files: list[PrunedFile] = field(default_factory=list)
    left: list[LeftFile] = field(default_factory=list)
    outside: list[PrunedFile] = field(default_factory=list)
    """Those that have names outside the directory."""
    reach: dict[str, Reach] = field(default_factory=dict)
    """What declaring GPUs does not change, by path."""

    def relative(self, path: str) -> str:
        return os.path.relpath(path, self.tree.root)

    def leave(self, path: str, size: int, kept: Iterable[Kept]) -> None:
        self.left += [LeftFile(self.relative(path), size, each.what, each.reason) for each in kept]


def _lock(root: str, resources: ExitStack) -> None:
    """Keeps other runs out of the directory. EnvironmentFailure when there is one already."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    resources.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise EnvironmentFailure(f"{shown(root)} is being pruned already: wait until that is done") from None
    except OSError:  # a file system without locks
        return


def _paths(tree: Tree) -> set[str]:
    return {path for inode in (*tree.elf_files.values(), *tree.models.values()) for path in inode.paths}


def _finish_earlier(tree: Tree) -> list[str]:
    """Does what runs that were killed could not: removes their temporary files, and brings RECORD files up to date."""
    notes = []
    if tree.leftovers:
        remove(tree.leftovers)
        notes.append(f"{_count(len(tree.leftovers), 'temporary file')} of a run that was killed removed")
    wanted = _paths(tree)
    changes = read_journal(tree.root, wanted)
    if changes:
        update_records(read_listing(tree.records, wanted), changes)
        notes.append(f"RECORD brought up to date for {_count(len(changes), 'file')} of a run that was killed")
    remove_journal(tree.root)
    return notes


def _jobs(work: _Work, *, symbols: bool, check_load: bool) -> dict[Job, Inode]:
    """What there is to do, one job for each inode; files that must stay as they are get their reason at once."""
    for path, reason in work.tree.unreadable:
        work.leave(path, 0, [Kept("file", reason)])
    jobs = {}
    for inode in work.tree.elf_files.values():
        path = inode.paths[0]
        fixed = next(filter(None, (fixed_reason(name, os.path.lexists) for name in inode.paths)), None)
        if fixed is not None:
            work.leave(path, inode.status.st_size, [Kept("file", fixed)])
            continue
        algorithms = _stated(work, inode)
        job = Job(path, beside(path), inode.status.st_size, work.target, symbols, algorithms, work.dry_run, check_load)
        jobs[job] = inode
    return jobs


def _convert(work: _Work) -> None:
    """Stores models as smaller numbers, one file after the other."""
    if work.weights is None:
        return
    inodes = {path: inode for inode in work.tree.models.values() for path in inode.paths}
    done: set[int] = set()
    for found in find_weights(work.tree, work.weights):
        if found.reason:
            work.leave(found.path, found.size, [Kept("weights", found.reason)])
            continue
        inode = inodes[found.path]
        if id(inode) in done:  # another name of a file that was converted already
            continue
        done.add(id(inode))
        algorithms = _stated(work, inode)
        job = WeightsJob(found.path, beside(found.path), found.size, found.to, algorithms, work.dry_run)
        _take(work, inode, job, prepare_weights(job))


def _stated(work: _Work, inode: Inode) -> tuple[str, ...]:
    """The hashes of a file's old content that are asked for."""
    stated = {line.algorithm for name in inode.paths for line in work.listing.get(name, ())}
    return () if work.dry_run else tuple(sorted(stated & ALGORITHMS))


def _take(work: _Work, inode: Inode, job: Job | WeightsJob, prepared: Prepared) -> None:
    """Puts a prepared file in its place, under all its names."""
    work.leave(job.path, job.size, prepared.kept)
    if prepared.reach is not None:
        work.reach[work.relative(job.path)] = prepared.reach
    change = prepared.change
    if change is None:
        return
    if not work.dry_run and not _put(work, inode, job, prepared, change):
        work.leave(job.path, job.size, [Kept("file", "it changed while it was read")])
        return
    done = PrunedFile(
        work.relative(job.path),
        _distribution(work, job.path),
        change.before_bytes,
        change.after_bytes,
        prepared.gpu_code,
        prepared.symbols,
        [work.relative(path) for path in inode.paths if path != job.path],
        prepared.weights,
        prepared.leftovers,
    )
    work.files.append(done)
    if inode.outside > 0:
        work.outside.append(done)


def _put(work: _Work, inode: Inode, job: Job | WeightsJob, prepared: Prepared, change: Change) -> bool:
    """Replaces a file; False if it is no longer the one that was read."""
    assert prepared.read is not None  # it has changed
    try:
        if prepared.gpu_code:
            _declare(work)
        listed = [msgspec.structs.replace(change, path=path) for path in inode.paths if path in work.listing]
        if listed:
            add_to_journal(work.tree.root, listed)
            number = os.lstat(job.temporary).st_ino
            work.replacing += [(each, number) for each in listed]
        with changing(job.path):
            put_in_place(job.temporary, inode.paths, prepared.read)
    except Changed:
        return False
    except BaseException:
        remove([job.temporary])
        raise
    return True


def _declare(work: _Work) -> None:
    """Says in the directory which GPUs are kept, before the first file loses code for others."""
    if work.declared or work.target is None:
        return
    own = os.path.join(work.tree.root, IN_DIRECTORY)  # noqa: PTH118
    for path in dict.fromkeys([own, *work.tree.declarations]):
        declare(path, work.target)
    work.declared = True


def _finish(work: _Work) -> list[str]:
    """Brings RECORD files up to date with what was replaced, however the run ended."""
    changes = []
    for change, number in work.replacing:
        with suppress(OSError):
            if os.lstat(change.path).st_ino == number:
                changes.append(change)
    mismatched = update_records(work.listing, changes)
    if not work.dry_run:
        remove_journal(work.tree.root)
    files, names = _count(len(mismatched), "file"), _some(map(work.relative, mismatched))
    return [f"{files} did not match RECORD before, so it stays as it is there: {names}"] if mismatched else []


# --- what is said --------------------------------------------------------------------------------------


def _distribution(work: _Work, path: str) -> str:
    listed = work.listing.get(path)
    if listed:
        return listed[0].distribution
    folder, slash, _ = work.relative(path).partition("/")
    return folder if slash else ""


def _notes(work: _Work) -> list[str]:
    notes = list(reach_notes(work.reach))
    if work.outside:
        kept = sum(file.before_bytes for file in work.outside)
        notes.append(
            f"{_count(len(work.outside), 'file')} {OUTSIDE}, as in uv's cache: these keep the "
            f"old content, whose {kept:,} bytes are free only when they go"
        )
    if work.tree.links_out:
        notes.append(
            f"{_count(len(work.tree.links_out), 'symbolic link')} out of the directory not followed, since others use "
            "what they lead to (uv's cache, with --link-mode symlink); install with --link-mode copy to prune that: "
            f"{_some(map(work.relative, work.tree.links_out))}"
        )
    site = next((p for p in Path(work.tree.root).parents if _has_distributions(p)), None)
    if site is not None and work.files:
        notes.append(f"RECORD files outside the directory stay as they are; to keep them true, prune {site}")
    return notes


def _has_distributions(folder: Path) -> bool:
    with suppress(OSError):
        return any(path.name.endswith(".dist-info") for path in folder.iterdir())
    return False


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more:,} more" if more > 0 else "")


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _result(work: _Work, symbols: bool, notes: list[str]) -> Pruned:
    gpu_code = sum(file.gpu_code_bytes for file in work.files)
    gone = sum(file.symbols_bytes for file in work.files)
    weights = sum(file.weights_bytes for file in work.files)
    leftovers = sum(file.leftovers_bytes for file in work.files)
    target = work.target
    return Pruned(
        work.tree.root,
        None if target is None else list(gpu_names(target.gpus)),
        target is None or target.keep_ptx,
        target is not None and target.raw_blobs,
        target is not None and target.recompress,
        symbols,
        work.dry_run,
        work.tree.bytes,
        work.tree.bytes - gpu_code - gone - weights - leftovers,
        gpu_code,
        gone,
        sorted(work.files, key=lambda file: (file.after_bytes - file.before_bytes, file.path)),
        sorted(work.left, key=lambda file: (file.path, file.what)),
        notes,
        work.weights,
        weights,
        leftovers,
    )
