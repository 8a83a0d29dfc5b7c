"""What is probed where nobody says what: everything that an image shows of itself."""

from __future__ import annotations

from deadweight.ledger.ledger import Ledger
from deadweight.verify.spec import ImportProbe, Probe, Spec


def default_probes(before: Ledger, after: Ledger, spec: Spec) -> list[Probe]:
    """The probes for two images, in the order of the table."""
    return [ImportProbe(name="modules import", modules=modules(before, after))]


def modules(before: Ledger, after: Ledger) -> list[str]:
    """The top-level modules of the distributions that both images have."""
    kept = {dist.name for dist in after.distributions}
    return sorted({name for dist in before.distributions if dist.name in kept for name in dist.top_level})
