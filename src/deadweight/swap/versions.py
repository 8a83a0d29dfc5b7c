"""What two builds say of themselves, and differently: version strings, which are no difference in behaviour."""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Iterator
from typing import Final, NamedTuple

from deadweight.ledger.ledger import Ledger
from deadweight.swap.swapped import Swapped

_MODULES: Final = ("version.py", "_version.py", "__about__.py", "__init__.py")
_LIMIT: Final = 1 << 20


class Said(NamedTuple):
    """A constant of a version module, as each build has it; what is None is written so."""

    name: str
    before: str
    after: str


def said(swapped: Swapped) -> list[Said]:
    """The string constants that differ between the builds' version modules: torch's `__version__` and `cuda`."""
    found = [Said("version", swap.before, swap.after) for swap in swapped.swaps]
    for one in swapped.done:
        for path in one.dist.files:
            inside = path.removeprefix(f"{one.dist.site}/")
            if posixpath.basename(path) in _MODULES and inside.count("/") <= 1:
                old, new = (dict(_constants(ledger, path)) for ledger in (swapped.original, swapped.ledger))
                found += [Said(name, old[name], new[name]) for name in old if name in new and old[name] != new[name]]
    return list(dict.fromkeys(each for each in found if each.before != each.after and each.before not in ("", "None")))


def _constants(ledger: Ledger, path: str) -> Iterator[tuple[str, str]]:
    node = ledger.fs.nodes.get(path)
    if node is None or node.kind != "file" or node.size > _LIMIT:
        return
    try:
        tree = ast.parse(ledger.fs.reader(node)(0, node.size))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        if isinstance(value, ast.Constant) and (value.value is None or isinstance(value.value, str)):
            yield from ((target.id, str(value.value)) for target in targets if isinstance(target, ast.Name))
