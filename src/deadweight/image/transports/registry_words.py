"""What registries say of a failure: the errors of the OCI distribution specification, and Docker's details."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from deadweight.decoding import from_json


class _Error(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""
    detail: Any = None


class _Errors(msgspec.Struct, frozen=True):
    errors: list[_Error] | None = None


def words_of(body: bytes) -> str:
    """The first error in an answer, on one line; empty where there is none. Not yet fit to be shown."""
    try:
        errors = from_json(body, _Errors).errors
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return ""
    return f"{errors[0].code} {errors[0].message} {_detail(errors[0].detail)}".strip() if errors else ""


def _detail(detail: Any) -> str:
    """What Docker's registry adds of its storage's failure: a system call's error, in words or by its number."""
    if isinstance(detail, str) and detail:
        return f"({detail.rpartition(': ')[2]})"
    enclosed = detail.get("Enclosed") if isinstance(detail, dict) else None
    number = enclosed.get("Err") if isinstance(enclosed, dict) else None
    return f"({os.strerror(number).lower()})" if isinstance(number, int) and 0 < number < 200 else ""
