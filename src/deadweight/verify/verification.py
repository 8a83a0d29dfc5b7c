"""Verification from end to end: the proof, images in their sandboxes, one probe after the other, the verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from deadweight.image.filesystem import Key
from deadweight.ledger.ledger import Ledger
from deadweight.passes.weights import PASS as WEIGHTS_PASS
from deadweight.plan import Plan
from deadweight.sizes import parse_size
from deadweight.swap.swapped import Swapped
from deadweight.swap.versions import said
from deadweight.verify.defaults import default_probes, left_out, modules, not_probed
from deadweight.verify.model import Observation, ProbeResult, Verdict, verdict_of
from deadweight.verify.probes import judge, observe
from deadweight.verify.probes.kinds import kind_of
from deadweight.verify.probes.libraries import less_what_left
from deadweight.verify.probes.models import converted, default_models
from deadweight.verify.probes.run import with_words
from deadweight.verify.proof import Proof, prove
from deadweight.verify.sandbox import Limits, Options, Sandbox
from deadweight.verify.sandbox.choose import open_sandbox
from deadweight.verify.side import Side
from deadweight.verify.spec import (
    AccuracyProbe,
    HttpProbe,
    ImportProbe,
    LibrariesProbe,
    ModelsProbe,
    Probe,
    RunProbe,
    SizeProbe,
    Spec,
    StartProbe,
)
from deadweight.verify.spec.names import named
from deadweight.verify.trees import Unpack, trees

WEIGHTS = WEIGHTS_PASS.name
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Setting:
    """What probes run in."""

    sandbox: str = "bubblewrap"
    options: Options = field(default_factory=Options)
    tolerance: float = 0.0
    """How far numbers in outputs, arrays and JSON answers may be apart at least, whatever a probe says."""
    max_loss: float | None = None
    """The most that probes of accuracy may find lost; None: what each says itself."""


def verify(
    before: Ledger,
    after: Ledger,
    spec: Spec = Spec(),  # noqa: B008  (frozen)
    progress: Progress | None = None,
    *,
    plan: Plan | None = None,
    run: bool = True,
    setting: Setting = Setting(),
    swapped: Swapped | None = None,
) -> Verdict:
    """Whether `after` behaves like `before`, of which it is said to be a slim version.

    First the static proof: with `plan` every difference has to be declared there. Then, unless `run` is false, the
    probes of `spec` in both images. What cannot be run gives no answer rather than an error. Raises PlanError where
    the plan is not for `before`, DigestError where an image is damaged.
    """
    start = time.monotonic()
    proof = prove(before, after, plan, progress, swapped)
    results = list(proof.results) if run else [_on_its_own(result) for result in proof.results]
    notes: list[str] = []
    used = False
    if run:
        removed = proof.removed if plan is None else proof.declared
        defaults = default_probes(before, after, spec, removed) if spec.defaults else []
        unopened: list[str] = []
        if spec.defaults and not any(isinstance(probe, ModelsProbe) for probe in spec.probe):
            models_open, unopened = default_models(before, plan)
            defaults += [models_open] if models_open is not None else []
        allowed_apart = apart_for(plan, setting.max_loss)
        tolerance = max(setting.tolerance, allowed_apart)
        every = [_tolerant(probe, tolerance, setting.max_loss) for probe in (*defaults, *asked(spec))]
        probes = named([_filled(probe, before, after, removed, plan) for probe in every])
        allowed = allowance(proof, swapped)
        with ExitStack() as resources:
            bench = _Bench(spec, probes, setting, resources, progress, list(spec.notes))
            one = bench.side("before", before, before)
            two = bench.side("after", after, before, proof.equal)
            for number, probe in enumerate(probes):
                bench.say(f"probing: {probe.name}", number, len(probes))
                kind = kind_of(probe)
                first, second = observe(kind, probe, one), observe(kind, probe, two)
                results.append(judge(kind, probe, probe.name, allowed(probe, first, second), second))
            notes, used = bench.notes, bench.used
        if setting.tolerance:
            notes.append(
                f"numbers in outputs, arrays and JSON answers may be {setting.tolerance:g} apart (--tolerance)"
            )
        if allowed_apart:
            notes.append(
                f"weights were converted, so numbers may be {allowed_apart:.3g} apart: as far as those of unit vectors "
                f"can be that lose {setting.max_loss:g} (--max-accuracy-loss)"
            )
        if spec.defaults:
            notes += [*not_probed(before, spec), *unopened]
        if not used:
            results[:2] = map(_on_its_own, results[:2])
        if any(isinstance(probe, ImportProbe) and probe.modules is None for probe in asked(spec)) or spec.defaults:
            notes += [f"{name} is not imported: {why}" for name, why in left_out(before, after, removed).items()]
    return verdict_of(results, setting.sandbox if used else "", time.monotonic() - start, notes)


def check(
    image: Ledger,
    spec: Spec,
    progress: Progress | None = None,
    *,
    setting: Setting = Setting(),
) -> Verdict:
    """Whether one image is as `spec` asks: what is compared elsewhere has to succeed here."""
    start = time.monotonic()
    probes = named(asked(spec))
    results: list[ProbeResult] = []
    with ExitStack() as resources:
        bench = _Bench(spec, probes, setting, resources, progress, list(spec.notes))
        side = bench.side("image", image)
        for number, probe in enumerate(probes):
            bench.say(f"checking: {probe.name}", number, len(probes))
            kind = kind_of(probe)
            results.append(judge(kind, probe, probe.name, None, observe(kind, probe, side)))
        ran = setting.sandbox if bench.used else ""
        return verdict_of(results, ran, time.monotonic() - start, bench.notes)


def _filled(probe: Probe, before: Ledger, after: Ledger, removed: Collection[str], plan: Plan | None) -> Probe:
    """An import probe that names no modules is for those of the original, in both images; and what a plan converts."""
    if isinstance(probe, ModelsProbe):
        return replace(probe, converted=[*probe.converted, *converted(before, plan)])
    if isinstance(probe, ImportProbe) and probe.modules is None:
        return replace(probe, modules=modules(before, after, removed))
    return probe


def allowance(proof: Proof, swapped: Swapped | None) -> Callable[[Probe, Observation, Observation], Observation]:
    """A function that makes of what a probe saw in the original what is to be seen in the slim image.

    Nothing but what a swap declares: words by which a build names itself, and libraries that left with it.
    """
    if swapped is None:
        return lambda _, before, __: before
    words = {each.before: each.after for each in said(swapped)}

    def allowed(probe: Probe, before: Observation, after: Observation) -> Observation:
        if isinstance(probe, RunProbe):
            return with_words(before, after, words)
        if isinstance(probe, LibrariesProbe):
            return less_what_left(before, after, proof.removed, proof.other)
        return before

    return allowed


def apart_for(plan: Plan | None, max_loss: float | None) -> float:
    """How far numbers may be apart since a plan converts weights, where a loss is allowed.

    Unit vectors u and v with 1 - u·v = L are sqrt(2 L) apart, and no number of theirs is further apart.
    """
    converted = plan is not None and any(cut.pass_ == WEIGHTS and cut.action == "rewrite" for cut in plan.cuts)
    return math.sqrt(2 * max_loss) if converted and max_loss is not None else 0.0


def _tolerant(probe: Probe, tolerance: float, max_loss: float | None) -> Probe:
    """A probe that compares numbers, with at least this tolerance; one of accuracy with this limit."""
    if isinstance(probe, AccuracyProbe) and max_loss is not None:
        return replace(probe, max_loss=max_loss)
    if isinstance(probe, (RunProbe, HttpProbe)) and probe.tolerance < tolerance:
        return replace(probe, tolerance=tolerance)
    return probe


def _on_its_own(result: ProbeResult) -> ProbeResult:
    """A result of the proof where no probe says whether it matters what left undeclared: then it does."""
    return replace(result, ok=False) if result.outcome == "undeclared" else result


def asked(spec: Spec) -> list[Probe]:
    """The probes that a specification asks for, in the order of the table."""
    budget = spec.image.max_size
    return [*([SizeProbe(max=budget)] if budget is not None else ()), *spec.probe]


@dataclass
class _Bench:
    """Where probes run: images are unpacked, and sandboxes opened, when something is first run in them."""

    spec: Spec
    probes: Sequence[Probe]
    setting: Setting
    resources: ExitStack
    progress: Progress | None
    notes: list[str] = field(default_factory=list)
    used: bool = False
    _unpack: Unpack | None = None
    _trees: dict[str, tuple[Path, list[str]]] = field(default_factory=dict)

    def say(self, doing: str, done: int = 0, total: int = 0) -> None:
        """Reports progress, where somebody looks."""
        if self.progress is not None:
            self.progress(doing, done, total)

    def side(
        self, name: str, ledger: Ledger, original: Ledger | None = None, equal: Mapping[Key, str] | None = None
    ) -> Side:
        """One image, ready to be probed; `equal` says which of its files the original's tree has as they are."""
        limits = self.spec.limits

        def unpacked() -> tuple[Path, list[str]]:
            shared: dict[Key, str] = {}
            if original is not None and equal:
                place, _ = self._tree("before", original, {})
                shared = {key: str(place / path) for key, path in equal.items()}
            return self._tree(name, ledger, shared)

        def opened() -> Sandbox:
            self.used = True
            sandbox = self.resources.enter_context(
                open_sandbox(self.setting.sandbox, ledger.image, unpacked, self.setting.options)
            )
            self.notes += [note for note in sandbox.notes if note not in self.notes]
            return sandbox

        return Side(
            name,
            ledger,
            opened,
            Limits(limits.timeout, parse_size(limits.memory), limits.processes),
            self.spec.app,
            tuple(probe for probe in self.probes if isinstance(probe, HttpProbe)),
            original,
            next((probe for probe in self.probes if isinstance(probe, StartProbe)), None),
            self.spec.folder,
        )

    def _tree(self, name: str, ledger: Ledger, shared: Mapping[Key, str]) -> tuple[Path, list[str]]:
        """The root of an image's files on disk, and notes about it."""
        if name not in self._trees:
            if self._unpack is None:
                self._unpack = self.resources.enter_context(trees())
            self.say(f"unpacking the image ({name})")
            self._trees[name] = self._unpack(name, ledger.fs, shared)
        return self._trees[name]
