"""Every error as JSON of one shape: `error`, a word for programs, and `detail`, a sentence for people."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from truthgraph.errors import TruthgraphError

log = structlog.get_logger()

RETRY_AFTER = 5
"""Seconds after which clients may ask again, where nothing better is known."""
MOST_RETRY_AFTER = 3600
MOST_FAULTS = 5
"""Faults of one request that its answer lists."""


def problem(status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer for an error."""
    return JSONResponse({"error": code, "detail": detail}, status, headers=dict(headers or {}))


def register(app: FastAPI) -> None:
    """Make the application answer all its errors this way."""
    app.add_exception_handler(TruthgraphError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, TruthgraphError)
    headers = None
    if error.status == 503:
        seconds = (
            RETRY_AFTER if error.retry_after is None else min(max(1, math.ceil(error.retry_after)), MOST_RETRY_AFTER)
        )
        headers = {"retry-after": str(seconds)}
    return problem(error.status, error.code, str(error), headers)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return problem(422, "bad_input", _faults(error.errors()))


async def _http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return problem(error.status_code, code, str(error.detail), error.headers)


async def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
    return problem(500, "internal", "the service failed; its log says why")


def _faults(faults: Sequence[Any]) -> str:
    """`body.texts.0: String should have at least 1 character`, for each fault; never the input itself."""
    said = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:MOST_FAULTS]]
    if len(faults) > MOST_FAULTS:
        said.append(f"and {len(faults) - MOST_FAULTS} more")
    return "; ".join(said)
