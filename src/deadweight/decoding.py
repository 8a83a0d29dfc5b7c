"""Documents as values of a type, for any thread: all that deadweight decodes or converts by a type goes through here.

msgspec looks at a type when it is first asked for it, in Python, and notes what it is to find before it has found it
all: a second thread that asks in between follows a null pointer. So one thread at a time looks at types.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

T = TypeVar("T")

_looking = threading.Lock()


@cache
def _decoder(codec: Any, kind: Any) -> Any:
    return codec.Decoder(kind)


def _known(codec: Any, kind: Any) -> Any:
    with _looking:
        return _decoder(codec, kind)


def from_json(data: bytes | str, kind: type[T]) -> T:
    """The value of a JSON document. Raises msgspec.MsgspecError, UnicodeError or RecursionError where it is none."""
    return cast(T, _known(msgspec.json, kind).decode(data))


def from_msgpack(data: bytes | memoryview, kind: type[T]) -> T:
    """The value of a MessagePack document. Raises as `from_json`."""
    return cast(T, _known(msgspec.msgpack, kind).decode(data))


def from_values(values: object, kind: type[T]) -> T:
    """The value that dicts, lists and scalars stand for. Raises msgspec.ValidationError or RecursionError."""
    _known(msgspec.json, kind)  # once it was looked at, any thread may convert to it
    return msgspec.convert(values, kind)
