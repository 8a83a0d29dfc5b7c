"""Programs that distributions bring along to test themselves, written with Google Test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from deadweight.binary.dynamic import interpreter
from deadweight.binary.elf import ElfError, parse
from deadweight.image.content import Reader
from deadweight.passes.base import Context
from deadweight.passes.commands import commands

_HELP: Final = b"This program contains tests written using Google Test."
"""What a program's --help begins with once Google Test's main function, or its InitGoogleTest, is linked in."""
_CHUNK: Final = 4 << 20


def programs(context: Context) -> Iterator[str]:
    """All names of such programs that distributions have and the image does not run, ordered by path."""
    names = context.ledger.names
    found: list[str] = []
    for path, node in context.ledger.elf_files.items():
        if path in context.gone or context.ledger.owner(path).kind != "python" or node.inode is None:
            continue
        read = context.ledger.reader(path)
        same = names[node.inode]
        if not any(name in commands(context.ledger).programs for name in same) and context.ledger.facts.of(
            "google-test",
            node.inode,
            bool,
            lambda read=read, node=node: _is_test(read, node.size),  # type: ignore[misc]
        ):
            found += same
    yield from sorted(found)


def _is_test(read: Reader, size: int) -> bool:
    try:
        if interpreter(read, parse(read, size)) is None:  # a library
            return False
    except ElfError:
        return False
    return any(_HELP in read(at, _CHUNK + len(_HELP)) for at in range(0, size, _CHUNK))
