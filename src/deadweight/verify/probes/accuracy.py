"""What a script computes of sentences is nearly the same: vectors' directions, verdicts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from deadweight.errors import BadInputError, shown
from deadweight.image.compression import temporary_folder
from deadweight.verify.accuracy import NotComparable, accuracy
from deadweight.verify.model import Observation
from deadweight.verify.probes import Kind, run
from deadweight.verify.probes.run import STATUS, Done
from deadweight.verify.sandbox import INSIDE
from deadweight.verify.side import Side
from deadweight.verify.spec import AccuracyProbe, RunProbe

VARIABLE: Final = "DEADWEIGHT_INPUT"
"""Names the file with the sentences."""
_LIMIT: Final = 16 << 20


def observe(probe: AccuracyProbe, side: Side) -> Observation:
    """Runs the script over the sentences."""
    inside = f"{INSIDE}/input/sentences.json"
    script = RunProbe(
        script=probe.script,
        code=probe.code,
        arrays=True,
        env={**probe.env, VARIABLE: inside},
        timeout=probe.timeout,
    )
    with _input(probe, side) as place:
        return run.observe(script, side, {inside: place})


@contextmanager
def _input(probe: AccuracyProbe, side: Side) -> Iterator[Path]:
    """A file with the sentences, which everybody can read: the image's user is not the one who wrote them."""
    with tempfile.TemporaryDirectory(prefix="deadweight-verify-", dir=temporary_folder()) as folder:
        path = Path(folder) / "sentences.json"
        path.write_text(json.dumps(sentences(probe, side.folder)), "utf-8")
        path.chmod(0o444)
        yield path


def sentences(probe: AccuracyProbe, folder: str) -> Any:
    """What the script computes of. Raises BadInputError where that is no sound file."""
    if probe.sentences_file is None:
        return probe.sentences
    where = f"the sentences in {shown(probe.sentences_file)}"
    try:
        with (Path(folder) / probe.sentences_file).open("rb") as file:
            raw = file.read(_LIMIT + 1)
        if len(raw) > _LIMIT:
            raise BadInputError(f"{where} have more than {_LIMIT:,} bytes")
        text = raw.decode("utf-8")
        if probe.sentences_file.endswith(".json"):
            return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{where} cannot be read: {error}") from None
    return [line for line in text.splitlines() if line.strip()]


def differences(probe: AccuracyProbe, before: Observation, after: Observation) -> list[str]:
    """How more is lost than may be, or what cannot be compared."""
    one, two = _done(before), _done(after)
    if one is None or two is None:
        return [] if before.facts == after.facts else [f"{before.summary} -> {after.summary}"]
    try:
        found = accuracy(one.arrays, two.arrays)
    except NotComparable as error:
        return [str(error)]
    if found.loss <= probe.max_loss:
        return []
    return [f"the loss is {found.loss:.3g}, and at most {probe.max_loss:g} is allowed: {found.in_words}"]


def measure(before: Observation, after: Observation) -> tuple[str, dict[str, float]]:
    """What was measured, in words and as numbers."""
    one, two = _done(before), _done(after)
    try:
        found = accuracy(one.arrays, two.arrays) if one is not None and two is not None else None
    except NotComparable:
        found = None
    return (after.summary, {}) if found is None else (found.in_words, found.numbers)


def _done(seen: Observation) -> Done | None:
    return seen.data if isinstance(seen.data, Done) and STATUS not in seen.failures else None


# A script that fails in both measures nothing.
KIND = Kind(observe, differences, must=lambda _: True, measure=measure)
