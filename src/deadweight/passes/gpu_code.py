"""GPU code for GPUs that the deployment does not have, in the shared libraries and programs of CUDA."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from deadweight.binary.gpu import Target
from deadweight.binary.shrink import NOTHING, shrink_gpu_code
from deadweight.binary.shrink_check import check_shrunk
from deadweight.binary.target_document import gpu_names, in_words
from deadweight.cache.known import name_of
from deadweight.image.content import Content
from deadweight.ledger.inside import inside
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.reach import Reach, reach, reach_notes
from deadweight.passes.base import Context, Pass, Proposal, Rewriting, Risk
from deadweight.passes.elf_rewrites import fixed_files
from deadweight.passes.inodes import changeable_name

_SHOWN = 3
_THREADS = 2
_LARGE = 1 << 20
"""Bytes of files for which a thread is worth its while."""


def propose(context: Context) -> Iterator[Proposal]:
    """A rewrite for each file that shrinks, ordered by path; nothing where no target was declared."""
    target = context.options.target
    if target is None:
        return
    ledger = context.ledger
    names = ledger.names
    stays: dict[str, list[str]] = defaultdict(list)
    beyond: dict[str, Reach] = {}
    found = []
    inodes = [node.inode for node in ledger.elf_files.values() if node.inode is not None]
    paths = {path: inode for inode in inodes if (path := changeable_name(context, names[inode])) is not None}

    def tried(path: str) -> tuple[Reach, str | None]:
        """What is out of reach in a file, and why it stays as it is, if it does."""
        within = _reach(ledger, path, target)
        try:
            context.rewrite(PASS, path)
        except ValueError as error:
            return within, str(error)
        return within, None

    large = [path for path in paths if ledger.fs.nodes[path].size >= _LARGE]
    with ThreadPoolExecutor(_THREADS) as pool:  # while one reads, another one compares
        results = dict(zip(large, pool.map(tried, large), strict=True))
    for path, inode in paths.items():
        within, reason = results[path] if path in results else tried(path)
        beyond[f"/{path}"] = within
        if reason is not None:
            if reason != NOTHING:
                stays[reason].append(path)
                beyond[f"/{path}"] = within._replace(unserved=())  # said already, if that is why
            continue
        fixed = fixed_files(ledger).get(inode)
        if fixed is not None:
            stays[fixed].append(path)
            continue
        risk: Risk | None = "observed" if target.raw_blobs else None
        # Without names and numbers, which would no longer be true of a plan whose target is edited.
        evidence = "no declared GPU loads what leaves; the rest was compared with the original"
        found.append(Proposal("rewrite", path, "GPU code for GPUs that were not declared", evidence, risk=risk))
    context.notes.extend(_notes(stays))
    context.notes.extend(reach_notes(beyond))
    yield from sorted(found, key=lambda proposal: proposal.path)


def rewrite(file: Rewriting) -> Content:
    """The file with the GPU code of the target alone. Raises ValueError where that cannot be done."""
    if file.target is None:
        raise ValueError("no GPU was declared")
    content = shrink_gpu_code(file.read, file.size, file.target)
    check_shrunk(file.read, file.size, content.reader(file.read), content.size, file.target)
    return content


def _reach(ledger: Ledger, path: str, target: Target) -> Reach:
    node = ledger.fs.nodes[path]
    key = node.inode
    assert key is not None  # it has content
    kind = f"reach-{name_of(target)}"
    return ledger.facts.of(kind, key, Reach, lambda: reach(ledger.reader(path), node.size, target, inside(ledger, key)))


def cost(target: Target) -> list[str]:
    """What the choice of target costs, in words."""
    if not target.gpus:
        return ["the image is for machines without a GPU: on others its libraries find no kernels"]
    newest = f"sm_{max(target.gpus)}"
    if target.keep_ptx:
        return [f"PTX stays where libraries have it: GPUs newer than {newest} may run it; --drop-ptx takes it out"]
    needless = f"PTX leaves that {in_words(gpu_names(target.gpus))} does not need"
    return [f"{needless}: other GPUs, newer ones too, find no kernels, and CUDA_FORCE_PTX_JIT=1 fails"]


def _notes(stays: dict[str, list[str]]) -> Iterator[str]:
    for reason, paths in sorted(stays.items()):
        shown = ", ".join(f"/{path}" for path in sorted(paths)[:_SHOWN])
        more = f" and {len(paths) - _SHOWN:,} more" if len(paths) > _SHOWN else ""
        yield f"GPU code stays in {shown}{more}: {reason}"


PASS = Pass(
    name="gpu-code",
    risk="target",
    order=75,
    summary="GPU code for GPUs that were not declared (--gpu)",
    propose=propose,
    rewrite=rewrite,
    recipe=lambda file: file.target,
    slow=True,
)
