"""An end to waiting for the head of an answer.

A server that sends a byte now and then never lets the time pass that one read may take. So the head as a whole has a
time as well, from the moment that the request is sent; when it is over the connections to that registry are shut down.
What was under way on others breaks off, and is tried again.
"""

from __future__ import annotations

import socket
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any


class HeadWatch:
    """Knows the sockets of one client. Safe to use from several threads."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()

    def request(self) -> Head:
        """What watches one request: for the extension `trace` of httpx2's requests."""
        return Head(self)

    def opened(self, sock: socket.socket) -> None:
        """Notes a socket."""
        with self._lock:
            self._sockets.add(sock)

    def shut(self) -> None:
        """Ends every connection: whoever reads one sees its end."""
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with suppress(OSError):
                # Not SSLSocket's own, which takes the TLS from under who is reading.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Head:
    """Called by httpcore2 with what happens to a request: https://www.encode.io/httpcore/extensions/#trace."""

    def __init__(self, watch: HeadWatch) -> None:
        self.late = False
        """Whether the head took too long."""
        self._watch = watch
        self._timer: threading.Timer | None = None

    def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith((".connect_tcp.complete", ".start_tls.complete")):
            self._watch.opened(info["return_value"].get_extra_info("socket"))
        elif event.endswith(".receive_response_headers.started"):
            self._timer = threading.Timer(self._watch.seconds, self._end)
            self._timer.daemon = True
            self._timer.start()
        elif event.endswith((".receive_response_headers.complete", ".receive_response_headers.failed")):
            assert self._timer is not None
            self._timer.cancel()

    def _end(self) -> None:
        self.late = True
        self._watch.shut()
