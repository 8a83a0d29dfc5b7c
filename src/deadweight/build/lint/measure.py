"""What of an image each layer could be without, to the byte: the cuts of a plan, which no byte is in twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection
from functools import cached_property
from typing import NamedTuple

from deadweight.build.lint.model import Charge
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import all_passes
from deadweight.passes.shadowed import hidden_by
from deadweight.plan import Cut
from deadweight.planning import make_plan

_PASSES = ("shadowed", "caches", "build-tools", "dev-tools", "tests")
_PROGRAMS = "builds or installs software"
SMALL = 100_000
"""Less than that in a layer is no mistake of anybody's."""

Report = Callable[[str, int, int], None]


class _Hidden(NamedTuple):
    """An entry that no container sees."""

    layer: int
    by: int
    """The position of the layer that hides it."""
    how: str
    """`replaces` or `deletes`."""
    directory: bool
    charge: Charge


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
        return [cut for cut in self._plan((*_PASSES, "symbols")) if _of(cut, "symbols")]

    def _plan(self, wanted: Collection[str]) -> list[Cut]:
        skip = [one.name for one in all_passes() if one.name not in wanted]
        return make_plan(self.ledger, skip=skip, all_layers=True, each_path=True, progress=self._report).cuts

    @cached_property
    def _hidden(self) -> list[_Hidden]:
        fs = self.ledger.fs
        found = []
        for key, (by, how) in hidden_by(fs).items():
            entry = fs.entry(key)
            charge = Charge(("hidden", *key), entry.name, entry.end - entry.start)
            found.append(_Hidden(key[0], by, how, entry.kind == "dir", charge))
        return found

    @cached_property
    def _copies(self) -> dict[str, int]:
        """Bytes of hidden entries that are in the cut of what hides them: a plan takes all copies of a path at once."""
        alone = {(cut.layer, cut.path) for cut in self._cuts if _of(cut, "shadowed")}
        found: dict[str, int] = defaultdict(int)
        for one in self._hidden:
            if (one.layer, one.charge.path) not in alone:
                found[one.charge.path] += one.charge.bytes
        return found

    def cuts(self, name: str, layer: int | None = None) -> tuple[Charge, ...]:
        """What a pass would take out, of one layer or of all; copies that lower layers hide are not in it."""
        cuts = self._symbols if name == "symbols" else self._cuts
        return tuple(self._charge(cut) for cut in cuts if _of(cut, name) and layer in (None, cut.layer))

    def _charge(self, cut: Cut) -> Charge:
        copies = self._copies.get(cut.path, 0) if cut.action == "remove" else 0
        return Charge((cut.pass_, cut.layer, cut.path), cut.path, cut.before_bytes - cut.after_bytes - copies)

    def replaced_by(self, layer: int) -> tuple[Charge, ...]:
        """What lower layers have of the files that a layer has again; engines repeat directories unasked."""
        return tuple(one.charge for one in self._hidden_by(layer, "replaces") if not one.directory)

    def deleted_by(self, layer: int) -> tuple[Charge, ...]:
        """What lower layers have of the files that a layer deletes."""
        return tuple(one.charge for one in self._hidden_by(layer, "deletes"))

    def _hidden_by(self, layer: int, how: str) -> list[_Hidden]:
        return [one for one in self._hidden if one.layer < layer and (one.by, one.how) == (layer, how)]

    def names(self, layer: int) -> frozenset[str]:
        """The paths that a layer has."""
        return frozenset(entry.name for entry in self.ledger.image.layers[layer].entries if entry.whiteout is None)

    def entries(self, layer: int, wanted: Callable[[str], bool]) -> tuple[Charge, ...]:
        """The entries of a layer whose paths are wanted, whole."""
        hidden = {one.charge.key: one.charge for one in self._hidden if one.layer == layer}
        cut = {cut.path: self._charge(cut) for cut in self._cuts if cut.layer == layer and cut.action == "remove"}
        found = []
        for entry in self.ledger.image.layers[layer].entries:
            if entry.whiteout is None and wanted(entry.name):
                whole = Charge(("entry", layer, entry.index), entry.name, entry.end - entry.start)
                found.append(hidden.get(("hidden", layer, entry.index)) or cut.get(entry.name) or whole)
        return tuple(found)

    def is_installer(self, path: str) -> bool:
        """Whether what builds or installs is of Python, or a program without a package."""
        return self.ledger.owner(path).kind == "python" or path in self._programs

    @cached_property
    def _programs(self) -> frozenset[str]:
        return frozenset(cut.path for cut in self._cuts if _of(cut, "build-tools") and cut.why == _PROGRAMS)

    def is_application(self, path: str) -> bool:
        """Whether a file is the application's, and no package's."""
        return self.ledger.owner(path).kind == "application"


def _of(cut: Cut, name: str) -> bool:
    return cut.pass_ == name
