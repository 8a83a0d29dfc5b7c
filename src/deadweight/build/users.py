"""The layer with the user that the service runs as, and its working directory."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import Final

from deadweight.build.base import DEV, Base
from deadweight.build.pack import Item
from deadweight.build.places import APP, UID, USER
from deadweight.errors import BadInputError, shown

FORMAT: Final = 2
"""Of the layer: raised where the same inputs give other bytes than before."""
_LINES: Final = {
    "etc/passwd": f"{USER}:x:{UID}:{UID}::{APP}:/usr/sbin/nologin",
    "etc/group": f"{USER}:x:{UID}:",
    "etc/shadow": f"{USER}:!:::::::",
    "etc/gshadow": f"{USER}:!::",
}


def user_items(base: Base) -> Iterator[Item]:
    """The base's user database with the user and its group, and the directory that they own.

    Raises BadInputError where the base has another user or group of that name or number.
    """
    for path, line in _LINES.items():
        account = base.accounts.get(path)
        if account is None:
            if path in ("etc/shadow", "etc/gshadow"):
                continue
            yield Item(path, f"{line}\n".encode(), mode=0o644)
            continue
        text = account.text
        if not _has(path, text, line):
            text = f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n"
        yield Item(path, text.encode("latin-1"), mode=account.mode, uid=account.uid, gid=account.gid)
    yield Item(APP.strip("/"), uid=UID, gid=UID)
    for folder in (DEV, *_parents(APP)):  # mmdebstrap leaves the first out with the devices in it
        if folder not in base.folders:
            yield Item(folder)


def _has(path: str, text: str, line: str) -> bool:
    """Whether the base has the user or group already."""
    wanted = line.split(":")
    numbered = path in ("etc/passwd", "etc/group")
    for other in text.split("\n"):
        fields = other.split(":")
        same_name = fields[0] == wanted[0]
        same_number = numbered and fields[2:3] == wanted[2:3]
        if numbered and same_name != same_number:
            raise BadInputError(
                f"the base's /{path} has {shown(other, 60)}, and the service is to run as {USER}, number {UID}: "
                "take another base"
            )
        if same_name:
            return True
    return False


def _parents(path: str) -> list[str]:
    parts = posixpath.dirname(path.strip("/")).split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1) if parts[0]]
