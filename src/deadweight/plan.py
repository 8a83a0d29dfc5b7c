"""The plan: what is to leave an image, why, and the size of what remains, as data that people read and edit."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Literal

import msgspec
from packaging.utils import canonicalize_name

from deadweight.errors import PlanError, UsageError, shown
from deadweight.image.content import Content
from deadweight.image.edit import Charge, Edit, Edited, Subject, edit_image, really_removed
from deadweight.image.filesystem import Filesystem, Key
from deadweight.image.model import Image
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import RISKS, Action, Context, Options, Pass, Proposal, Risk, all_passes
from deadweight.passes.metadata import Derived, derive

SCHEMA: Literal["deadweight.plan/1"] = "deadweight.plan/1"
METADATA = "metadata"
"""The pass that cuts belong to which follow from other cuts; they are worked out anew whenever a plan is applied."""
# A new digest costs the sharing with every other image on that layer: this much must be won for it.
SMALL_SHARE = 0.01
SMALL_BYTES = 5_000_000

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


class Cut(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One thing that leaves. Bytes count content, padding and framing."""

    pass_: str = msgspec.field(name="pass")
    path: str
    layer: int
    """The layer's position, from 0."""
    action: Action
    before_bytes: int
    after_bytes: int
    risk: Risk
    why: str
    evidence: str = ""
    to: str | None = None
    """For a link: the equal file."""


class LayerSize(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A layer's uncompressed bytes before and after."""

    layer: int
    diff_id: str
    before_bytes: int
    predicted_bytes: int


class PlanImage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The image that a plan is for; `digest` is that of the configuration, the image ID."""

    reference: str
    digest: str
    diff_ids: list[str]
    platform: str


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to leave an image, and what will remain."""

    schema: Literal["deadweight.plan/1"]
    deadweight: str
    image: PlanImage
    target: dict[str, Any]
    options: dict[str, Any]
    kept_layers: list[int]
    before_bytes: int
    predicted_bytes: int
    layers: list[LayerSize]
    cuts: list[Cut]
    notes: list[str]


class Worked(msgspec.Struct, frozen=True):
    """A plan with the edit that it stands for."""

    plan: Plan
    edited: Edited
    blocked: dict[str, set[str]]
    """Metadata files that had to change and lie in layers that stay, with the paths whose cuts ask for it."""


def read_plan(data: bytes) -> Plan:
    """A plan from its JSON. Raises PlanError, naming the field, when it is none."""
    try:
        # Not msgspec's own reader: names in images need not be UTF-8, and it takes no lone surrogates.
        return msgspec.convert(json.loads(data), Plan)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PlanError(f"this is no plan of deadweight: {error}") from None


def write_plan(plan: Plan) -> bytes:
    """A plan as JSON, one cut a line so that it can be read, searched and compared."""
    cuts = ",\n    ".join(json.dumps(msgspec.to_builtins(cut)) for cut in plan.cuts)
    rest = json.dumps({**msgspec.to_builtins(plan), "cuts": None}, indent=2)
    body = f'"cuts": [\n    {cuts}\n  ]' if cuts else '"cuts": []'
    return (rest.replace('"cuts": null', body, 1) + "\n").encode()


def make_plan(ledger: Ledger, options: Options = Options(), **settings: Any) -> Plan:  # noqa: B008  (frozen)
    """The plan for an image: that of `draw_up`, which says what the settings are."""
    return draw_up(ledger, options, **settings).plan


def draw_up(
    ledger: Ledger,
    options: Options = Options(),  # noqa: B008  (frozen)
    *,
    risk: Risk = "policy",
    skip: Collection[str] = (),
    keep_layers: int = 0,
    base: Image | None = None,
    all_layers: bool = False,
    progress: Progress | None = None,
) -> Worked:
    """The plan for an image, worked out: the proposals of all passes up to `risk`, less those of `skip`.

    The first `keep_layers` layers stay as they are, and those that `base` shares; so does, unless `all_layers`, every
    layer in which under 1 % and under 5 MB would be saved. Raises UsageError for a pass that does not exist.
    """
    return _Planner(ledger, options, risk, skip, progress).plan(_protected(ledger.image, keep_layers, base), all_layers)


def _protected(image: Image, count: int, base: Image | None) -> frozenset[int]:
    kept = set(range(min(count, len(image.layers))))
    if base is not None:
        for mine, theirs in zip(image.layers, base.layers, strict=False):
            if mine.diff_id != theirs.diff_id:
                break
            kept.add(mine.position)
        if len(kept) < len(base.layers):
            raise UsageError(f"the image is not built on {shown(base.reference)}: they share {len(kept)} layers")
    return frozenset(kept)


class _Planner:
    """Runs the passes until the layers that are worth touching are settled."""

    def __init__(
        self, ledger: Ledger, options: Options, risk: Risk, skip: Collection[str], progress: Progress | None
    ) -> None:
        known = [p.name for p in all_passes()]
        unknown = sorted(set(skip) - set(known))
        if unknown:
            raise UsageError(f"there is no pass {shown(unknown[0])} to skip; there are: {', '.join(known)}")
        installed = {dist.name for dist in ledger.distributions}
        options = replace(options, roots=tuple(canonicalize_name(name) for name in options.roots))
        for name in options.roots:
            if name not in installed:
                raise UsageError(f"--root {shown(name)}: no such distribution is installed in the image")
        limit = RISKS.index(risk)
        self.passes = [p for p in all_passes() if RISKS.index(p.risk) <= limit and p.name not in skip]
        self.ledger, self.options = ledger, options
        self.progress = progress
        self.settings: dict[str, Any] = {
            "risk": risk,
            "skip": sorted(skip),
            **msgspec.json.decode(msgspec.json.encode(options)),
        }

    def plan(self, protected: frozenset[int], all_layers: bool) -> Worked:
        small: set[int] = set()  # layers left alone since little would be saved there
        needed: set[int] = set()  # layers whose metadata follows from cuts elsewhere
        blocked: set[str] = set()  # paths whose metadata lies in a protected layer
        while True:
            keep = protected | (small - needed)
            context = Context(self.ledger, self.options, keep, frozenset(blocked))
            proposals = self._run(context)
            worked = work(self.ledger, proposals, sorted(keep), self.settings, context.notes)
            if worked.blocked:
                for path, causes in worked.blocked.items():
                    position = self.ledger.fs.nodes[path].source_layer
                    if position in protected:
                        blocked |= causes
                    else:
                        needed.add(position)
                continue
            little = set() if all_layers else set(_little(worked.plan)) - keep - needed
            if not little:
                plan = self._with_notes(worked.plan, small - needed, context)
                return msgspec.structs.replace(worked, plan=plan)
            small |= little

    def _run(self, context: Context) -> list[tuple[Pass, Proposal]]:
        proposals: list[tuple[Pass, Proposal]] = []
        for number, one in enumerate(self.passes):
            if self.progress is not None:
                self.progress(f"planning: {one.name}", number, len(self.passes))
            for proposal in one.propose(context):
                if proposal.action == "drop":
                    if proposal.key is None or proposal.key in context.dropped:
                        continue
                    context.dropped.add(proposal.key)
                elif not context.may_change(proposal.path) or proposal.path in context.changed:
                    continue
                elif proposal.action == "remove":
                    context.gone.add(proposal.path)
                else:
                    context.changed.add(proposal.path)
                proposals.append((one, proposal))
        return proposals

    def _with_notes(self, plan: Plan, small: set[int], context: Context) -> Plan:
        notes = list(plan.notes)
        for position in sorted(small):
            notes.append(
                f"layer {position + 1} stays as it is, and shared with other images: under 1 % and under 5 MB would be "
                "saved there (--all-layers changes it all the same)"
            )
        return msgspec.structs.replace(plan, notes=notes + [n for n in context.ledger.notes if n not in notes])


def _little(plan: Plan) -> Iterable[int]:
    for size in plan.layers:
        saved = size.before_bytes - size.predicted_bytes
        touched = any(cut.layer == size.layer for cut in plan.cuts)
        if touched and saved < SMALL_BYTES and saved < SMALL_SHARE * size.before_bytes:
            yield size.layer


def work(
    ledger: Ledger,
    proposals: Iterable[tuple[Pass, Proposal]],
    keep_layers: Collection[int],
    settings: Mapping[str, Any],
    notes: Iterable[str],
) -> Worked:
    """Works proposals out to the byte: what they come to, and what follows from them."""
    fs = ledger.fs
    by_subject: dict[Subject, tuple[Pass, Proposal]] = {}
    rewrite: dict[str, Content] = {}
    for one, proposal in proposals:
        subject: Subject = proposal.path if proposal.action != "drop" else _key(proposal)
        by_subject[subject] = (one, proposal)
        if proposal.action == "rewrite":
            if one.rewrite is None:
                raise PlanError(f"the pass {one.name} does not rewrite, as the cut of {shown(proposal.path)} would")
            try:
                rewrite[proposal.path] = one.rewrite(ledger, proposal.path)
            except ValueError as error:
                raise PlanError(f"{shown(proposal.path)} cannot be rewritten by {one.name}: {error}") from None
    chosen = [proposal for _, proposal in by_subject.values()]
    edit = Edit(
        remove=[p.path for p in chosen if p.action == "remove"],
        rewrite=rewrite,
        link={p.path: p.to or "" for p in chosen if p.action == "link"},
        drop=[_key(p) for p in chosen if p.action == "drop"],
        keep_layers=keep_layers,
    )
    derived = derive(ledger, edit, really_removed(fs, edit))
    edited = edit_image(fs, replace(edit, rewrite={**rewrite, **derived.contents}))
    cuts = _cuts(fs, edited.charges, by_subject, derived)
    blocked = {p: c for p, c in derived.causes.items() if fs.nodes[p].source_layer in keep_layers}
    return Worked(_assemble(ledger, edited, cuts, keep_layers, settings, notes), edited, blocked)


def _key(proposal: Proposal) -> Key:
    assert proposal.key is not None
    return proposal.key


def _cuts(
    fs: Filesystem,
    charges: Mapping[Subject, Charge],
    by_subject: Mapping[Subject, tuple[Pass, Proposal]],
    derived: Derived,
) -> list[Cut]:
    """One cut for each thing that bytes were charged to, in the order of passes and paths."""
    merged: dict[tuple[str, str, int], Cut] = {}
    for subject, charge in charges.items():
        cut = _cut(fs, subject, charge, by_subject.get(subject), derived)
        same = merged.get((cut.pass_, cut.path, cut.layer))
        if same is not None:  # an entry that a layer has twice
            cut = msgspec.structs.replace(
                cut,
                before_bytes=cut.before_bytes + same.before_bytes,
                after_bytes=cut.after_bytes + same.after_bytes,
            )
        merged[cut.pass_, cut.path, cut.layer] = cut
    order = {p.name: p.order for p in all_passes()}
    return sorted(merged.values(), key=lambda c: (order.get(c.pass_, 1000), c.pass_, c.layer, c.path))


def _cut(
    fs: Filesystem, subject: Subject, charge: Charge, found: tuple[Pass, Proposal] | None, derived: Derived
) -> Cut:
    if found is not None:
        one, proposal = found
        if isinstance(subject, str):
            node = fs.nodes[subject]
            layer = node.layer if proposal.action == "remove" else node.source_layer
        else:
            layer = subject[0]
        return Cut(
            one.name,
            proposal.path,
            layer,
            proposal.action,
            charge.before,
            charge.after,
            one.risk,
            proposal.why,
            proposal.evidence,
            proposal.to,
        )
    if isinstance(subject, str):
        causes = derived.causes[subject]
        return Cut(
            METADATA,
            subject,
            fs.nodes[subject].source_layer,
            "rewrite",
            charge.before,
            charge.after,
            "lossless",
            derived.reasons[subject],
            f"{len(causes):,} changed, such as /{min(causes)}",
        )
    why, evidence = "a rewritten layer ends in two zero blocks", "as POSIX has it for tar; what was there was padding"
    return Cut(METADATA, "", subject[0], "rewrite", charge.before, charge.after, "lossless", why, evidence)


def _assemble(
    ledger: Ledger,
    edited: Edited,
    cuts: list[Cut],
    keep_layers: Collection[int],
    settings: Mapping[str, Any],
    notes: Iterable[str],
) -> Plan:
    image = ledger.image
    layers = [
        LayerSize(layer.position, layer.diff_id, layer.tar.size, new.size)
        for layer, new in zip(image.layers, edited.layers, strict=True)
    ]
    before, predicted = image.size, sum(size.predicted_bytes for size in layers)
    saved = sum(cut.before_bytes - cut.after_bytes for cut in cuts)
    if before - saved != predicted:
        raise AssertionError(f"the cuts add up to {saved:,} bytes, the layers to {before - predicted:,}")
    return Plan(
        schema=SCHEMA,
        deadweight=version("deadweight"),
        image=PlanImage(
            image.reference, image.config_digest, [layer.diff_id for layer in image.layers], image.platform
        ),
        target={},
        options=dict(settings),
        kept_layers=list(keep_layers),
        before_bytes=before,
        predicted_bytes=predicted,
        layers=layers,
        cuts=cuts,
        notes=list(notes),
    )
