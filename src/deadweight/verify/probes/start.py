"""The image's own server starts and answers its health check; the http probes share that run."""

from __future__ import annotations

import re
import urllib.parse
from typing import Any

import msgspec

from deadweight.application.discover import Discovery, discover
from deadweight.application.material import argv_of
from deadweight.decoding import from_values
from deadweight.verify.model import Observation
from deadweight.verify.probes import Kind
from deadweight.verify.side import Ended, NoAnswer, Side
from deadweight.verify.spec import HttpProbe, StartProbe

STARTS = "starts"
HEALTH = "health check"
LINE_LIMIT = 300

# What differs from one run to the next in a log, and says nothing about what went wrong.
_VOLATILE = (
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"\d{4}[-/]\d\d[-/]\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?)?(?: ?[+-]\d\d:?\d\d|Z)?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b"), "TIME"),
    (re.compile(r"\b0x[0-9a-fA-F]+\b"), "0x..."),
    (re.compile(r"\b(pid|PID|process|worker)([ :=#\[(]+)\d+"), r"\1\2N"),
    (re.compile(r"\[\d+\]"), "[N]"),
    (re.compile(r"\b\d+(?:\.\d+)? ?(ms|s|sec|secs|seconds)\b"), r"N \1"),
    (re.compile(r"/tmp/[\w.-]+"), "/tmp/..."),  # noqa: S108  (a path in a message)
)
_ERROR = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Refused|Timeout|NotFound)\b.*\Z")


class Answer(msgspec.Struct, frozen=True):
    """A server's answer to one request, or why there is none."""

    seconds: float
    status: int | None = None
    headers: dict[str, str] = {}
    size: int = 0
    text: str | None = None
    """The body, where it is UTF-8."""
    base64: str | None = None
    """The body, where it is not."""
    sha256: str | None = None
    """Its digest, where it is too large to keep."""
    error: str | None = None


class Served(msgspec.Struct, frozen=True):
    """What came of a run of the server."""

    up: float | None = None
    """Seconds until it answered its health check; None when it never did."""
    answers: list[Answer] = []
    exit: int | None = None
    """Its exit status, where it ended by itself; minus the signal's number where one ended it."""
    log: str = ""
    """The end of what it printed."""
    port: int | None = None
    health: Answer | None = None
    error: str | None = None
    """Why it could not be run at all."""


def observe(probe: StartProbe, side: Side) -> Observation:
    """Starts the server, as all probes of one image together do once."""
    found = discover(side.original or side.ledger, side.app)
    path = health_path(probe, found)
    served = serve(probe, side)
    facts, failed = {STARTS: "yes"}, []
    trouble = why_down(served, seconds_to_start(probe, side))
    if trouble:
        facts[STARTS] = trouble
        failed.append(STARTS)
    name = f"{HEALTH}, GET {path}"
    if served.health is not None:
        well = served.up is not None if served.health.status is None else _well(probe, served.health.status)
        wanted = f", {probe.status} is wanted" if probe.status is not None and not well else ""
        facts[name] = f"{_said(served.health)}{wanted}"
        if not well:
            failed.append(name)
    elif served.up is None and served.exit is None and served.error is None:
        raise Ended(trouble)
    if served.up is None:
        return Observation("does not start" if served.exit is not None else "does not come up", facts, tuple(failed))
    facts["port"] = str(served.port)
    said = _said(served.health) if served.health is not None else ""
    return Observation(f"up in {served.up:.1f} s, {said}", facts, tuple(failed))


def _said(health: Answer) -> str:
    return "it listens, but speaks no HTTP" if health.status is None else f"HTTP {health.status}"


def _well(probe: StartProbe, status: int) -> bool:
    return status == probe.status if probe.status is not None else status < 500


def why_down(served: Served, patience: float) -> str:
    """Why a server is not up, or did not stay so; empty when all is well. What differs from run to run is left out."""
    if served.error is not None:
        return stable(served.error)
    said = said_last(served.log)
    if served.exit is not None:
        how = f"exit status {served.exit}" if served.exit >= 0 else f"signal {-served.exit}"
        return f"ended by itself{' after it was up' if served.up is not None else ''}, {how}: {said}"
    if served.up is None:
        return f"not up within {patience:g} s: {said}"
    return ""


def said_last(log: str) -> str:
    """The line of a log that says what went wrong: the last that names an exception, else the last of all."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    named = [line for line in lines if _ERROR.match(stable(line))]
    return stable((named or lines or ["without a word"])[-1])


def stable(text: str) -> str:
    """A line without times, process numbers and addresses, so that two runs say the same."""
    for pattern, instead in _VOLATILE:
        text = pattern.sub(instead, text[: 4 * LINE_LIMIT])
    text = "".join(c if c.isprintable() else " " for c in text)
    return text[:LINE_LIMIT]


def seconds_to_start(probe: StartProbe | None, side: Side) -> float:
    """How long a server may take until it is up: most of the time of the run."""
    return max(1.0, 0.8 * seconds_of_run(probe, side))


def seconds_of_run(probe: StartProbe | None, side: Side) -> float:
    """How long a run of the server may take as a whole."""
    return probe.timeout if probe is not None and probe.timeout is not None else side.limits.seconds


def health_path(probe: StartProbe, found: Discovery) -> str:
    """The path that is asked for until the server is up."""
    return probe.path or found.health


def serve(probe: StartProbe | None, side: Side) -> Served:
    """What came of the server: run once for an image, by whoever asks first, with all http probes' requests.

    `probe` is how to start it; None: as the specification's start probe says, or as the image does.
    """
    common = side.starting or StartProbe()
    probe = probe or common
    how = ("serve", *_settings(probe))
    if how not in side.memo:
        requests = side.requests if how[1:] == _settings(common) else ()
        side.memo[how] = _serve(probe, requests, side)
    served: Served = side.memo[how]
    return served


def _settings(probe: StartProbe) -> tuple[Any, ...]:
    """What makes two start probes' runs the same."""
    command = None if probe.command is None else tuple(probe.command)
    return (probe.path, probe.port, probe.status, command, tuple(sorted(probe.env.items())), probe.timeout)


def _serve(probe: StartProbe, requests: tuple[HttpProbe, ...], side: Side) -> Served:
    found = discover(side.original or side.ledger, side.app)
    argv = probe.command or argv_of(side.ledger.image)
    if not argv:
        raise NoAnswer("the image has neither ENTRYPOINT nor CMD: say what starts the server, as `command`")
    seconds = seconds_of_run(probe, side)
    arguments = {
        "argv": argv,
        "port": probe.port or found.port,
        "any_port": probe.port is None and side.app.port is None,
        "any_answer": probe.path is None and probe.status is None and not found.health_evidence,
        "path": quoted(health_path(probe, found)),
        "status": probe.status,
        "up": seconds_to_start(probe, side),
        "seconds": max(1.0, 0.95 * seconds - 1),
        "requests": [request_of(request) for request in requests],
    }
    answer = side.ask("serve", arguments, seconds, env={**side.app.env, **probe.env})
    try:
        return from_values(answer, Served)
    except msgspec.ValidationError as error:
        raise NoAnswer(f"what the sandbox answers about the server cannot be read: {error}") from None


def request_of(probe: HttpProbe) -> dict[str, Any]:
    """A request as the agent sends it."""
    headers, body = dict(probe.headers), probe.body
    if probe.json is not None:
        body = msgspec.json.encode(probe.json).decode()
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/json"
    path = quoted(probe.path)
    return {"method": probe.method, "path": path, "headers": headers, "body": body, "timeout": probe.timeout}


def quoted(path: str) -> str:
    """A path as a request line has it: what may not stand there is percent-encoded, all else is left alone."""
    path = path if path.startswith("/") else f"/{path}"
    return urllib.parse.quote(path, safe="/%?&=+:;,@!$'()*[]~#")


KIND = Kind(observe, must=lambda probe: probe.must or probe.status is not None)
