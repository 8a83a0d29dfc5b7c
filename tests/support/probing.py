"""Probes two small images that run, and gives the results by the probes' names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from deadweight import Ledger, open_image
from deadweight.errors import EnvironmentFailure
from deadweight.verify.model import ProbeResult
from deadweight.verify.sandbox.bubblewrap import find_bwrap
from deadweight.verify.spec import Probe, Spec
from deadweight.verify.verification import Setting, check, verify
from support.images import Member
from support.mini import mini_image


def probed(
    place: Path,
    before: Sequence[Member],
    after: Sequence[Member],
    probes: Sequence[Probe],
    config: dict[str, Any] | None = None,
    setting: Setting = Setting(),  # noqa: B008  (frozen)
    **spec: Any,
) -> dict[str, ProbeResult]:
    """What probes find in two images of one configuration, with files of their own on top of what both have."""
    _need_bubblewrap()
    whole = Spec(defaults=False, probe=list(probes), **spec)
    references = [mini_image(place, members, config) for members in (before, after)]
    with open_image(references[0]) as one, open_image(references[1]) as two:
        found = verify(Ledger(one), Ledger(two), whole, setting=setting)
    return {result.name: result for result in found.probes}


def checked(place: Path, members: Sequence[Member], probes: Sequence[Probe], **spec: Any) -> dict[str, ProbeResult]:
    """What probes find in one image."""
    _need_bubblewrap()
    with open_image(mini_image(place, members)) as image:
        found = check(Ledger(image), Spec(defaults=False, probe=list(probes), **spec))
    return {result.name: result for result in found.probes}


def _need_bubblewrap() -> None:
    try:
        find_bwrap()
    except EnvironmentFailure as error:
        pytest.skip(str(error))
