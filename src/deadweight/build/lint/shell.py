"""The commands of shell code, each with its place: what stands between `&&`, `||`, `;`, `|` and line ends.

Not a shell: what is in `$(...)` and in quotes is part of a word, and stays as it is. Enough to tell what a RUN does.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from deadweight.application.dockerfile import Instruction

_KEYWORDS = frozenset({"if", "then", "else", "elif", "while", "until", "do", "{", "}", "!", "(", "time"})
_CONDITIONS = frozenset({"if", "elif", "while", "until", "!"})
_ENDS = frozenset({"fi", "done", "esac", "}"})
_REDIRECT = re.compile(r"(?:\d*|&)(?:>>|>\||>&|<&|<<<|<>|>|<)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_PLAIN = re.compile(r"[^\s\\'\"`$;&|()<>#]+")
_DOUBLE = re.compile(r"\"[^\"\\]*(?:\\.[^\"\\]*)*(?:\"|\Z)", re.DOTALL)
_OPERATORS = ("&&", "||", ";;", "|&", ";", "|", "&", "\n", "(", ")")
_WRAPPERS = frozenset({"sudo", "exec", "env", "nice", "nohup", "time", "command", "eatmydata", "xargs"})


@dataclass(frozen=True)
class Command:
    """A simple command."""

    words: tuple[str, ...]
    """Without quotes; assignments before the program, keywords and redirections are left out."""
    line: int
    after: str = ""
    """The operator that follows."""
    redirects: tuple[str, ...] = ()
    """As `2>/dev/null`, in order."""
    assignments: tuple[tuple[str, str], ...] = ()
    condition: bool = False
    """Whether `if` or the like asks for its success."""
    lines: tuple[int, ...] = ()
    """Of the words."""

    def line_of(self, word: str) -> int:
        """The line on which a word stands, or one like `word=1.2`; the command's own where there is none."""
        named = (one.partition("=")[0].lower() for one in self.words)
        return next((line for one, line in zip(named, self.lines, strict=False) if one == word.lower()), self.line)

    @property
    def program(self) -> str:
        """The name of what is run, wrappers such as `sudo` passed over."""
        return posixpath.basename(self.argv[0]) if self.argv else ""

    @property
    def argv(self) -> tuple[str, ...]:
        """The words from the program on."""
        words = self.words
        while words and posixpath.basename(words[0]) in _WRAPPERS:
            if words[0] == "command" and words[1:2] in (("-v",), ("-V",)):
                return words
            words = words[1:]
            while words and (words[0].startswith("-") or _ASSIGNMENT.match(words[0])):
                words = words[1:]
        return words


def run_commands(one: Instruction) -> tuple[Command, ...]:
    """The commands of a RUN (or of the shell form of others), those of a script in a heredoc included."""
    if one.words is not None:
        if len(one.words) == 3 and posixpath.basename(one.words[0]) in ("sh", "bash", "ash") and one.words[1] == "-c":
            return commands(one.words[2], lambda _: one.line)
        return (Command(one.words, one.line),) if one.words else ()
    own = commands(one.text, one.line_at)
    if not one.heredocs:
        return own
    found: list[Command] = []
    programs = [command.program for command in own if command.words]
    for doc in one.heredocs:
        if programs and programs[0] not in ("sh", "bash", "ash", "dash"):
            continue  # the input of another program
        if doc.content.startswith("#!") and not re.match(r"#!\s*\S*(?:/|\s)(?:ba|da|a)?sh\b", doc.content):
            continue
        lines = doc.content
        first = doc.line
        found += commands(lines, lambda at, lines=lines, first=first: first + lines.count("\n", 0, at))  # type: ignore[misc]
    return (*(command for command in own if command.words), *found)


def commands(text: str, line_at: Callable[[int], int]) -> tuple[Command, ...]:
    """The commands of shell code; `line_at` gives the line of an offset."""
    found: list[Command] = []
    here: list[tuple[str, int]] = []
    for token, at, operator in _tokens(text):
        if not operator:
            here.append((token, at))
            continue
        _close(found, here, token, line_at)
        here = []
    _close(found, here, "", line_at)
    return tuple(found)


def _close(found: list[Command], tokens: list[tuple[str, int]], operator: str, line_at: Callable[[int], int]) -> None:
    condition = False
    while tokens and tokens[0][0] in _KEYWORDS:
        condition = condition or tokens[0][0] in _CONDITIONS
        tokens = tokens[1:]
    ends = bool(tokens) and tokens[0][0] in _ENDS
    if (not tokens or ends) and found and not found[-1].after.strip("\n;)"):
        # What follows `fi` or `)` follows the command inside, too: near enough for `( ... ) || true`.
        found[-1] = replace(found[-1], after=operator or found[-1].after)
    if not tokens or ends:
        return
    words: list[str] = []
    redirects: list[str] = []
    assignments: list[tuple[str, str]] = []
    lines: list[int] = []
    rest = iter(tokens)
    for token, at in rest:
        match = _REDIRECT.match(token)
        if match:
            target = token[match.end() :] or next(rest, ("", 0))[0]
            redirects.append(match[0] + target)
        elif not words and _ASSIGNMENT.match(token):
            name, _, value = token.partition("=")
            assignments.append((name.rstrip("+"), _unquoted(value)))
        else:
            words.append(_unquoted(token))
            lines.append(line_at(at))
    line = lines[0] if lines else line_at(tokens[0][1])
    found.append(Command(tuple(words), line, operator, tuple(redirects), tuple(assignments), condition, tuple(lines)))


def _tokens(text: str) -> Iterator[tuple[str, int, bool]]:
    """(token, offset, whether it is an operator); quotes are kept."""
    at = 0
    start = -1
    size = len(text)
    while at < size:
        char = text[at]
        if char in " \t\r":
            if start >= 0:
                yield text[start:at], start, False
                start = -1
            at += 1
            continue
        if char == "#" and start < 0:
            end = text.find("\n", at)
            at = size if end < 0 else end
            continue
        if char == "\\" and text[at + 1 : at + 2] == "\n":
            at += 2
            continue
        operator = next((one for one in _OPERATORS if text.startswith(one, at)), "") if char in "&|;()\n" else ""
        if operator == "&" and (text[at + 1 : at + 2] == ">" or (start >= 0 and text[at - 1] in "<>")):
            operator = ""  # `&>` and `2>&1`
        if operator:
            if start >= 0:
                yield text[start:at], start, False
                start = -1
            yield operator, at, True
            at += len(operator)
            continue
        if start < 0:
            start = at
        at = _skip(text, at)
    if start >= 0:
        yield text[start:], start, False


def _skip(text: str, at: int) -> int:
    """The end of what begins at `at`: a quoted part, a `$(...)`, or one character."""
    plain = _PLAIN.match(text, at)
    if plain is not None:
        return plain.end()
    char = text[at]
    if char == "\\":
        return min(at + 2, len(text))
    if char == "'":
        end = text.find("'", at + 1)
        return end + 1 if end >= 0 else len(text)
    if char == '"':
        match = _DOUBLE.match(text, at)
        return match.end() if match else len(text)
    if char == "`":
        end = text.find("`", at + 1)
        return end + 1 if end >= 0 else len(text)
    if text.startswith(("$(", "${"), at):
        pairs = "()" if text[at + 1] == "(" else "{}"
        depth = 0
        for place in range(at + 1, len(text)):
            depth += (text[place] == pairs[0]) - (text[place] == pairs[1])
            if depth == 0:
                return place + 1
        return len(text)
    return at + 1


def _unquoted(token: str) -> str:
    return re.sub(r"\\(.)|[\"']", lambda match: match[1] or "", token, flags=re.DOTALL)
