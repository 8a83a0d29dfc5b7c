"""What the image's configuration says (OCI image specification, "Image Configuration")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deadweight.errors import shown
from deadweight.image.model import Image
from deadweight.verify.model import Observation
from deadweight.verify.probes import Kind, nothing_differs
from deadweight.verify.side import Side
from deadweight.verify.spec import ConfigProbe
from deadweight.verify.spec.patterns import compiled, searched


def observe(probe: ConfigProbe, side: Side) -> Observation:
    """Compares the configuration with what it must say."""
    wrong = tuple(_wrong(probe, side.ledger.image))
    summary = f"{len(wrong)} not as asked" if wrong else "as asked"
    return Observation(summary, data=wrong)


def unmet(probe: ConfigProbe, seen: Observation) -> list[str]:
    """What it says otherwise."""
    return list(seen.data)


def _wrong(probe: ConfigProbe, image: Image) -> Iterator[str]:
    run = image.run_config
    labels = {key: value for key, value in _table(run.get("Labels")).items() if isinstance(value, str)}
    yield from _values("variable", probe.env, image.environment, probe.regex)
    yield from _values("label", probe.labels, labels, probe.regex)
    yield from (f"variable {shown(name)}: is set" for name in probe.no_env if name in image.environment)
    for key, wanted in (("Cmd", probe.cmd), ("Entrypoint", probe.entrypoint)):
        if wanted is not None and _words(run.get(key)) != wanted:
            yield f"{key}: {_listed(_words(run.get(key)))}, not {_listed(wanted)}"
    for key, text in (("WorkingDir", probe.workdir), ("User", probe.user)):
        value = run.get(key) or ""
        if text is not None and value != text:
            yield f"{key}: {shown(str(value))}, not {shown(text)}"
    ports = _ports(run.get("ExposedPorts"))
    volumes = set(_table(run.get("Volumes")))
    yield from _members("port", probe.ports, probe.no_ports, ports)
    yield from _members("volume", probe.volumes, probe.no_volumes, volumes)


def _values(what: str, wanted: Mapping[str, str], there: Mapping[str, str], regex: Sequence[str]) -> Iterator[str]:
    for name, value in wanted.items():
        if name not in there:
            yield f"{what} {shown(name)}: is not set"
        elif name in regex and not compiled(value).search(searched(there[name].encode("utf-8", "replace"))):
            yield f"{what} {shown(name)}: {shown(there[name])} does not match {shown(value)}"
        elif name not in regex and there[name] != value:
            yield f"{what} {shown(name)}: {shown(there[name])}, not {shown(value)}"


def _members(what: str, wanted: Sequence[str], unwanted: Sequence[str], there: set[str]) -> Iterator[str]:
    yield from (f"{what} {shown(name)}: is not there" for name in wanted if name not in there)
    yield from (f"{what} {shown(name)}: is there" for name in unwanted if name in there)


def _ports(value: Any) -> set[str]:
    """`8000/tcp`, and `8000` as well; TCP is what a port without a protocol is."""
    found = set()
    for port in _table(value):
        number, _, protocol = port.partition("/")
        found |= {number, f"{number}/{protocol or 'tcp'}"}
    return found


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _words(value: Any) -> list[str]:
    """An exec form; the shell form that some builders leave is one word."""
    if isinstance(value, str):
        return [value]
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []


def _listed(words: Sequence[str]) -> str:
    return f"[{', '.join(map(shown, words[:20]))}{', ...' if len(words) > 20 else ''}]"


KIND = Kind(observe, nothing_differs, unmet, must=lambda _: True)
