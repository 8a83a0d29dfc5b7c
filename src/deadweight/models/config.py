"""A model's config.json: what it says of numbers, and what has to be said once its weights are smaller.

transformers takes the numbers that it computes with from `torch_dtype` (or `dtype`) there. Since version 5 it takes
those of the weights where nothing is said, so that halved weights would be computed with in half precision, slowly on a
CPU. So it is said: float32, as before. The text stays as it is otherwise.
"""

from __future__ import annotations

import json
from typing import Any, Final

from deadweight.image.content import Content
from deadweight.models.int8 import QUANTIZATION

LIMIT: Final = 16 << 20
KEYS: Final = ("dtype", "torch_dtype")
SAYS_ENOUGH: Final = "it says already which numbers to compute with"


def read_config(raw: bytes) -> dict[str, Any]:
    """The object in a config.json. Raises ValueError where there is none."""
    try:
        found = json.loads(raw.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004
    return found


def new_config(raw: bytes, to: str) -> Content:
    """config.json with what `to` needs: `float32`, or `int8`, which is float32 and how the weights are quantized.

    Raises ValueError where it says so already, or something that goes against it.
    """
    found = read_config(raw)
    more: dict[str, Any] = {}
    if not any(found.get(key) for key in KEYS):
        more["torch_dtype"] = "float32"
    if to == "int8":
        if "quantization_config" in found:
            raise ValueError("it is quantized already")
        more["quantization_config"] = QUANTIZATION
    elif to != "float32":
        raise ValueError("a configuration can say float32 or int8")
    if not more:
        raise ValueError(SAYS_ENOUGH)
    if any(key in found for key in more):  # as null: which of two values counts is nobody's guess
        kept = {key: value for key, value in found.items() if key not in more}
        return Content((json.dumps({**more, **kept}, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass"),))
    lines = json.dumps(more, indent=2)[2:-2]
    at = raw.index(b"{") + 1
    return Content((raw[:at], f"\n{lines}{',' if found else ''}".encode(), (at, len(raw) - at)))
