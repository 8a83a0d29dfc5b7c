"""What of an image each layer could be without, to the byte: the cuts of a plan, which no byte is in twice."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property

from deadweight.build.lint.model import Charge
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import all_passes
from deadweight.passes.shadowed import hidden_by
from deadweight.plan import Cut, make_plan

_PASSES = ("shadowed", "caches", "build-tools", "dev-tools", "tests")
SMALL = 100_000
"""Less than that in a layer is no mistake of anybody's."""

Report = Callable[[str, int, int], None]


class Measure:
    """The bytes of an image that a plan would take out, by pass and layer."""

    def __init__(self, ledger: Ledger, report: Report | None = None) -> None:
        self.ledger = ledger
        self._report = report

    @cached_property
    def _cuts(self) -> list[Cut]:
        return self._plan(_PASSES)

    @cached_property
    def _symbols(self) -> list[Cut]:
        return _of(self._plan((*_PASSES, "symbols")), "symbols")

    def _plan(self, wanted: Collection[str]) -> list[Cut]:
        skip = [one.name for one in all_passes() if one.name not in wanted]
        return make_plan(self.ledger, skip=skip, all_layers=True, progress=self._report).cuts

    def cuts(self, name: str, layer: int | None = None) -> tuple[Charge, ...]:
        """What a pass would take out, of one layer or of all."""
        cuts = _of(self._symbols if name == "symbols" else self._cuts, name)
        return tuple(_charge(cut) for cut in cuts if layer in (None, cut.layer))

    @cached_property
    def _hidden(self) -> dict[tuple[int, str], tuple[int, str]]:
        """For each hidden entry, by its layer and path, the layer that hides it, and how."""
        fs = self.ledger.fs
        return {(key[0], fs.entry(key).name): by for key, by in hidden_by(fs).items()}

    def replaced_by(self, layer: int) -> tuple[Charge, ...]:
        """What lower layers have of the files that a layer has again."""
        return self._hidden_by(layer, "replaces")

    def deleted_by(self, layer: int) -> tuple[Charge, ...]:
        """What lower layers have of the files that a layer deletes."""
        return self._hidden_by(layer, "deletes")

    def _hidden_by(self, layer: int, how: str) -> tuple[Charge, ...]:
        cuts = _of(self._cuts, "shadowed")
        found = (c for c in cuts if c.layer < layer and self._hidden.get((c.layer, c.path)) == (layer, how))
        return tuple(_charge(c) for c in found)

    def names(self, layer: int) -> frozenset[str]:
        """The paths that a layer has."""
        return frozenset(entry.name for entry in self.ledger.image.layers[layer].entries if entry.whiteout is None)

    def entries(self, layer: int, wanted: Callable[[str], bool]) -> tuple[Charge, ...]:
        """The entries of a layer whose paths are wanted, whole; those that a plan would take out as its cuts."""
        entries = {e.name: e for e in self.ledger.image.layers[layer].entries if e.whiteout is None and wanted(e.name)}
        found = [_charge(c) for c in self._cuts if c.layer == layer and c.path in entries]
        for charge in found:
            entries.pop(charge.path, None)
        found += [Charge(("entry", layer, name), name, e.end - e.start) for name, e in entries.items()]
        return tuple(found)

    def is_installer(self, path: str) -> bool:
        """Whether what builds or installs is of Python, or a program without a package."""
        return self.ledger.owner(path).kind == "python" or path in self._programs

    @cached_property
    def _programs(self) -> frozenset[str]:
        return frozenset(c.path for c in _of(self._cuts, "build-tools") if c.why == "builds or installs software")

    def is_application(self, path: str) -> bool:
        """Whether a file is the application's, and no package's."""
        return self.ledger.owner(path).kind == "application"


def _of(cuts: list[Cut], name: str) -> list[Cut]:
    return [cut for cut in cuts if cut.pass_ == name]


def _charge(cut: Cut) -> Charge:
    return Charge((cut.pass_, cut.layer, cut.path), cut.path, cut.before_bytes - cut.after_bytes)
