"""Every error that deadweight raises on purpose.

    DeadweightError
    ├── AnswerIsNo          1  a check failed, a probe differs
    ├── UsageError          2  the call is wrong
    ├── BadInputError       3  the input is bad
    │   ├── DigestError        what was read is not what its digest says
    │   ├── TarError           a layer or archive that is no sound tar
    │   └── PlanError          a plan that does not fit
    └── EnvironmentFailure  4  no space, no engine, no sandbox: no answer could be had

A message says what, where, and what to do. Names from images are hostile (terminal escapes), so messages
quote them with :func:`shown`.
"""

from __future__ import annotations


class DeadweightError(Exception):
    """The root of the hierarchy; `exit_status` is what the command line returns."""

    exit_status = 1


class AnswerIsNo(DeadweightError):
    """The question was answered, and the answer is no."""

    exit_status = 1


class UsageError(DeadweightError):
    """The call cannot be meant as it stands."""

    exit_status = 2


class BadInputError(DeadweightError):
    """The input is damaged, hostile or not supported."""

    exit_status = 3


class DigestError(BadInputError):
    """Content that does not hash to the digest it is known by."""


class TarError(BadInputError):
    """A tar stream that is truncated, contradicts itself, or names places outside the image."""


class PlanError(BadInputError):
    """A plan that is malformed, or does not fit the image at hand."""


class EnvironmentFailure(DeadweightError):
    """The machine cannot do it: no space, a missing tool, no permission."""

    exit_status = 4


def shown(text: str, limit: int = 200) -> str:
    """`text` quoted for a message: control characters escaped, and cut at `limit` characters."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return f"'{safe[:limit]}...'" if len(safe) > limit else f"'{safe}'"
