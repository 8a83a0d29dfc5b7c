"""Whether code is compiled while the container runs: then compilers, headers and libraries to link are needed there."""

from __future__ import annotations

import re

from deadweight.ledger.known import known, matcher
from deadweight.passes.application import mentions
from deadweight.passes.base import Context

_MENTIONS = re.compile(rb"torch\.compile\b|cpp_extension\b|triton\.jit\b|\bload_inline\b|\bpyximport\b")


def compiles(context: Context) -> str | None:
    """Why the container may compile code while it runs; None where nothing shows it, or the user knows better."""
    if context.options.keep_compile is not None:
        return "--keep-compile asks for it" if context.options.keep_compile else None
    for path, word in mentions(context, _MENTIONS):
        return f"/{path} mentions {word} (--no-keep-compile removes them all the same)"
    return None


def installed(context: Context, section: str) -> list[str]:
    """The installed distributions that a list of known.toml, `needed_by` in `section`, names."""
    wanted = matcher(known(section, "needed_by"))
    graph = context.ledger.graph
    return [graph.display(name) for name in graph.distributions if wanted(name)]
