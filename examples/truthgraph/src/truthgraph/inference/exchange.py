"""One question over HTTP and its answer, within a time that holds whatever the other side does."""

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import anyio
import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal

CONNECT = 3.0
"""Seconds for a connection: a service that is there takes it at once."""
LARGEST = 64 << 20
"""Bytes of an answer. A hundred vectors of the widest models are a tenth of that."""


class LateError(Exception):
    """There is no whole answer in time."""


class UnreachableError(Exception):
    """There is no connection, or it broke before the answer was whole."""


class GarbledError(Exception):
    """There is an answer that nobody can read."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    content: bytes
    retry_after: float | None
    """Seconds, where the answer says after how many to ask again."""


class Exchange:
    """Connections to one service, kept open between questions. Threads may share it.

    HTTP clients limit the time of each read, so that a service that sends a byte now and then holds them for ever, and
    the lookup of a name is not limited at all. So questions are asked in an event loop, in a thread of its own, where
    the whole of one can be cancelled. The thread starts with the first question, since a process may fork before.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._resources = ExitStack()
        self._running: tuple[BlockingPortal, httpx2.AsyncClient] | None = None

    def post(self, route: str, body: object, seconds: float) -> Answer:
        """The answer to a body, sent as JSON. Raises LateError, UnreachableError or GarbledError."""
        portal, client = self._start()
        try:
            return portal.call(_post, client, route, body, seconds)
        except httpx2.ConnectTimeout as error:
            raise UnreachableError(f"no connection within {CONNECT:g} s") from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise LateError(f"no answer within {seconds:.3g} s") from error
        except httpx2.TransportError as error:
            raise UnreachableError(str(error) or type(error).__name__) from error
        except httpx2.RequestError as error:
            raise GarbledError(str(error)) from error

    def close(self) -> None:
        """Close the connections, and end the thread."""
        with self._lock:
            if self._running is not None:
                portal, client = self._running
                self._running = None
                portal.call(client.aclose)
                self._resources.close()

    def _start(self) -> tuple[BlockingPortal, httpx2.AsyncClient]:
        with self._lock:
            if self._running is None:
                portal = self._resources.enter_context(start_blocking_portal(name="inference"))
                # Without a limit of its own for reads: the whole question has one.
                timeout = httpx2.Timeout(None, connect=CONNECT)
                self._running = portal, httpx2.AsyncClient(base_url=self._url, timeout=timeout)
            return self._running


async def _post(client: httpx2.AsyncClient, route: str, body: object, seconds: float) -> Answer:
    content = bytearray()
    with anyio.fail_after(seconds):
        async with client.stream("POST", route, json=body) as response:
            async for part in response.aiter_bytes():
                content += part
                if len(content) > LARGEST:
                    raise GarbledError(f"more than {LARGEST:,} bytes")
    return Answer(response.status_code, bytes(content), retry_after(response.headers.get("retry-after")))


def retry_after(value: str | None) -> float | None:
    """Seconds from now, by a header that has a number of them or a date; None where there is none, or nonsense."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):  # a date without a zone cannot be subtracted
        return None
