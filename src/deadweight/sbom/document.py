"""Writes an inventory as a document: the same bytes for the same image and plan, on every machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final
from uuid import UUID, uuid5

import msgspec

from deadweight.errors import UsageError, shown
from deadweight.report.text import printable_json
from deadweight.sbom.model import About, Inventory

_NAMESPACE: Final = UUID("6f1b7a0e-3c58-5a8e-9a33-3f2f6a1d7c55")
"""Of deadweight's documents, for identifiers of version 5 (RFC 9562)."""


def document(form: str, found: Inventory, environment: Mapping[str, str] = os.environ) -> bytes:
    """The inventory in a form (`cyclonedx`, `spdx`), as JSON. Raises UsageError where SOURCE_DATE_EPOCH is no time."""
    made = _made(found, environment)
    tool = version("deadweight")
    content = msgspec.json.encode((form, tool, made, found), order="deterministic")
    about = About(tool, made, uuid5(_NAMESPACE, hashlib.sha256(content).hexdigest()))
    return (printable_json(_writer(form)(found, about)).rstrip("\n") + "\n").encode()


def _writer(form: str) -> Callable[[Inventory, About], str]:
    if form == "cyclonedx":
        from deadweight.sbom.cyclonedx import write  # noqa: PLC0415
    else:
        from deadweight.sbom.spdx import write  # noqa: PLC0415
    return write


def _made(found: Inventory, environment: Mapping[str, str]) -> datetime:
    """SOURCE_DATE_EPOCH, else when the image says that it was made: the clock would make two runs differ."""
    epoch = environment.get("SOURCE_DATE_EPOCH", "")
    try:
        if epoch:
            return datetime.fromtimestamp(int(epoch), UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"SOURCE_DATE_EPOCH is {shown(epoch)}: it has to be seconds since 1970") from None
    try:
        stated = datetime.fromisoformat(found.subject.created)
        stated = stated if stated.tzinfo is not None else stated.replace(tzinfo=UTC)
        return stated.astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):
        return datetime.fromtimestamp(0, UTC)
