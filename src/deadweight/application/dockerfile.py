"""Dockerfiles: instructions with their lines, heredocs, and stages, as BuildKit's parser reads them.

A parser of our own, since what it is for is to point at a line: of the part of a RUN over many lines, too. On PyPI,
`dockerfile-parse` knows neither heredocs nor stages, and `dockerfile` (BuildKit's own parser, as a library of Go's
with its run-time system) gives an instruction's first and last line, and its text already joined.

References: https://docs.docker.com/reference/dockerfile/, moby/buildkit frontend/dockerfile/parser.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from deadweight.errors import BadInputError, shown

SIZE_LIMIT = 1 << 20
"""Bytes of a Dockerfile, in UTF-8."""
NAMES = frozenset(
    (
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"),
        *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    )
)
_HEREDOCS = frozenset({"RUN", "COPY", "ADD"})
_EXEC_FORMS = frozenset({"RUN", "CMD", "ENTRYPOINT", "SHELL", "COPY", "ADD", "VOLUME"})
_DIRECTIVE = re.compile(r"\s*#\s*([A-Za-z][\w-]*)\s*=\s*(.*?)\s*\Z")
_DIRECTIVES = frozenset({"syntax", "escape", "check"})
_INSTRUCTION = re.compile(r"\s*(\S+)(?:\s+|\Z)")
_FLAG = re.compile(r"--([a-z][\w-]*)(?:=((?:[^\s\"'\\]|\\.|\"(?:[^\"\\]|\\.)*\"|'[^']*'|[\"'\\])*))?(?:\s+|\Z)")
_QUOTED = r"\\.|\"[^\"\\]*(?:\\.[^\"\\]*)*\"|'[^']*'"
_WORD = re.compile(rf"(?:[^\s\"'\\]|{_QUOTED})+", re.DOTALL)
_CLOSED = re.compile(rf"[^\"'\\]*(?:(?:{_QUOTED})[^\"'\\]*)*\Z", re.DOTALL)
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]+)\Z")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?:(:?[-+?])([^{}]*))?\})")
_VALUE_LIMIT = 4096


@dataclass(frozen=True)
class Heredoc:
    """The lines of a `<<NAME`."""

    name: str
    content: str
    line: int
    """Of its content's first line."""


@dataclass(frozen=True)
class Instruction:
    """One instruction. Lines count from 1."""

    name: str
    """In capitals."""
    line: int
    end_line: int
    text: str
    """What follows name and flags; lines that go on are put together, comments left out."""
    flags: tuple[tuple[str, str], ...] = ()
    """`--mount=...`, `--from=...`: names without dashes, and values."""
    words: tuple[str, ...] | None = None
    """Those of the exec (JSON) form; None for all others."""
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()
    """The lines of comments right above and inside."""
    starts: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    """(offset in `text`, line), rising: where each line of the file begins."""

    def line_at(self, offset: int) -> int:
        """The line of the file on which a place of `text` stands."""
        at = bisect_right(self.starts, (offset, 1 << 60)) - 1
        return self.starts[at][1] if at >= 0 else self.line

    def flag(self, name: str) -> str | None:
        """The value of a flag, the last one's where there are several; None where it is not given."""
        return next((value for key, value in reversed(self.flags) if key == name), None)


@dataclass(frozen=True)
class Stage:
    """What follows a FROM."""

    index: int
    name: str
    """In lower case; empty where it has none."""
    base: str
    """The image, or the stage, that it begins with; variables are in place as far as ARGs have defaults."""
    parent: int | None
    """The stage that it begins with; None for an image."""
    start: Instruction
    """The FROM."""
    instructions: tuple[Instruction, ...]
    """All that follow it."""


@dataclass(frozen=True)
class Dockerfile:
    """A Dockerfile."""

    stages: tuple[Stage, ...]
    arguments: Mapping[str, str]
    """The ARGs before the first FROM, with their defaults."""
    lines: int

    def stage(self, name: str) -> Stage | None:
        """The stage of that name or number; None where there is none."""
        found = next((stage for stage in self.stages if stage.name and stage.name == name.lower()), None)
        if found is None and name.isdecimal() and len(name) < 6 and int(name) < len(self.stages):
            return self.stages[int(name)]
        return found

    def chain(self, stage: Stage) -> tuple[Stage, ...]:
        """The stages whose layers a stage has, itself the last."""
        found = [stage]
        while (parent := found[-1].parent) is not None:
            found.append(self.stages[parent])
        return tuple(reversed(found))


def parse_dockerfile(text: str) -> Dockerfile:
    """The stages of a Dockerfile. Raises BadInputError, with the line, where it is none."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    body: list[Instruction] = []
    for one in instructions(text):
        if one.name not in NAMES:
            raise BadInputError(f"line {one.line}: there is no instruction {shown(one.name, 40)}")
        if one.name == "FROM":
            _close(stages, body)
            stages.append(_begin(one, stages, arguments))
        elif stages:
            body.append(one)
        elif one.name == "ARG":
            name, equals, value = one.text.partition("=")
            if equals:
                arguments[name.strip()] = expand(value.strip().strip("\"'"), arguments)
        else:
            raise BadInputError(f"line {one.line}: {one.name} stands before the first FROM")
    if not stages:
        raise BadInputError("there is no FROM in it, so it is no Dockerfile")
    _close(stages, body)
    return Dockerfile(tuple(stages), arguments, text.count("\n") + 1)


def _begin(one: Instruction, stages: list[Stage], arguments: Mapping[str, str]) -> Stage:
    words = one.text.split()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise BadInputError(f"line {one.line}: FROM takes an image, and perhaps AS and a name")
    base = expand(words[0], arguments)
    parent = next((stage.index for stage in stages if stage.name and stage.name == base.lower()), None)
    name = words[2].lower() if len(words) == 3 else ""
    return Stage(len(stages), name, base, parent, one, ())


def _close(stages: list[Stage], body: list[Instruction]) -> None:
    if stages:
        last = stages[-1]
        stages[-1] = Stage(last.index, last.name, last.base, last.parent, last.start, tuple(body))
    body.clear()


def instructions(text: str) -> Iterator[Instruction]:
    """The instructions of a Dockerfile in order, whatever their names are.

    Raises BadInputError, with the line, for a heredoc that does not end, and for a file that is too large.
    """
    if len(text) > SIZE_LIMIT or len(text.encode("utf-8", "surrogatepass")) > SIZE_LIMIT:
        raise BadInputError(f"line 1: it has more than {SIZE_LIMIT:,} bytes, which no Dockerfile has")
    lines = _lines(text)
    escape = _escape(lines)
    goes_on = re.compile(rf"(?:^|[^{re.escape(escape)}]){re.escape(escape)}[ \t]*\Z")
    comments: list[str] = []
    at = 0
    while at < len(lines):
        stripped = lines[at].strip()
        if not stripped or stripped.startswith("#"):
            if stripped:
                comments.append(stripped)
            else:
                comments = []
            at += 1
            continue
        first = at
        parts: list[tuple[str, int]] = []
        while at < len(lines):
            line = lines[at]
            at += 1
            if parts and line.lstrip().startswith("#"):
                comments.append(line.strip())
                continue
            if parts and not line.strip():  # BuildKit warns of empty lines inside, and goes on
                continue
            match = goes_on.search(line)
            if match is None:
                parts.append((line, at))
                break
            parts.append((line[: line.rindex(escape)], at))
        one = _instruction(parts, first + 1, at, tuple(comments))
        comments = []
        name = one.text.split(None, 1)[0].upper() if one.name == "ONBUILD" and one.text else one.name
        if name in _HEREDOCS and one.words is None and "<<" in one.text:
            heredocs, at = _heredocs(one, lines, at)
            one = Instruction(one.name, one.line, at, one.text, one.flags, None, heredocs, one.comments, one.starts)
        yield one


def _lines(text: str) -> list[str]:
    """Lines end where BuildKit ends them: at line feeds, and nowhere else (str.splitlines knows ten more)."""
    lines = [line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")]
    return lines[:-1] if lines and not lines[-1] else lines


def _escape(lines: list[str]) -> str:
    """The character that the directive `escape` says: directives stand before all else."""
    for line in lines:
        match = _DIRECTIVE.match(line)
        if match is None or match[1].lower() not in _DIRECTIVES:
            break
        if match[1].lower() == "escape" and match[2] in ("\\", "`"):
            return match[2]
    return "\\"


def _instruction(parts: list[tuple[str, int]], line: int, end: int, comments: tuple[str, ...]) -> Instruction:
    text = ""
    starts = []
    pieces = []
    offset = 0
    for piece, number in parts:
        starts.append((offset, number))
        pieces.append(piece)
        offset += len(piece)
    text = "".join(pieces)
    match = _INSTRUCTION.match(text)
    if match is None:  # a line that goes on to nothing
        return Instruction("", line, end, "", comments=comments)
    name, begin = match[1].upper(), match.end()
    flags = []
    while (flag := _FLAG.match(text, begin)) is not None:
        flags.append((flag[1], flag[2] or ""))
        begin = flag.end()
    text = text[begin:].rstrip()
    moved = [(max(offset - begin, 0), number) for offset, number in starts]
    # Of the lines that end before the text begins only the last one counts.
    kept = [pair for i, pair in enumerate(moved) if i + 1 == len(moved) or moved[i + 1][0] > 0]
    words = _exec_form(text) if name in _EXEC_FORMS else None
    return Instruction(name, line, end, text, tuple(flags), words, (), comments, tuple(kept))


def _exec_form(text: str) -> tuple[str, ...] | None:
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tuple(found) if isinstance(found, list) and all(isinstance(word, str) for word in found) else None


def _heredocs(one: Instruction, lines: list[str], at: int) -> tuple[tuple[Heredoc, ...], int]:
    found = []
    if _CLOSED.match(one.text) is None:  # a quote is open: BuildKit looks no further either
        return (), at
    for word in _WORD.findall(one.text):
        match = _HEREDOC.match(word)
        name = match[3].strip("\"'") if match else ""
        if match is None or not name:
            continue
        first = at
        content = []
        while True:
            if at >= len(lines):
                raise BadInputError(f"line {one.line}: the heredoc {shown(name, 40)} does not end")
            line = lines[at].lstrip("\t") if match[2] else lines[at]
            at += 1
            if line == name:
                break
            content.append(line)
        found.append(Heredoc(name, "\n".join(content), first + 1))
    return tuple(found), at


def expand(text: str, variables: Mapping[str, str]) -> str:
    """`text` with variables in place, `${NAME:-default}` and `${NAME:+other}` too; what is not known stays."""

    def value(match: re.Match[str]) -> str:
        known = variables.get(match[1] or match[2])
        if match[3] and "+" in match[3]:
            return match[4] if known else ""
        if known or (known is not None and not (match[3] or "").startswith(":")):
            return known[:_VALUE_LIMIT]
        return match[4] if match[3] and "-" in match[3] else match[0]

    return _VARIABLE.sub(value, text)
