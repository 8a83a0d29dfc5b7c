"""Runs an image's server in a container and measures it: start-up, the first answer, latency, memory.

Containers have the host's network, so that nothing stands between a client and the server, and the image's own user,
working directory and command; only the port is another one.
"""

from __future__ import annotations

import http.client
import json
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from phase_engine import free_port

T = TypeVar("T")
PORT = "8000"
STARTS = 3
WARM_UP = 20
EMBEDDINGS = 200
JUDGEMENTS = 200
VERDICTS = 40
PATIENCE = 300.0
HEALTHY = 90.0
WRITABLE = {"DATABASE_URL": "sqlite:////tmp/truthgraph.db"}
"""In images that deadweight builds the server's user can write to /tmp alone."""
SHARES = "100000"
"""Of the processor; other work has 1,024."""
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True)
class Server:
    """A running container that answers."""

    container: str
    port: int
    seconds: float
    """From the engine being told to start it to its health check being answered."""

    def ask(self, path: str, body: object = None) -> Any:
        """The answer to one request on a connection of its own. Raises SystemExit unless it is 200 or 201."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            return _ask(connection, path, body)
        finally:
            connection.close()


@contextmanager
def started(docker: Sequence[str], tag: str, environment: Mapping[str, str]) -> Iterator[Server]:
    """A container of an image, up and healthy, and gone afterwards."""
    port = free_port()
    words = ["create", "--network", "host", "--no-healthcheck", *_preferred(docker)]
    for name, value in {**WRITABLE, **environment}.items():
        words += ["--env", f"{name}={value}"]
    container = _run(docker, *words, tag, *_command(docker, tag, port))
    try:
        start = time.monotonic()
        _run(docker, "start", container)
        _wait(docker, container, port, start + HEALTHY)
        yield Server(container, port, round(time.monotonic() - start, 3))
    finally:
        _run(docker, "rm", "--force", "--volumes", container)


def measure(
    docker: Sequence[str], tag: str, environment: Mapping[str, str], inspect: Callable[[Server], T]
) -> tuple[dict[str, Any], T]:
    """What an image's server comes to, in seconds and bytes; `inspect` asks it more, and its answer goes along.

    The server has been started once before it is timed: what is measured is a start after a restart, with files in the
    page cache, and not this machine's disk.
    """
    with started(docker, tag, environment):
        pass
    starts: list[float] = []
    for _ in range(STARTS - 1):
        with preferred(), started(docker, tag, environment) as server:
            starts.append(server.seconds)
    with preferred(), started(docker, tag, environment) as server:
        starts.append(server.seconds)
        found: dict[str, Any] = {"start_seconds": starts, "idle_bytes": resident(server.container)}
        start = time.monotonic()
        server.ask("/embed", {"texts": ["The first sentence loads the model."]})
        found["first_answer_seconds"] = round(time.monotonic() - start, 3)
        found["latency"] = _latency(server)
        asked = inspect(server)
        found["peak_bytes"] = resident(server.container)
        return found, asked


def _preferred(docker: Sequence[str]) -> list[str]:
    """Options that make the scheduler prefer a container to other work on the machine, which is there all the same.

    A group of all containers, in which Docker puts them, has no more weight than another program: so it is left out.
    """
    driver = _run(docker, "info", "--format", "{{.CgroupDriver}}")
    return ["--cpu-shares", SHARES, *(["--cgroup-parent", "/"] if driver == "cgroupfs" else [])]


@contextmanager
def preferred() -> Iterator[None]:
    """The same for this process, which asks and looks at the clock, where it may do that."""
    group = Path("/proc/self/autogroup")
    try:
        before = group.read_text().split()[-1]
        group.write_text("-19")
    except OSError:
        yield
        return
    try:
        yield
    finally:
        group.write_text(before)


def _latency(server: Server) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        for text, source in _EVIDENCE:
            _ask(connection, "/evidence", {"text": text, "source": source})
        claim = _ask(connection, "/claims", {"text": "The Moon is made of cheese."})["id"]
        pair = {"premise": _EVIDENCE[0][0], "hypothesis": "The Moon is made of cheese."}
        questions: dict[str, tuple[str, Callable[[int], object], int]] = {
            "embed": ("/embed", lambda number: {"texts": [f"Train {number} to Ottawa is late today."]}, EMBEDDINGS),
            "nli": ("/nli", lambda _: {"pairs": [pair]}, JUDGEMENTS),
            "verify": (f"/claims/{claim}/verify", lambda _: None, VERDICTS),
        }
        return {
            name: _times([_timed(connection, path, body(number)) for number in range(WARM_UP + count)][WARM_UP:])
            for name, (path, body, count) in questions.items()
        }
    finally:
        connection.close()


def _timed(connection: http.client.HTTPConnection, path: str, body: object) -> float:
    start = time.perf_counter()
    _ask(connection, path, body, post=True)
    return time.perf_counter() - start


def _times(seconds: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    return {"count": len(seconds), "p50_ms": round(cuts[9] * 1000, 2), "p95_ms": round(cuts[18] * 1000, 2)}


_EVIDENCE = (
    ("The Moon is made of rock, with a small core of iron.", "an encyclopedia"),
    ("Garlic does not cure the flu.", "a medical journal"),
    ("Ottawa is the capital of Canada.", "an atlas"),
    ("The Moon is not made of cheese.", "an astronomer"),
)


def _ask(connection: http.client.HTTPConnection, path: str, body: object, *, post: bool = False) -> Any:
    if body is None and not post:
        connection.request("GET", path)
    else:
        content = b"" if body is None else json.dumps(body).encode()
        connection.request("POST", path, content, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    if answer.status not in {200, 201}:
        raise SystemExit(f"variants: {path} was answered by {answer.status}: {content[:500].decode(errors='replace')}")
    return json.loads(content)


def resident(container: str) -> int:
    """Bytes of memory that a container's processes had resident at most, each at its own peak, added up.

    Pages of files that several processes map count for each of them; the page cache does not count.
    """
    found = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if container in (status.parent / "cgroup").read_text():
                peak = _PEAK.search(status.read_text())
                found += int(peak[1]) * 1024 if peak else 0
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended
    if not found:
        raise SystemExit(f"variants: no process is found of the container {container}")
    return found


def _command(docker: Sequence[str], tag: str, port: int) -> list[str]:
    """The image's own command, at another port, and without --reload.

    That one is a mistake of the report's Dockerfile, which `deadweight lint` finds, and would hide what variants are
    compared for: with it uvicorn listens on a socket for which asyncio leaves Nagle's algorithm on, and each answer
    comes 40 ms later.
    """
    words: list[str] = json.loads(_run(docker, "image", "inspect", "--format", "{{json .Config.Cmd}}", tag)) or []
    if words.count(PORT) != 1:
        raise SystemExit(f"variants: the command of {tag} does not say once that its port is {PORT}: {words}")
    return [str(port) if word == PORT else word for word in words if word != "--reload"]


def _wait(docker: Sequence[str], container: str, port: int, until: float) -> None:
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        running = _run(docker, "inspect", "--format", "{{.State.Running}}", container) == "true"
        if not running or time.monotonic() > until:
            done = subprocess.run([*docker, "logs", "--tail", "30", container], capture_output=True, check=False)
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise SystemExit(f"variants: the server of {container} {'is not healthy' if running else 'ended'}:\n{said}")
        time.sleep(0.01)


def _run(docker: Sequence[str], *words: str) -> str:
    done = subprocess.run([*docker, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"variants: docker {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()
