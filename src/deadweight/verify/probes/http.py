"""The image's own server gives the same answer to a request: status, type and body."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from deadweight.verify.arrays import apart
from deadweight.verify.model import Observation
from deadweight.verify.outputs import output_difference, without
from deadweight.verify.probes import Kind, by_facts
from deadweight.verify.probes.start import Answer, seconds_to_start, serve, stable, why_down
from deadweight.verify.side import Ended, Side
from deadweight.verify.spec import HttpProbe
from deadweight.verify.spec.patterns import compiled

STATUS = "status"
OUT_OF_TIME = "out of time"
"""What the agent says of a request whose time was over."""
DIFFERENCES = 50
VALUE_LIMIT = 60
_MISSING = object()
_INDEX = re.compile(r"\[\d+\]")


def observe(probe: HttpProbe, side: Side) -> Observation:
    """The answer to this probe's request, out of the one run of the server that answers all of them."""
    served = serve(None, side)
    # By identity: the same request twice, with another between, is answered twice.
    place = next((i for i, request in enumerate(side.requests) if request is probe), None)
    if place is None:
        place = side.requests.index(probe)
    if place >= len(served.answers):
        trouble = why_down(served, seconds_to_start(side.starting, side)) or "the server was not asked"
        return Observation("no server", {"server": trouble}, ("server",))
    answer = served.answers[place]
    if answer.error == OUT_OF_TIME:
        raise Ended(f"no response within {answer.seconds:.1f} s")
    if answer.error is not None or answer.status is None:
        trouble = why_down(served, seconds_to_start(side.starting, side)) or stable(answer.error or "no status")
        return Observation("no response", {"response": trouble}, ("response",))
    wrong = answer.status != probe.status if probe.status is not None else answer.status >= 400
    wanted = f", {probe.status} is wanted" if wrong and probe.status is not None else ""
    facts = {STATUS: f"{answer.status}{wanted}", **dict(sorted(answer.headers.items()))}
    summary = f"HTTP {answer.status}, {answer.size:,} bytes"
    return Observation(summary, facts, (STATUS,) if wrong else (), data=answer)


def differences(probe: HttpProbe, before: Observation, after: Observation) -> list[str]:
    """What the second answer has otherwise: status, headers that matter, and the body's values by their paths."""
    found = by_facts(probe, before, after)
    one, two = before.data, after.data
    if isinstance(one, Answer) and isinstance(two, Answer):
        for difference in body_differences(probe, one, two):
            found.append(difference)
            if len(found) > DIFFERENCES:
                found.append("and more")
                break
    return found


def body_differences(probe: HttpProbe, one: Answer, two: Answer) -> Iterator[str]:
    """JSON is compared as parsed, all else byte for byte, after what is to be ignored has left a text."""
    if (one.sha256, one.base64, one.text, one.size) == (two.sha256, two.base64, two.text, two.size):
        return
    first, second = _json(one), _json(two)
    if first is not _MISSING and second is not _MISSING:
        yield from json_differences(first, second, ignored(probe.ignore), probe.tolerance)
        return
    if one.text is None or two.text is None:
        yield f"body: {one.size:,} bytes -> {two.size:,} bytes, which are not the same"
        return
    patterns = [compiled(pattern) for pattern in probe.ignore]
    yield from output_difference("body", without(one.text, patterns), without(two.text, patterns), probe.tolerance)


def json_differences(one: Any, two: Any, ignore: Callable[[str], bool], tolerance: float) -> Iterator[str]:
    """Where two JSON values differ, as `.items[3].score: 0.5 -> 0.7`.

    An object's keys have no order. Numbers may be `tolerance` apart, absolutely or relative to the larger.
    """
    stack = [("", one, two)]
    while stack:
        path, a, b = stack.pop()
        if path and ignore(path):
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            keys = [*a, *(key for key in b if key not in a)]
            stack += [(f"{path}.{key}", a.get(key, _MISSING), b.get(key, _MISSING)) for key in reversed(keys)]
        elif isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                yield f"{_at(path)}: {len(a):,} values -> {len(b):,} values"
            pairs = list(zip(a, b, strict=False))
            stack += [(f"{path}[{i}]", x, y) for i, (x, y) in reversed(list(enumerate(pairs)))]
        elif not _equal(a, b, tolerance):
            yield f"{_at(path)}: {_short(a)} -> {_short(b)}"


def ignored(patterns: list[str]) -> Callable[[str], bool]:
    """Whether a path is to be ignored: `a.b` names a key inside another, of every item where there is a list on the
    way; a regular expression has to match all of such a path.
    """
    names = {pattern.removeprefix(".") for pattern in patterns}
    expressions = [compiled(pattern) for pattern in patterns]

    def ignore(path: str) -> bool:
        full = path.removeprefix(".")
        plain = _INDEX.sub("", full).removeprefix(".")
        return plain in names or any(e.fullmatch(plain) or e.fullmatch(full) for e in expressions)

    return ignore


def _equal(a: Any, b: Any, tolerance: float) -> bool:
    if isinstance(a, bool) or isinstance(b, bool) or not (isinstance(a, (int, float)) and isinstance(b, (int, float))):
        return type(a) is type(b) and bool(a == b)
    if a == b or (a != a and b != b):  # noqa: PLR0124  (NaN)
        return True
    try:
        return tolerance > 0 and not apart(float(a), float(b), tolerance)
    except OverflowError:
        return False


def _json(answer: Answer) -> Any:
    """The body as JSON; _MISSING where it is none."""
    if answer.text is None or "json" not in answer.headers.get("content-type", ""):
        return _MISSING
    try:
        return json.loads(answer.text)
    except (ValueError, RecursionError):
        return _MISSING


def _at(path: str) -> str:
    return f"body{_printable(path)}"


def _short(value: Any) -> str:
    if value is _MISSING:
        return "not there"
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = type(value).__name__
    text = _printable(text)
    return text if len(text) <= VALUE_LIMIT else f"{text[:VALUE_LIMIT]}..."


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:1000])


KIND = Kind(observe, differences, must=lambda probe: probe.must or probe.status is not None)
