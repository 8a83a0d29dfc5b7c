r"""Go's regular expressions (https://pkg.go.dev/regexp/syntax) as Python's, so that they match the same.

What differs is translated: `$` is the end of the text, never a newline before it; `\z`; `\Q...\E`; `\d`, `\s`, `\w` and
`\b` are ASCII; `[[:alpha:]]`; `\x{1F600}`; flags that begin in the middle; `{,5}`, which is no repetition. What Python
has no counterpart for is refused: `\pL`, `\C` and the ungreedy flag; so is what Go does not have.
"""

from __future__ import annotations

import re

_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": r"\t\n\f\r "}
_INVERSE = {"D": r"\x00-/:-\U0010ffff", "W": r"\x00-/:-@\[-\^`{-\U0010ffff", "S": r"\x00-\x08\v\x0e-\x1f!-\U0010ffff"}
_FLAGS = re.compile(r"\(\?([a-zA-Z]*)(?:-([a-zA-Z]*))?([:)])")
_NAMED = re.compile(r"\(\?P?<(\w+)>")
_REPEAT = re.compile(r"\{\d+(?:,\d*)?\}")
_CODE = re.compile(r"\\(?:x\{([0-9A-Fa-f]{1,6})\}|x([0-9A-Fa-f]{2})|(0[0-7]{0,2}|[1-7][0-7]{1,2}))")
_NAMED_SET = re.compile(r"\[:(\^?)(\w+):\]")


def python_regex(pattern: str) -> str:
    """A regular expression of Go as one of Python's `re`. Raises ValueError for what cannot be said there."""
    text, at = _alternatives(pattern, 0, frozenset())
    if at < len(pattern):
        raise ValueError("no regular expression: an unexpected )")
    return text


def _alternatives(pattern: str, at: int, outer: frozenset[str]) -> tuple[str, int]:
    """What stands up to a `)` that opens nowhere here, or to the end. Flags that are set inside hold up to there."""
    text, flags = "", outer
    while at < len(pattern) and pattern[at] != ")":
        match = _FLAGS.match(pattern, at)
        if match is not None and match[3] == ")":
            text += _end(outer, flags)
            flags, at = _changed(flags, match), match.end()
            text += _begin(outer, flags)
        elif pattern[at] == "|":
            text += _end(outer, flags) + "|" + _begin(outer, flags)
            at += 1
        elif pattern[at] == "(":
            part, at = _group(pattern, at, flags)
            text += part
        else:
            part, at = _one(pattern, at, flags)
            text += part
    return text + _end(outer, flags), at


def _begin(outer: frozenset[str], flags: frozenset[str]) -> str:
    if flags == outer:
        return ""
    less = "".join(sorted(outer - flags))
    return f"(?{''.join(sorted(flags - outer))}{'-' if less else ''}{less}:"


def _end(outer: frozenset[str], flags: frozenset[str]) -> str:
    return "" if flags == outer else ")"


def _changed(flags: frozenset[str], match: re.Match[str]) -> frozenset[str]:
    more, less = match[1], match[2] or ""
    if set(more + less) - set("ims"):
        raise ValueError(f"the flags {match[0]} are not supported")
    return (flags | set(more)) - set(less)


def _group(pattern: str, at: int, flags: frozenset[str]) -> tuple[str, int]:
    inner = flags
    if match := _FLAGS.match(pattern, at):
        inner = _changed(flags, match)
        start, at = _begin(flags, inner) or "(?:", match.end()
    elif match := _NAMED.match(pattern, at):
        start, at = f"(?P<{match[1]}>", match.end()
    elif pattern.startswith("(?", at):
        raise ValueError(f"{pattern[at : at + 4]} is not in Go's regular expressions")
    else:
        start, at = "(", at + 1
    text, at = _alternatives(pattern, at, inner)
    if at == len(pattern):
        raise ValueError("no regular expression: a missing )")
    return f"{start}{text})", at + 1


def _one(pattern: str, at: int, flags: frozenset[str]) -> tuple[str, int]:
    char = pattern[at]
    if char == "\\":
        return _escape(pattern, at)
    if char == "[":
        return _set(pattern, at)
    if char == "$" and "m" not in flags:
        return r"\Z", at + 1
    if char == "{" and not _REPEAT.match(pattern, at):
        return r"\{", at + 1
    return char, at + 1


def _escape(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at + 1 : at + 2]
    if char == "Q":
        end = pattern.find(r"\E", at)
        return re.escape(pattern[at + 2 : end if end >= 0 else None]), end + 2 if end >= 0 else len(pattern)
    if char in _CLASSES:
        return f"[{_CLASSES[char]}]", at + 2
    if char in _INVERSE:
        return f"[^{_CLASSES[char.lower()]}]", at + 2
    if char in ("b", "B"):
        return rf"(?a:\{char})", at + 2
    if char == "z":
        return r"\Z", at + 2
    if char == "A":
        return r"\A", at + 2
    return _character(pattern, at)


def _character(pattern: str, at: int) -> tuple[str, int]:
    """An escape that stands for one character, in a set or outside."""
    if match := _CODE.match(pattern, at):
        code = int(match[1] or match[2], 16) if match[1] or match[2] else int(match[3], 8)
        if code > 0x10FFFF:
            raise ValueError(f"{match[0]} is no character")
        return f"\\U{code:08x}", match.end()
    char = pattern[at + 1 : at + 2]
    if not char or (char.isalnum() and char not in "afnrtv"):
        raise ValueError(f"\\{char} is not supported in regular expressions")
    return (f"\\{char}" if char.isascii() else char), at + 2


def _set(pattern: str, at: int) -> tuple[str, int]:
    """A set in brackets. What is special in Python's only is escaped."""
    text, at = "[", at + 1
    if pattern.startswith("^", at):
        text, at = "[^", at + 1
    first = True
    while at < len(pattern) and (first or pattern[at] != "]"):
        char = pattern[at]
        if match := _NAMED_SET.match(pattern, at):
            if match[1] or match[2] not in _POSIX:
                raise ValueError(f"{match[0]} is not supported in regular expressions")
            part, at = _POSIX[match[2]], match.end()
        elif char == "\\" and pattern[at + 1 : at + 2] in {**_CLASSES, **_INVERSE}:
            part, at = {**_CLASSES, **_INVERSE}[pattern[at + 1]], at + 2
        elif char == "\\":
            part, at = _character(pattern, at)
        else:
            part, at = (f"\\{char}" if char in "[]&~|" else char), at + 1
        text += part
        first = False
    if at >= len(pattern):
        raise ValueError("no regular expression: a missing ]")
    return f"{text}]", at + 1
