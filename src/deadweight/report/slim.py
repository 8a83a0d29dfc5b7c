"""Makes the report of what a plan comes to, built or not."""

from __future__ import annotations

from collections.abc import Sequence

from deadweight.apply import Applied
from deadweight.image.reference import Reference
from deadweight.ledger.ledger import FRAMING, HIDDEN, Ledger, Owner
from deadweight.passes.gpu_code import PASS as GPU_CODE
from deadweight.passes.gpu_code import cost
from deadweight.passes.shadowed import PASS as SHADOWED
from deadweight.passes.target import read_target
from deadweight.plan import SWAP, Cut, Plan
from deadweight.report.identity import image_line
from deadweight.report.model import (
    CutLine,
    ImageLine,
    LayerChange,
    OwnerSaving,
    PassLine,
    SavingLine,
    SlimReport,
    SwapLine,
)
from deadweight.report.text import valid
from deadweight.report.verdict import printable
from deadweight.verify.model import Verdict


def slim_report(
    plan: Plan,
    ledger: Ledger,
    applied: Applied | None = None,
    destination: Reference | None = None,
    savings: Sequence[SavingLine] = (),
    verdict: Verdict = Verdict(),  # noqa: B008  (frozen)
    over: Ledger | None = None,
) -> SlimReport:
    """The report of a plan over the ledger's image; with `applied`, also what was built, at `destination`.

    `savings` is what declaring a GPU would take out, `verdict` what comparing the two images came to, `over` the
    image with the plan's swaps done, where it has any.
    """
    image = ledger.image
    if applied is not None:
        plan = applied.plan
    written = applied.written if applied is not None else None
    owners = [_owner(cut, ledger, over or ledger) for cut in plan.cuts]
    after = None
    # Said of the target as it is now: the plan may have been edited.
    target = read_target(plan.target) if any(cut.pass_ == GPU_CODE.name for cut in plan.cuts) else None
    notes = [*image.notes, *plan.notes, *(cost(target) if target is not None else ())]
    if written is not None:
        after = ImageLine(
            reference=valid(str(destination if destination is not None else written.path)),
            digest=written.config_digest,
            platform=valid(image.platform),
            manifest_digest=written.manifest_digest,
        )
        notes += written.notes
    return SlimReport(
        image=image_line(image),
        target=plan.target,
        after=after,
        before_bytes=plan.before_bytes,
        predicted_bytes=plan.predicted_bytes,
        after_bytes=None if written is None else sum(written.sizes),
        compressed_before_bytes=image.stored_size,
        compressed_after_bytes=None if written is None else sum(written.stored_sizes),
        edited=applied is not None and applied.edited,
        passes=_passes(plan),
        owners=_owners(plan, owners),
        layers=[
            LayerChange(
                layer=size.layer,
                before_bytes=size.before_bytes,
                predicted_bytes=size.predicted_bytes,
                after_bytes=None if written is None else written.sizes[size.layer],
                kept=size.layer in plan.kept_layers,
                created_by=valid(image.layers[size.layer].created_by),
                diff_id=size.diff_id,
                after_diff_id=None if written is None else written.diff_ids[size.layer],
            )
            for size in plan.layers
        ],
        cuts=_cut_lines(plan.cuts, owners),
        verdict=printable(verdict),
        notes=[valid(note) for note in dict.fromkeys(notes)],
        gpu_savings=list(savings),
        swaps=[
            SwapLine(valid(swap.name), valid(swap.before), valid(swap.after), valid(swap.wheel), swap.sha256)
            for swap in plan.swaps
        ],
    )


def _owner(cut: Cut, ledger: Ledger, over: Ledger) -> Owner:
    """Whose the bytes of a cut are."""
    if cut.pass_ == SHADOWED.name:
        return HIDDEN
    if not cut.path:
        return FRAMING
    ledger = ledger if cut.pass_ == SWAP else over
    if not cut.below:
        return ledger.owner(cut.path)
    files = (node.path for node in ledger.fs.walk(cut.path) if node.kind != "dir")
    return ledger.owner(next(files, cut.path))  # all of them have one


def _owners(plan: Plan, owners: Sequence[Owner]) -> list[OwnerSaving]:
    """What leaves of each owner, the most first; versions of one name are one owner."""
    by_owner: dict[Owner, list[int]] = {}  # what each cut saves
    for cut, owner in zip(plan.cuts, owners, strict=True):
        by_owner.setdefault(owner, []).append(cut.before_bytes - cut.after_bytes)
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for owner, each in by_owner.items():
        count, saved = sums.get((owner.name, owner.kind), (0, 0))
        sums[owner.name, owner.kind] = (count + len(each), saved + sum(each))
    lines = [OwnerSaving(valid(name), kind, *line) for (name, kind), line in sums.items()]
    return sorted(lines, key=lambda line: (-line.bytes, line.name))


def _cut_lines(cuts: Sequence[Cut], owners: Sequence[Owner]) -> list[CutLine]:
    return [
        CutLine(
            valid(cut.pass_),
            valid(cut.path),
            cut.layer,
            cut.action,
            cut.before_bytes,
            cut.after_bytes,
            cut.risk,
            valid(cut.why),
            valid(cut.evidence),
            valid(owner.name),
            None if cut.to is None else valid(cut.to),
            cut.below,
        )
        for cut, owner in zip(cuts, owners, strict=True)
    ]


def _passes(plan: Plan) -> list[PassLine]:
    """What each pass saves, the most first; `metadata` is what follows from the others."""
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for cut in plan.cuts:
        count, saved = sums.get((cut.pass_, cut.risk), (0, 0))
        sums[cut.pass_, cut.risk] = (count + 1, saved + cut.before_bytes - cut.after_bytes)
    lines = [PassLine(valid(name), risk, count, saved) for (name, risk), (count, saved) in sums.items()]
    return sorted(lines, key=lambda line: (-line.bytes, line.pass_))
