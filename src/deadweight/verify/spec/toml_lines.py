"""On which line of a TOML text each key stands: tomllib gives values only.

The text is one that tomllib has read, so nothing is checked here (TOML 1.0, https://toml.io/en/v1.0.0).
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right

Path = tuple[str | int, ...]
"""Keys, and positions from 0 in arrays: `("probe", 1, "timeout")`."""

_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*("(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*(\.?)""")
_STRING = re.compile(
    r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3,5}'  # up to two quotes may stand before the three that end it
    r"|'''[^']*(?:'(?!'')[^']*)*'{3,5}"
    r'|"[^"\\\n]*(?:\\.[^"\\\n]*)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}\n#]*")


def key_lines(text: str) -> dict[Path, int]:
    """The line, from 1, of each key, table and array element, by its path.

    Raises RecursionError where arrays are nested too deep.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    starts = [0, *(match.end() for match in re.finditer("\n", scanner.text))]
    return {path: bisect_right(starts, at) for path, at in scanner.places.items()}


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """The line of a path, or else of what it lies in; None for the document as a whole."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


class _Scanner:
    """Goes through a text once and notes where keys begin."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.places: dict[Path, int] = {}
        self.tables: dict[Path, int] = {}  # how many tables each array of tables has so far

    def document(self) -> None:
        table: Path = ()
        self.blank()
        while self.at < len(self.text):
            start = self.at
            if self.text[start] == "[":
                array = self.text.startswith("[[", start)
                self.at += 2 if array else 1
                table = self.header(self.key(), array)
                self.at += 2 if array else 1
                self.note(table, start)
            else:
                self.pair(table)
            self.blank()

    def header(self, keys: list[str], array: bool) -> Path:
        """The path that a header's keys mean: those that name an array of tables mean the last of them."""
        path: Path = ()
        for key in keys[:-1]:
            path = self.last((*path, key))
        path = (*path, keys[-1])
        if array:
            self.tables[path] = self.tables.get(path, 0) + 1
        return self.last(path)

    def last(self, path: Path) -> Path:
        return (*path, self.tables[path] - 1) if path in self.tables else path

    def pair(self, table: Path) -> None:
        start = self.at
        path = (*table, *self.key())
        self.note(path, start)
        self.at += 1  # the =
        self.value(path)

    def key(self) -> list[str]:
        keys = []
        dot = "."
        while dot and (match := _KEY.match(self.text, self.at)):
            text, dot = match[1], match[2]
            keys.append(tomllib.loads(f"key = {text}")["key"] if text[0] in "\"'" else text)
            self.at = match.end()
        return keys

    def value(self, path: Path) -> None:
        self.blank()
        start = self.text[self.at]
        if start == "[":
            self.inside(path, "]")
        elif start == "{":
            self.inside(path, "}")
        else:
            match = _STRING.match(self.text, self.at) if start in "\"'" else _PLAIN.match(self.text, self.at)
            assert match is not None
            self.at = match.end()

    def inside(self, path: Path, end: str) -> None:
        """An array or an inline table."""
        self.at += 1
        number = 0
        self.blank()
        while self.text[self.at] != end:
            if end == "}":
                self.pair(path)
            else:
                self.note((*path, number), self.at)
                self.value((*path, number))
                number += 1
            self.blank()
            if self.text[self.at] == ",":
                self.at += 1
                self.blank()
        self.at += 1

    def blank(self) -> None:
        match = _BLANK.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def note(self, path: Path, at: int) -> None:
        for end in range(1, len(path) + 1):
            self.places.setdefault(path[:end], at)
