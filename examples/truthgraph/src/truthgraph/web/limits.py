"""How much one request and all of them together may ask for."""

from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from truthgraph.errors import BadInput
from truthgraph.settings import Settings
from truthgraph.web.errors import problem

UNLIMITED = frozenset({"/", "/health"})
"""What must be answered however busy the service is."""


def check_texts(settings: Settings, *texts: str) -> None:
    """Raise where a text is too long."""
    for text in texts:
        if len(text) > settings.max_text_length:
            raise BadInput(f"a text has {len(text)} characters, {settings.max_text_length} are allowed")


def check_batch(settings: Settings, items: Sequence[object]) -> None:
    """Raise where there are too many texts or pairs."""
    if len(items) > settings.max_batch:
        raise BadInput(f"the request has {len(items)} items, {settings.max_batch} are allowed")


class LimitBody:
    """Answers 413 to a body that is too large, by its stated length or else by what comes; reads no further then.

    The body is read here, before the application starts, so that it takes up no place among the requests at work
    however slowly it comes.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or int(stated) > self._most:
            await self._refuse(scope, receive, send)
            return
        parts: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._most:
                await self._refuse(scope, receive, send)
                return
            more = message.get("more_body", False)
        body: Message | None = {"type": "http.request", "body": b"".join(parts), "more_body": False}

        async def replay() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            message, body = body, None
            return message

        await self._app(scope, replay, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem(413, "too_large", f"the body may have {self._most} bytes", {"connection": "close"})
        await answer(scope, receive, send)


class LimitConcurrency:
    """Answers 429 where too many requests are at work already."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._at_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection. All run in one thread, so counting needs no lock."""
        if scope["type"] != "http" or scope["path"] in UNLIMITED:
            await self._app(scope, receive, send)
            return
        if self._at_work >= self._most:
            answer = problem(429, "too_busy", f"{self._most} requests are at work: try again", {"retry-after": "1"})
            await answer(scope, receive, send)
            return
        self._at_work += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._at_work -= 1
