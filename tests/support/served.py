"""Probes small images that run with configurations of their own: servers, and applications of real frameworks."""

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
from deadweight.verify.verification import check, verify
from support.images import Member
from support.mini import mini_image

ORACLES = next(
    iter((Path(__file__).parents[2] / ".venv-oracles" / "lib").glob("python3*/site-packages")), Path("missing")
)
"""Where real frameworks are installed, for tests to copy into images."""


def compared(
    folder: Path,
    before: Sequence[Member],
    after: Sequence[Member],
    probes: Sequence[Probe],
    config: dict[str, Any],
    after_config: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, ProbeResult]:
    """What probes find in two images, by the probes' names."""
    need_bubblewrap()
    first, second = mini_image(folder, before, config), mini_image(folder, after, after_config or config)
    with open_image(first) as one, open_image(second) as two:
        found = verify(Ledger(one), Ledger(two), Spec(defaults=False, probe=list(probes), **spec))
    return {result.name: result for result in found.probes}


def looked_at(
    folder: Path, members: Sequence[Member], probes: Sequence[Probe], config: dict[str, Any], **spec: Any
) -> dict[str, ProbeResult]:
    """What probes find in one image, by the probes' names."""
    need_bubblewrap()
    with open_image(mini_image(folder, members, config)) as image:
        found = check(Ledger(image), Spec(defaults=False, probe=list(probes), **spec))
    return {result.name: result for result in found.probes}


def need_bubblewrap() -> None:
    """Skips where nothing can be run."""
    try:
        find_bwrap()
    except EnvironmentFailure as error:
        pytest.skip(str(error))
