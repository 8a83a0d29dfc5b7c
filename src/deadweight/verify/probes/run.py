"""A command or a script does the same: exit status, standard output, arrays."""

from __future__ import annotations

import base64
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from deadweight.decoding import from_values
from deadweight.errors import BadInputError, shown
from deadweight.image.compression import temporary_folder
from deadweight.verify.arrays import Array, ArrayError, array_difference, read_arrays
from deadweight.verify.model import Observation
from deadweight.verify.outputs import line_shown, output_difference, text_of, without
from deadweight.verify.probes import Kind, failures
from deadweight.verify.probes.start import stable
from deadweight.verify.sandbox import INSIDE, Command, Limits
from deadweight.verify.side import AGENT, Ended, NoAnswer, Side, how_it_ended, last_line
from deadweight.verify.spec import RunProbe
from deadweight.verify.spec.patterns import SEARCHED, compiled, searched
from deadweight.verify.spec.variables import expanded

ARRAYS_LIMIT = 40_000_000
"""Bytes of arrays that are compared: they come out as text, and a run's output has a limit."""
UNPACKED_LIMIT = 256_000_000
STATUS = "exit status"
_SCRIPT_LIMIT = 16 << 20
_LINE = 60  # characters of an output that stand in the table


class _Answer(msgspec.Struct):
    """What the agent says."""

    failed: str
    status: int
    stderr: bytes
    stdout: bytes = b""
    files: dict[str, bytes] = {}
    total: int = 0
    complete: bool = True


@dataclass(frozen=True)
class Done:
    """What a run left."""

    status: int
    stdout: str
    """What is compared of it."""
    arrays: Mapping[str, Array]
    problems: list[str]
    """What it had to be and is not."""


def observe(probe: RunProbe, side: Side, more: Mapping[str, Path] | None = None) -> Observation:
    """Runs it, in the image's working directory, where `more` files can be seen."""
    with _command(probe, side) as (argv, binds):
        answer = _answer(probe, side, argv, {**binds, **(more or {})})
    if answer.failed:
        how = f"exit status {answer.status}, {line_shown(last_line(answer.stderr))}"
        return Observation(f"{answer.failed} fails", {answer.failed: how}, (answer.failed,), data=None)
    arrays = _arrays(answer, side) if probe.arrays and answer.status == 0 else {}
    status = f"{answer.status}"
    if answer.status and answer.stderr.strip():
        status += f": {line_shown(last_line(answer.stderr))}"
    facts = {STATUS: status}
    good = answer.status == (probe.status or 0)
    stdout = without(text_of(answer.stdout), _patterns(probe.ignore))
    return Observation(
        _summary(answer, len(arrays) if probe.arrays else None),
        facts,
        () if good else (STATUS,),
        data=Done(answer.status, stdout, arrays, _problems(probe, answer)),
        notes=tuple(_unsearched(probe, answer)),
    )


@contextmanager
def _command(probe: RunProbe, side: Side) -> Iterator[tuple[tuple[str, ...], dict[str, Path]]]:
    """The words to run, and what has to be seen inside for them."""
    if probe.command is not None:
        words = ["/bin/sh", "-c", probe.command] if isinstance(probe.command, str) else probe.command
        if not words:
            raise BadInputError("a probe of kind run has a command without a word; write what is to be run")
        yield tuple(_expanded(probe, side, words)), {}
        return
    name = Path(probe.script).name if probe.script is not None else "code.py"
    # A copy that everybody can read, since the image's user is not the one who wrote it.
    with tempfile.TemporaryDirectory(prefix="deadweight-verify-", dir=temporary_folder()) as folder:
        path = Path(folder) / "script.py"
        path.write_bytes(_source(probe, side))
        path.chmod(0o444)
        inside = f"{INSIDE}/script/{name}"
        argv = (side.python, f"{INSIDE}/agent/script.py", inside, side.directory)
        yield argv, {f"{INSIDE}/agent": AGENT, inside: path}


def _source(probe: RunProbe, side: Side) -> bytes:
    if probe.script is None:
        return (probe.code or "").encode("utf-8", "surrogateescape")
    try:
        with (Path(side.folder) / probe.script).open("rb") as file:
            source = file.read(_SCRIPT_LIMIT + 1)
    except (OSError, ValueError) as error:
        raise BadInputError(f"the script {shown(probe.script)} cannot be read: {error}") from None
    if len(source) > _SCRIPT_LIMIT:
        raise BadInputError(
            f"the script {shown(probe.script)} has more than {_SCRIPT_LIMIT:,} bytes; scripts are short"
        )
    return source


def _answer(probe: RunProbe, side: Side, argv: tuple[str, ...], binds: dict[str, Path]) -> _Answer:
    environment = side.ledger.image.environment
    env = {**side.app.env, **probe.env}
    if probe.expand:
        env.update({name: expanded(value, environment) for name, value in probe.env.items()})
    stdin = probe.stdin.encode("utf-8", "surrogateescape")
    if probe.setup or probe.teardown or probe.arrays:
        arguments = {
            "command": argv,
            "stdin": base64.b64encode(stdin).decode(),
            "setup": [_expanded(probe, side, words) for words in probe.setup],
            "teardown": [_expanded(probe, side, words) for words in probe.teardown],
            "limit": ARRAYS_LIMIT if probe.arrays else 0,
        }
        found = side.ask("run", arguments, probe.timeout, env=env, binds=binds)
        try:
            return from_values(found, _Answer)
        except msgspec.ValidationError as error:
            raise NoAnswer(f"the image's Python gave no sound answer: {error}") from None
    ran = side.run(Command(argv, stdin, env, binds=binds), probe.timeout)
    if ran.ended != "exited":
        raise Ended(how_it_ended(ran, side.limits if probe.timeout is None else Limits(probe.timeout)))
    return _Answer("", ran.status, ran.stderr, ran.stdout)


def _expanded(probe: RunProbe, side: Side, words: Sequence[str]) -> list[str]:
    return [expanded(word, side.ledger.image.environment) for word in words] if probe.expand else list(words)


def _arrays(answer: _Answer, side: Side) -> dict[str, Array]:
    """The arrays that a run left, by name."""
    if not answer.complete:
        raise NoAnswer(
            f"it leaves {answer.total:,} bytes of arrays, and {ARRAYS_LIMIT:,} can be compared: save fewer of them"
        )
    if not answer.files and side.name != "after":
        raise NoAnswer("it leaves no .npy or .npz file in the directory that DEADWEIGHT_OUT names")
    found: dict[str, Array] = {}
    for name, content in answer.files.items():
        try:
            found.update(read_arrays(name, content, UNPACKED_LIMIT))
        except ArrayError as error:
            raise NoAnswer(f"cannot be compared: {shown(str(error))[1:-1]}") from None
    return found


def _patterns(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    try:
        return [compiled(pattern) for pattern in patterns]
    except ValueError as error:
        raise BadInputError(f"a probe of kind run: {error}") from None


def _summary(answer: _Answer, arrays: int | None) -> str:
    line = answer.stdout[: 8 * _LINE].decode("utf-8", "replace").strip()
    if answer.status:
        said = last_line(answer.stderr) if answer.stderr.strip() else f"{len(answer.stdout):,} bytes"
        return f"exit {answer.status}, {line_shown(said, _LINE)}"
    if arrays is not None:
        return f"exit 0, {arrays:,} array{'' if arrays == 1 else 's'}"
    if line and "\n" not in line and len(line) <= _LINE:
        return line_shown(line, 2 * _LINE)
    return f"exit 0, {len(answer.stdout):,} bytes"


# --- what it has to be ---------------------------------------------------------------------------------


def _problems(probe: RunProbe, answer: _Answer) -> list[str]:
    """What is asked of its output and is not so."""
    found = []
    for what, output, wanted, unwanted in (
        ("standard output", answer.stdout, probe.output, probe.no_output),
        ("standard error", answer.stderr, probe.error, probe.no_error),
    ):
        if not wanted and not unwanted:
            continue
        text = searched(output)
        begin = line_shown(text.strip().split("\n")[0], 80) or "nothing"
        for pattern in wanted:
            if not _patterns([pattern])[0].search(text):
                found.append(f"{what} does not match {shown(pattern)}: {begin}")
        for pattern in unwanted:
            match = _patterns([pattern])[0].search(text)
            if match:
                found.append(f"{what} matches {shown(pattern)}: {line_shown(match[0], 80)}")
    return found


def _unsearched(probe: RunProbe, answer: _Answer) -> Iterator[str]:
    outputs = (answer.stdout if probe.output or probe.no_output else b"", answer.stderr)
    if probe.output or probe.no_output or probe.error or probe.no_error:
        for output in outputs:
            if len(output) > SEARCHED:
                yield f"of an output of {len(output):,} bytes the first {SEARCHED:,} were searched"


def must(probe: RunProbe) -> bool:
    """Whether it has to succeed: with anything that is said of how it has to end."""
    said = probe.output or probe.no_output or probe.error or probe.no_error
    return probe.must or probe.status is not None or bool(said)


def unmet(probe: RunProbe, seen: Observation) -> list[str]:
    """How it fails."""
    if seen.data is None:
        return failures(probe, seen)
    wanted = f" (asked for: {probe.status})" if probe.status is not None else ""
    return [*(f"{STATUS}: {seen.facts[name]}{wanted}" for name in seen.failures), *seen.data.problems]


def with_words(before: Observation, after: Observation, words: Mapping[str, str]) -> Observation:
    """What the original printed, as far as it printed other words than the slim image that a swap declares to differ.

    Only lines that are the same then are changed, so what is no difference does not become one.
    """
    one: Any = before.data
    two: Any = after.data
    if not words or not isinstance(one, Done) or not isinstance(two, Done) or one.stdout == two.stdout:
        return before
    longest = sorted(words, key=len, reverse=True)
    pattern = re.compile(r"(?<![\w.+])(?:" + "|".join(map(re.escape, longest)) + r")(?![\w.+])")
    lines, others = one.stdout.split("\n"), two.stdout.split("\n")
    used: dict[str, str] = {}
    for at, (line, other) in enumerate(zip(lines, others, strict=False)):
        if line != other and pattern.sub(lambda match: words[match[0]], line) == other:
            used.update({match[0]: words[match[0]] for match in pattern.finditer(line)})
            lines[at] = other
    if not used:
        return before
    note = f"what the swap declares differs: {', '.join(f'{a} -> {b}' for a, b in used.items())}"
    done = replace(one, stdout="\n".join(lines))
    return msgspec.structs.replace(before, data=done, notes=(*before.notes, note))


# --- comparison ----------------------------------------------------------------------------------------


def differences(probe: RunProbe, before: Observation, after: Observation) -> list[str]:
    """What differs: the exit status, lines of standard output, arrays."""
    one: Any = before.data
    two: Any = after.data
    if one is None or two is None:
        return [] if before.facts == after.facts else [f"{before.summary} -> {_told(after)}"]
    found = []
    if one.status != two.status:
        found.append(f"{STATUS}: {before.facts[STATUS]} -> {after.facts[STATUS]}")
    elif before.failures and after.failures and stable(before.facts[STATUS]) != stable(after.facts[STATUS]):
        found.append(f"{STATUS}, and why: {before.facts[STATUS]} -> {after.facts[STATUS]}")
    found += output_difference("standard output", one.stdout, two.stdout, probe.tolerance)
    for name in [*one.arrays, *(name for name in two.arrays if name not in one.arrays)]:
        a, b = one.arrays.get(name), two.arrays.get(name)
        if a is None or b is None:
            how = "there -> not there" if b is None else "not there -> there"
        else:
            how = array_difference(a, b, probe.tolerance)
        if how:
            found.append(f"{shown(name)[1:-1]}: {how}")
    return found


def _told(seen: Observation) -> str:
    return ", ".join([seen.summary, *(seen.facts[name] for name in seen.failures)])


KIND = Kind(observe, differences, unmet, must)
