"""What somebody says of an application outright: it overrides what was found."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class AppTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[app]: the application, as far as the image does not say it itself."""

    asgi: str | None = None
    """As `package.module:attribute`."""
    wsgi: str | None = None
    python: str | None = None
    """The interpreter, as a path or a name in PATH."""
    directory: str | None = None
    """Where the application's own modules are imported from; the image's WORKDIR without."""
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    health: str | None = None
    """The path of the health check."""
    env: dict[str, str] = {}
    """What the application needs to start and the image does not set: DATABASE_URL, say."""
