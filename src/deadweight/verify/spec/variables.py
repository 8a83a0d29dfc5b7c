"""Variables in words, as Go's os.Expand has them: https://pkg.go.dev/os#Expand."""

from __future__ import annotations

import re
from collections.abc import Mapping

_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*|[*#$@!?\-0-9]))")


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """`text` with `$NAME` and `${NAME}` replaced; what is not set is empty, and a `$` without a name stays."""
    return _VARIABLE.sub(lambda match: environment.get(match[1] or match[2] or "", ""), text)


def filled_in(text: str, known: Mapping[str, str]) -> str:
    """`text` with those variables replaced that are known; the others stay as they are."""
    return _VARIABLE.sub(lambda match: known.get(match[1] or match[2] or "", match[0]), text)
