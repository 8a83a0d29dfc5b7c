"""deadweight: where every byte of a container image is, and a smaller image without what it can never use.

with open_image("docker-archive:service.tar") as image:
    ledger = Ledger(image)
    plan = make_plan(ledger)
    apply_plan(plan, ledger, parse_reference("docker-archive:slim.tar"))
"""

from __future__ import annotations

from deadweight.apply import Applied, apply_plan
from deadweight.image.model import Image
from deadweight.image.reference import Reference, parse_reference
from deadweight.image.transports import open_image
from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import Options
from deadweight.plan import Plan, make_plan, read_plan, write_plan

__all__ = [
    "Applied",
    "Image",
    "Ledger",
    "Options",
    "Plan",
    "Reference",
    "apply_plan",
    "make_plan",
    "open_image",
    "parse_reference",
    "read_plan",
    "write_plan",
]
