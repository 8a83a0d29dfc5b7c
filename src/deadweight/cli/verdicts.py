"""What `verify`, `check` and `slim --verify` have in common: the specification, the sandbox, the exit status."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deadweight.verify.spec import Spec
    from deadweight.verify.verification import Setting

STATUS = {True: 0, False: 1, None: 4}
"""Exit statuses, by a verdict's `same`."""
DEFAULT_SPEC = "deadweight.toml"


def spec_of(
    source: str | None, memory: int | None = None, timeout: float | None = None, *, default: bool = True
) -> tuple[Spec, str]:
    """The specification that --spec names, and where it came from; the working directory's deadweight.toml otherwise.

    `memory` and `timeout` take the place of its limits. Raises BadInputError, with line and key, when it is no good.
    """
    import msgspec  # noqa: PLC0415

    from deadweight.verify.spec import Spec  # noqa: PLC0415
    from deadweight.verify.spec.reading import read_spec  # noqa: PLC0415

    if source is None and default and Path(DEFAULT_SPEC).is_file():
        source = DEFAULT_SPEC
    spec = Spec() if source is None else read_spec(source)
    limits = spec.limits
    if memory is not None:
        limits = msgspec.structs.replace(limits, memory=str(memory))
    if timeout is not None:
        limits = msgspec.structs.replace(limits, timeout=timeout)
    return msgspec.structs.replace(spec, limits=limits), source or ""


def setting_of(
    sandbox: str, gpus: bool, network: bool, tolerance: float = 0.0, max_loss: float | None = None
) -> Setting:
    """What the probes run in."""
    from deadweight.verify.sandbox import Options  # noqa: PLC0415
    from deadweight.verify.verification import Setting  # noqa: PLC0415

    return Setting(sandbox, Options(gpus, network), tolerance, max_loss)
