"""Toy passes that rewrite: each replaces one marked part of a file, so that what several make of it is easy to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import pytest

from deadweight.image.content import Content, joined
from deadweight.passes.base import Context, Pass, Proposal, Rewriting, Risk, all_passes
from deadweight.passes.inodes import changeable_name

SUFFIX = ".lib"
"""How the names of files end that toys rewrite."""


def marked(mark: str, size: int) -> bytes:
    """A part of a file that the toy for `mark` replaces."""
    return f"<{mark}>".encode() + b"." * size + f"</{mark}>".encode()


@dataclass
class Toy:
    """A pass that replaces what is marked with `mark` by `put`."""

    name: str
    order: int
    mark: str
    put: bytes = b""
    own_risk: Risk | None = None
    calls: list[tuple[str, int]] = field(default_factory=list)
    """The path and size of each file that it was given to rewrite."""

    @cached_property
    def one(self) -> Pass:
        """The pass."""
        return Pass(self.name, "target", self.order, f"{self.mark} in toys", self.propose, self.rewrite)

    def after(self, data: bytes) -> bytes | None:
        """What it makes of a content; None where there is nothing for it."""
        start = data.find(f"<{self.mark}>".encode())
        end = data.find(f"</{self.mark}>".encode()) + len(self.mark) + 3
        return None if start < 0 else data[:start] + self.put + data[end:]

    def propose(self, context: Context) -> Iterator[Proposal]:
        for paths in context.ledger.names.values():
            path = changeable_name(context, paths)
            if path is None or not path.endswith(SUFFIX):
                continue
            try:
                content = context.rewrite(self.one, path)
            except ValueError:
                continue
            saved = context.content(path)[1] - content.size
            why, evidence = f"{self.mark} is of no use", f"{saved:,} bytes less"
            yield Proposal("rewrite", path, why, evidence, risk=self.own_risk)

    def rewrite(self, file: Rewriting) -> Content:
        self.calls.append((file.path, file.size))
        data = file.read(0, file.size)
        assert len(data) == file.size
        start = data.find(f"<{self.mark}>".encode())
        end = data.find(f"</{self.mark}>".encode()) + len(self.mark) + 3
        if start < 0:
            raise ValueError(f"no {self.mark} in it")
        return joined([(0, start), self.put, (end, file.size - end)])


@contextmanager
def passes(*toys: Toy, besides: tuple[str, ...] = ()) -> Iterator[None]:
    """Has plans made and applied with toys, and with those of the real passes that `besides` names, alone."""
    chosen = [toy.one for toy in toys] + [one for one in all_passes() if one.name in besides]
    found = tuple(sorted(chosen, key=lambda one: (one.order, one.name)))
    with pytest.MonkeyPatch.context() as patch:
        for module in ("planning", "apply"):
            patch.setattr(f"deadweight.{module}.all_passes", lambda: found)
        yield
