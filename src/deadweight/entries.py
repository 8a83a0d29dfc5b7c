"""Small files that are there whole or not at all: each begins with the digest of what follows.

    deadweight-cache 1 SHA256\\n
    what follows

They are written beside and renamed. One that is damaged, truncated or somebody else's is as one that is not there.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from deadweight.decoding import from_msgpack

_MAGIC: Final = b"deadweight-cache 1 "
_HEAD: Final = len(_MAGIC) + 65
MOST: Final = 1 << 30
"""Bytes of one entry: more is nothing that was written here."""


def read_entry(path: Path, *, use: bool = True) -> memoryview | None:
    """What an entry holds; None when there is none, or it is not sound. Its time is that of its last `use`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with suppress(OSError), os.fdopen(fd, "rb") as file:
        if os.fstat(fd).st_size > MOST:
            return None
        data = file.read(MOST)
        body = memoryview(data)[_HEAD:]
        if data[:_HEAD] == _head(path.name, body):
            if use:
                with suppress(OSError):
                    os.utime(fd)
            return body
    return None


def write_entry(path: Path, body: bytes) -> None:
    """Keeps an entry. Raises OSError; then there is none, or the one that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{secrets.token_hex(8)}")
    try:
        with partial.open("xb") as file:
            file.write(_head(path.name, body))
            file.write(body)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load(path: Path, kind: Any, *, use: bool = True) -> Any:
    """The value of a type that msgspec knows; None where there is no sound entry of that type."""
    body = read_entry(path, use=use)
    if body is None:
        return None
    try:
        return from_msgpack(body, kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def keep(path: Path, value: Any) -> int:
    """Keeps a value, if that can be done: what is not there is worked out again. Gives the bytes that it takes.

    Names that are no UTF-8 and numbers beyond 64 bits have no place in an entry.
    """
    with suppress(OSError, UnicodeError, OverflowError):
        body = msgspec.msgpack.encode(value)
        write_entry(path, body)
        return _HEAD + len(body)
    return 0


def _head(name: str, body: bytes | memoryview) -> bytes:
    digest = hashlib.sha256(f"{name}\0".encode())
    digest.update(body)
    return _MAGIC + digest.hexdigest().encode() + b"\n"
