"""Whether code is compiled while the container runs: then compilers, headers and libraries to link are needed there."""

from __future__ import annotations

import re

from deadweight.ledger.known import known, matcher
from deadweight.passes.application import mentions
from deadweight.passes.base import Context

_MENTIONS = re.compile(rb"torch\.compile\b|cpp_extension\b|triton\.jit\b|\bload_inline\b|\bpyximport\b")


def advise(context: Context) -> None:
    """Notes what in the application looks as if it compiled at run time, and the option that is for it."""
    if context.options.keep_compile:
        return
    for path, word in mentions(context, _MENTIONS):
        note = f"/{path} mentions {word}: --keep-compile keeps the compilers and headers that it may need"
        if note not in context.notes:
            context.notes.append(note)


def installed(context: Context, section: str) -> list[str]:
    """The installed distributions that a list of known.toml, `needed_by` in `section`, names."""
    wanted = matcher(known(section, "needed_by"))
    graph = context.ledger.graph
    return [graph.display(name) for name in graph.distributions if wanted(name)]
