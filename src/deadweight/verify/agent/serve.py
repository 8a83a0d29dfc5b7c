"""Runs the image's own server, waits until it answers, sends it requests, and ends it."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOSTS = ("127.0.0.1", "::1")
TAIL = 64 << 10
BODY = 8 << 20
"""Bytes of all bodies together that are given; what is more is only counted and hashed."""
LONGEST = 512 << 20
"""Bytes after which a body is taken to have no end."""
CONNECT = 2.0
HEALTH = 60.0
"""Seconds for one answer to the health check: servers take connections before they have loaded their model."""
PATIENCE = 5.0
"""Seconds between a first answer on another port and the one that is expected, before the other will do."""
GRACE = 1.0
"""Seconds for the server to end itself before it is killed, as everything in the sandbox is."""


def run(arguments: dict[str, Any]) -> dict[str, Any]:
    """Starts `argv` and gives what came of it.

    `port` is where it is expected. With `any_port`, whatever port it listens on will do, since nobody else listens in
    here. It is up when GET `path` has an answer of `status`, or of any below 500; it has `up` seconds for that, and
    all requests together have `seconds` from the start.
    """
    start = time.monotonic()
    found: dict[str, Any] = {"up": None, "answers": [], "exit": None}
    try:
        server = subprocess.Popen(
            arguments["argv"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        found["error"] = "%s: %s" % (arguments["argv"][0], getattr(error, "strerror", None) or error)
        return found
    log = bytearray()
    drain = threading.Thread(target=collect, args=(server.stdout, log), daemon=True)
    drain.start()
    try:
        address, health = wait(server, arguments, start + arguments["up"])
        found["health"] = health
        if address is not None:
            found["up"] = time.monotonic() - start
            found["port"] = address[1]
            room = BODY
            for request in arguments["requests"]:
                answer = ask(address, request, start + arguments["seconds"], room)
                room -= 0 if "sha256" in answer else answer.get("size", 0)
                found["answers"].append(answer)
            if any("error" in answer for answer in found["answers"]):
                time.sleep(0.5)  # it may be about to end
    finally:
        found["exit"] = server.poll()
        end(server)
        drain.join(1)
        found["log"] = bytes(log).decode("utf-8", "replace")
    return found


def collect(pipe: Any, log: bytearray) -> None:
    """Reads all that the server prints, so that it never waits for a reader, and keeps the end of it."""
    while True:
        data = os.read(pipe.fileno(), 1 << 16)
        if not data:
            return
        log += data
        del log[:-TAIL]


def wait(server: Any, arguments: dict[str, Any], deadline: float) -> tuple[Any, Any]:
    """Polls until the server is up: its (host, port) or None, and the last answer to the health check."""
    last = None
    silent: dict[Any, float] = {}  # when somebody at an address was first there, but spoke no HTTP
    pause = 0.02
    expected = arguments["port"]
    others = 0.0  # when another port was first there: it may be that of metrics, say
    while True:
        ended = server.poll() is not None
        ports = [expected] if expected else []
        if arguments["any_port"]:
            more = [port for port in listening() if port != expected]
            others = others or (time.monotonic() if more else 0.0)
            if not expected or (others and time.monotonic() - others > PATIENCE):
                ports += more
        for port in ports:
            for host in HOSTS:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None, last
                answer = get((host, port), arguments["path"], left)
                if answer is None:
                    continue
                wanted = arguments["status"]
                if "status" not in answer:
                    since = silent.setdefault((host, port), time.monotonic())
                    if arguments["any_answer"] and time.monotonic() - since > PATIENCE:
                        return (host, port), answer
                    continue
                last = answer
                if answer["status"] == wanted if wanted else answer["status"] < 500:
                    return (host, port), answer
        if ended or time.monotonic() >= deadline:
            return None, last
        time.sleep(pause)
        pause = min(pause * 1.5, 0.5)


def listening() -> list[int]:
    """The TCP ports that somebody listens on, as the kernel lists them (proc_net_tcp; state 0A is LISTEN)."""
    ports = []
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(name) as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == "0A" and port not in ports:
                ports.append(port)
    return sorted(ports)


def get(address: tuple[str, int], path: str, left: float) -> dict[str, Any] | None:
    """The answer to the health check, an error where it is no HTTP; None where nobody takes the connection."""
    answer = ask(address, {"method": "GET", "path": path, "headers": {}, "timeout": HEALTH}, time.monotonic() + left)
    return answer if "status" in answer or answer.get("connected") else None


def ask(address: tuple[str, int], request: dict[str, Any], deadline: float, room: int = 0) -> dict[str, Any]:
    """One request and its answer with at most `room` bytes of a body, or the error instead of one."""
    start = time.monotonic()
    limit = min(deadline, start + (request.get("timeout") or 1e9))
    if limit <= start:
        return {"error": "out of time", "seconds": 0.0}
    connection = http.client.HTTPConnection(address[0], address[1], timeout=min(CONNECT, limit - start))
    result: dict[str, Any] = {}
    # The time of a socket is that of each wait, and a server can drip: after the whole time the connection is cut.
    cut = threading.Timer(limit - start, sever, (connection,))
    cut.daemon = True
    cut.start()
    try:
        connection.connect()
        assert connection.sock is not None
        connection.sock.settimeout(limit - start + 1)
        body = request.get("body")
        connection.request(
            request["method"], request["path"], None if body is None else body.encode(), request["headers"]
        )
        answer = connection.getresponse()
        content = read(answer, room)
        result = {"status": answer.status, "headers": headers(answer)}
        result.update(content)
    except (OSError, http.client.HTTPException, ValueError) as error:
        late = time.monotonic() >= limit
        result = {"error": "out of time" if late else "%s: %s" % (type(error).__name__, error)}
        result["connected"] = connection.sock is not None and not late
    finally:
        cut.cancel()
        connection.close()
    result["seconds"] = time.monotonic() - start
    return result


def sever(connection: Any) -> None:
    """Ends a connection that somebody waits on."""
    if connection.sock is not None:
        try:
            connection.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return


def headers(answer: Any) -> dict[str, str]:
    """The headers that are looked at, with names in small letters."""
    wanted = ("content-type", "location", "content-encoding")
    return {name: str(answer.headers[name])[:2000] for name in wanted if answer.headers[name] is not None}


def read(answer: Any, room: int) -> dict[str, Any]:
    """A body: as text where it is UTF-8, in base64 where not; with its length, and its digest where it is cut."""
    kept = bytearray()
    size = 0
    digest = hashlib.sha256()
    while True:
        data = answer.read1(1 << 16)
        if not data:
            break
        size += len(data)
        digest.update(data)
        kept += data[: max(0, room - len(kept))]
        if size > LONGEST:
            raise ValueError("the body has more than %d bytes" % LONGEST)
    if answer.length:  # http.client only says so where all is read at once
        raise ValueError("the body ends %d bytes early" % answer.length)
    result: dict[str, Any] = {"size": size}
    if size > room:
        result["sha256"] = digest.hexdigest()
        return result
    try:
        result["text"] = kept.decode("utf-8")
    except UnicodeDecodeError:
        result["base64"] = base64.b64encode(bytes(kept)).decode()
    return result


def end(server: Any) -> None:
    """Ends the server and all in its session's group: kindly, then not."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(GRACE)
        except (OSError, subprocess.TimeoutExpired):
            continue
