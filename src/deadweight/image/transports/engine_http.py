"""Connections to engines: HTTP/1.1 over whatever socket leads to one, and errors that say what to do.

By the standard library's client, which takes any socket: a unix socket, TCP with or without TLS, or an ssh process.
"""

from __future__ import annotations

import grp
import http.client
import os
import socket
import ssl
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from deadweight.errors import EnvironmentFailure, shown
from deadweight.image.transports.engine_places import Place

PATIENCE = 20.0
"""Seconds until an engine that says nothing is said to hang."""
WORK_PATIENCE = 1800.0
"""The same while it works: before it sends an image it writes all of it to its own disk."""


class Refused(Exception):
    """The engine closed the connection before it had all."""


class Body:
    """The body of a request as a file, in chunks (RFC 9112, 7.1)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        if data:
            self._send(b"%x\r\n" % len(data))
            self._send(data)
            self._send(b"\r\n")
        return len(data)

    def finish(self) -> None:
        """Without this the engine knows that there was to be more."""
        self._send(b"0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        try:
            self._connection.send(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Refused from None
        except TimeoutError:
            raise _hangs(self._connection.place, WORK_PATIENCE) from None


class Connection(http.client.HTTPConnection):
    """A connection to a place, by its kind of socket."""

    def __init__(self, place: Place, timeout: float) -> None:
        super().__init__(place.host or "localhost", timeout=timeout)
        self.place = place
        self._patience = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    def connect(self) -> None:
        place = self.place
        if place.scheme == "unix":
            # Set first: closing this connection closes it, whatever connecting comes to.
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self._patience)
            self.sock.connect(place.path)
        elif place.scheme == "tcp":
            context = place.tls.context() if place.tls is not None else None
            self.sock = socket.create_connection((place.host, place.port or 0), self._patience)
            if context is not None:
                self.sock = context.wrap_socket(self.sock, server_hostname=place.host)
        else:
            self.sock, there = socket.socketpair()
            self.sock.settimeout(self._patience)
            self._said = tempfile.TemporaryFile()
            with there:
                ends = there.fileno()
                self._process = subprocess.Popen(_ssh(place), stdin=ends, stdout=ends, stderr=self._said)

    def said(self) -> str:
        """The last line of what ssh said."""
        if self._said is None or self._process is None:
            return ""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        self._said.seek(0)
        return self._said.read(1 << 16).decode("utf-8", "replace").strip().rpartition("\n")[2]

    def end(self) -> None:
        """Closes it, and ends ssh. Not `close`, which http.client calls when it fails: ssh's words are still wanted."""
        self.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
        if self._said is not None:
            self._said.close()
            self._said = None


def _ssh(place: Place) -> list[str]:
    """As Docker's command line does it: the client there passes its input on to the engine's socket."""
    command = ["ssh", "-o", "ConnectTimeout=15", "-T"]
    command += ["-l", place.user] if place.user else []
    command += ["-p", str(place.port)] if place.port else []
    client: list[str] = [place.kind]
    if place.path:
        client += ["--host" if place.kind == "docker" else "--url", f"unix://{place.path}"]
    return [*command, "--", place.host, *client, "system", "dial-stdio"]


@contextmanager
def answer(
    place: Place, method: str, path: str, *, patience: float | None = None
) -> Iterator[http.client.HTTPResponse]:
    connection = Connection(place, PATIENCE)
    try:
        with failures(place, connection):
            connection.connect()
            assert connection.sock is not None
            connection.sock.settimeout(patience or PATIENCE)
            connection.request(method, path)
            response = connection.getresponse()
        with response:
            yield response
    finally:
        connection.end()


@contextmanager
def failures(place: Place, connection: Connection | None = None) -> Iterator[None]:
    """Turns what goes wrong on the way into an EnvironmentFailure that says what to do."""
    try:
        yield
    except http.client.IncompleteRead:
        raise EnvironmentFailure(
            f"{place.title} at {place} broke off in the middle of its answer; run it again"
        ) from None
    except ssl.SSLError as error:  # one of them is a ValueError as well
        raise EnvironmentFailure(
            f"{place.title} is not reached at {place}: TLS failed: {error.reason or error}; DOCKER_CERT_PATH, or the "
            "context, has the certificates"
        ) from None
    except (http.client.HTTPException, ValueError, OverflowError):
        said = connection.said() if connection is not None else ""
        if said:
            raise EnvironmentFailure(f"{place.title} at {place} is not reached: ssh says {shown(said)}") from None
        raise nonsense(place) from None
    except TimeoutError:
        raise _hangs(place, PATIENCE) from None
    except OSError as error:
        said = connection.said() if connection is not None else ""
        raise EnvironmentFailure(
            f"{place.title} is not reached at {place}: {shown(said) if said else _explained(place, error)}"
        ) from None


def _hangs(place: Place, patience: float) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"{place.title} at {place} has not answered for {patience:g} seconds: see whether it is well, or restart it"
    )


def nonsense(place: Place) -> EnvironmentFailure:
    """What answers is no engine."""
    tls = ", and DOCKER_TLS_VERIFY whether it wants TLS" if place.scheme == "tcp" and place.tls is None else ""
    return EnvironmentFailure(
        f"what answers at {place} is no container engine: {_where_to_say(place)} has to name an engine's API{tls}"
    )


def _where_to_say(place: Place) -> str:
    return "DOCKER_HOST" if place.kind == "docker" else "CONTAINER_HOST"


def _explained(place: Place, error: OSError) -> str:
    service = "docker" if place.kind == "docker" else "podman.socket"
    user = "--user " if place.kind == "podman" and "/user/" in place.path else ""
    start = f"start it (systemctl {user}start {service}), or say where it is by {_where_to_say(place)}"
    if place.scheme == "ssh":
        return (
            "there is no ssh on this machine" if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        )
    if isinstance(error, FileNotFoundError):
        return f"there is no such socket; {start}"
    if isinstance(error, ConnectionRefusedError):
        return f"nothing listens there; {start}"
    if isinstance(error, PermissionError):
        return f"permission denied; {_permission(place)}"
    return f"{error.strerror or error}; {start}"


def _permission(place: Place) -> str:
    """Which group may use a socket, as the socket itself says."""
    with suppress(OSError, KeyError):
        status = os.stat(place.path)  # noqa: PTH116  (one call, and no Path needed)
        group = grp.getgrgid(status.st_gid).gr_name
        if status.st_mode & stat.S_IWGRP and group != "root":
            return f"join its group (sudo usermod -aG {group} $USER, then log in anew), or use sudo"
    return "use sudo" + (", or the user's own socket (systemctl --user start podman.socket)" * (place.kind == "podman"))
