"""deadweight: where every byte of a container image is, and a smaller image without what it can never use.

    with open_image("docker-archive:service.tar") as image:
        ledger = Ledger(image)
        plan = make_plan(ledger)
        apply_plan(plan, ledger, parse_reference("docker-archive:slim.tar"))

Names are loaded when they are first used, so that `deadweight --help` need not wait for what it does not show.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deadweight.apply import Applied, apply_plan
    from deadweight.binary.gpu import Target
    from deadweight.image.model import Image
    from deadweight.image.reference import Reference, parse_reference
    from deadweight.image.transports import open_image
    from deadweight.ledger.ledger import Ledger
    from deadweight.passes.base import Options
    from deadweight.plan import Plan, read_plan, write_plan
    from deadweight.planning import make_plan

__all__ = [
    "Applied",
    "Image",
    "Ledger",
    "Options",
    "Plan",
    "Reference",
    "Target",
    "apply_plan",
    "make_plan",
    "open_image",
    "parse_reference",
    "read_plan",
    "write_plan",
]

_PLACES = {
    "Applied": "apply",
    "Image": "image.model",
    "Ledger": "ledger.ledger",
    "Options": "passes.base",
    "Plan": "plan",
    "Reference": "image.reference",
    "Target": "binary.gpu",
    "apply_plan": "apply",
    "make_plan": "planning",
    "open_image": "image.transports",
    "parse_reference": "image.reference",
    "read_plan": "plan",
    "write_plan": "plan",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
