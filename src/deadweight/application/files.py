"""A project's own files, read and never run: none outside its directory, none too large."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deadweight.errors import BadInputError, shown

SIZE_LIMIT = 64 << 20
"""Bytes of a file that is read whole: the largest uv.lock seen had 3 MB."""


def read_inside(folder: Path, path: str, limit: int = SIZE_LIMIT) -> bytes | None:
    """A file of the project; None where there is none, where it lies elsewhere, or is larger than `limit`."""
    try:
        real = Path(os.path.realpath(folder / path))
        if real.is_relative_to(os.path.realpath(folder)) and real.is_file() and real.stat().st_size <= limit:
            return real.read_bytes()
    except (OSError, ValueError):
        return None
    return None


def read_toml(folder: Path, path: str, limit: int = SIZE_LIMIT) -> dict[str, Any]:
    """A TOML file of the project; empty where there is none. Raises BadInputError for what is no TOML."""
    data = read_inside(folder, path, limit)
    if data is None:
        return {}
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # what is no UTF-8, no TOML, or a number of 5,000 digits
        raise BadInputError(f"{shown(str(folder / path))} is no TOML: {error}") from None


def table(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A table of tables; empty where there is none."""
    found: Any = document
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}
