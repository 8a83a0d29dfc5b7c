"""A server that does with requests what a test says, right or wrong."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Step = Callable[[BaseHTTPRequestHandler, threading.Event], None]


def says(status: int, body: bytes = b"{}", **headers: str) -> Step:
    """An answer."""

    def step(handler: BaseHTTPRequestHandler, _over: threading.Event) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return step


def drops(handler: BaseHTTPRequestHandler, _over: threading.Event) -> None:
    """The connection ends without an answer."""
    handler.close_connection = True


def drops_in_the_middle(handler: BaseHTTPRequestHandler, _over: threading.Event) -> None:
    """The connection ends in the middle of an answer."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    handler.close_connection = True


def says_nothing(_handler: BaseHTTPRequestHandler, over: threading.Event) -> None:
    """The connection stays, and there is no answer."""
    over.wait(20)


def trickles(start: bytes, more: bytes) -> Step:
    """Something comes all the time, and never the end."""

    def step(handler: BaseHTTPRequestHandler, over: threading.Event) -> None:
        handler.close_connection = True
        try:
            handler.wfile.write(start)
            while not over.wait(0.05):
                handler.wfile.write(more)
        except OSError:
            pass  # the client has gone, as it should

    return step


@dataclass
class Scripted:
    """What a server does with one request after another, the last step again and again; and how many came."""

    url: str
    steps: list[Step]
    asked: list[float] = field(default_factory=list)


class _Listener(ThreadingHTTPServer):
    request_queue_size = 128


@contextmanager
def scripted(*steps: Step, port: int = 0) -> Iterator[Scripted]:
    """Such a server, at this port or any."""
    over = threading.Event()
    connections: list[socket.socket] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            connections.append(self.connection)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            number = len(server.asked)
            server.asked.append(time.monotonic())
            server.steps[min(number, len(server.steps) - 1)](self, over)

        def log_message(self, *_arguments: object) -> None:
            pass

    listener = _Listener(("127.0.0.1", port), Handler)
    server = Scripted(f"http://127.0.0.1:{listener.server_port}", list(steps))
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        over.set()
        listener.shutdown()
        thread.join()
        for connection in connections:
            # Its thread would go on answering a client that keeps the connection.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        listener.server_close()
