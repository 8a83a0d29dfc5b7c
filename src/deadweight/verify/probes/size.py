"""The image's size."""

from __future__ import annotations

from deadweight.sizes import parse_size, show_size
from deadweight.verify.model import Observation
from deadweight.verify.probes import Kind
from deadweight.verify.side import Side
from deadweight.verify.spec import SizeProbe


def observe(probe: SizeProbe, side: Side) -> Observation:
    """The sum of the layers' uncompressed bytes."""
    size = side.ledger.image.size
    return Observation(show_size(size), {"bytes": str(size)}, data=size)


def differences(probe: SizeProbe, before: Observation, after: Observation) -> list[str]:
    """Without a budget, the original is the budget."""
    if probe.max is not None or after.data <= before.data:
        return []
    return [f"size: {after.data - before.data:,} bytes more than the original"]


def unmet(probe: SizeProbe, seen: Observation) -> list[str]:
    """Whether it is over its budget."""
    budget = parse_size(probe.max) if probe.max is not None else None
    if budget is None or seen.data <= budget:
        return []
    return [f"size: {seen.data:,} bytes, {seen.data - budget:,} more than {probe.max}"]


KIND = Kind(observe, differences, unmet, must=lambda _: True)
