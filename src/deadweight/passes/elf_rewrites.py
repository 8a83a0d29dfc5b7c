"""What passes have in common that rewrite programs and libraries: which files, and what is said of those that stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from deadweight.binary.elf import MACHINES
from deadweight.binary.fixed import fixed_reason
from deadweight.image.filesystem import Key
from deadweight.ledger.ledger import Ledger, once_for_ledger
from deadweight.passes.base import Context, Pass, Proposal
from deadweight.passes.inodes import changeable_name

UNKNOWN = "the image's architecture is not one that is known here"


def machine_of(ledger: Ledger) -> int | None:
    """The e_machine of the image's own programs; None where it is not known here."""
    return MACHINES.get(str(ledger.image.config.get("architecture", "amd64")))


def must_machine(ledger: Ledger) -> int:
    """As `machine_of`. Raises ValueError where it is not known."""
    machine = machine_of(ledger)
    if machine is None:
        raise ValueError(UNKNOWN)
    return machine


@once_for_ledger
def fixed_files(ledger: Ledger) -> dict[Key, str]:
    """The ELF files that must stay as they are by any of their names, with the reason."""
    names, exists = ledger.names, ledger.fs.nodes.__contains__
    found: dict[Key, str] = {}
    for node in ledger.elf_files.values():
        assert node.inode is not None  # it has content
        reason = next(filter(None, (fixed_reason(name, exists) for name in names[node.inode])), None)
        if reason is not None:
            found[node.inode] = reason
    return found


def elf_rewrites(
    context: Context, one: Pass, why: str, nothing: str, kept: tuple[str, str], evidence: Callable[[int], str]
) -> Iterator[Proposal]:
    """A rewrite for each ELF file that shrinks, ordered by path; `evidence` is given how many bytes it saves.

    Files that stay are noted, each reason once, but for the reason `nothing`: `kept` is what one keeps, and several.
    """
    ledger = context.ledger
    if machine_of(ledger) is None:
        context.notes.append(f"ELF files keep {kept[1]}: {UNKNOWN}")
        return
    names = ledger.names
    skipped: Counter[str] = Counter()
    found = []
    for node in ledger.elf_files.values():
        assert node.inode is not None  # it has content
        paths = names[node.inode]
        path = changeable_name(context, paths)
        if path is None:
            continue
        fixed = fixed_files(ledger).get(node.inode)
        try:
            content = context.rewrite(one, path)
        except ValueError as error:
            if str(error) != nothing:
                skipped[fixed or str(error)] += 1
            continue
        if fixed is not None:
            skipped[fixed] += 1
            continue
        saved = context.content(path)[1] - content.size
        found.append(Proposal("rewrite", path, why, evidence(saved)))
    for reason, count in sorted(skipped.items(), key=lambda item: (-item[1], item[0])):
        files = f"1 ELF file keeps {kept[0]}" if count == 1 else f"{count:,} ELF files keep {kept[1]}"
        context.notes.append(f"{files}: {reason}")
    yield from sorted(found, key=lambda proposal: proposal.path)
