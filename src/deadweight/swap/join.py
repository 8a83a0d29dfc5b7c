"""A plan over a swapped image as a plan over the original, and back."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from deadweight.errors import PlanError
from deadweight.plan import SWAP, LayerSize, Plan, PlanImage
from deadweight.planning import Worked
from deadweight.swap.lost import lost_with
from deadweight.swap.swapped import Swapped

LABEL = "deadweight.swap"
"""By which an image says what was swapped: `torch 2.13.0 -> 2.13.0+cpu`, joined by commas."""


def joined(worked: Worked, swapped: Swapped) -> Worked:
    """What was worked out over the swapped image, as a plan for the original: the swaps' cuts come first."""
    plan, original = worked.plan, swapped.original.image
    layers = [
        LayerSize(layer.position, layer.diff_id, layer.size, size.predicted_bytes)
        for layer, size in zip(original.layers, plan.layers, strict=True)
    ]
    image = PlanImage(
        original.reference, original.config_digest, [layer.diff_id for layer in original.layers], original.platform
    )
    lost = lost_with(swapped.ledger, swapped.orphans, plan.cuts)
    whole = msgspec.structs.replace(
        plan,
        image=image,
        before_bytes=original.size,
        layers=layers,
        cuts=[*swapped.cuts, *plan.cuts],
        notes=_once([*swapped.notes, *lost, *plan.notes]),
        swaps=list(swapped.swaps),
    )
    saved = sum(cut.before_bytes - cut.after_bytes for cut in whole.cuts)
    if whole.before_bytes - saved != whole.predicted_bytes:
        raise AssertionError(f"the cuts add up to {saved:,} bytes, the layers do not")
    text = ", ".join(f"{swap.name} {swap.before} -> {swap.after}" for swap in swapped.swaps)
    return msgspec.structs.replace(worked, plan=whole, labels={**worked.labels, LABEL: text})


def inner(plan: Plan, swapped: Swapped) -> Plan:
    """The part of a plan that is over the swapped image. Raises PlanError where the swaps are not the plan's."""
    theirs, ours = (
        [msgspec.structs.replace(swap, source="") for swap in swaps] for swaps in (plan.swaps, swapped.swaps)
    )
    original = swapped.original.image
    if theirs != ours:
        raise PlanError("the plan's swaps are not those that were done: make a new plan")
    if plan.image.digest != original.config_digest:
        raise PlanError(
            f"the plan is for the image {plan.image.digest[:19]}, this is {original.config_digest[:19]}: "
            "make a new plan"
        )
    if plan.image.diff_ids != [layer.diff_id for layer in original.layers]:
        raise PlanError("the plan's diff-ids are not those of the image: make a new plan")
    image = swapped.ledger.image
    sizes = {size.layer: size.predicted_bytes for size in plan.layers}
    return msgspec.structs.replace(
        plan,
        image=msgspec.structs.replace(plan.image, diff_ids=[layer.diff_id for layer in image.layers]),
        before_bytes=image.size,
        layers=[
            LayerSize(layer.position, layer.diff_id, layer.size, sizes.get(layer.position, layer.size))
            for layer in image.layers
        ],
        cuts=[cut for cut in plan.cuts if cut.pass_ != SWAP],
        swaps=[],
    )


def _once(notes: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(notes))
