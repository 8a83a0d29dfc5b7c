"""The history of an image as instructions, and which of them a Dockerfile's are.

BuildKit writes `RUN |1 ARG=x /bin/sh -c make # buildkit` and `COPY a b # buildkit`, the classic builder
`/bin/sh -c make` and `/bin/sh -c #(nop) COPY file:4f2c in /app`, kaniko and buildah one or the other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from deadweight.application.dockerfile import NAMES, Instruction, instructions
from deadweight.errors import BadInputError
from deadweight.image.model import Image, Json

_ARGUMENTS = re.compile(r"\|(\d{1,4})\s+")
_ARGUMENT = re.compile(r"[A-Za-z_]\w*=")
_SHELL = re.compile(r"(?:/usr)?/bin/(?:ba|da|a)?sh(?:\s+-[a-z]+|\s+pipefail)*?\s+-[a-z]*c\s+")
_NOP = re.compile(r"(?:/bin/sh -c )?#\(nop\)\s+")
_COPIED = re.compile(r"(?:file|dir|multi):[0-9a-f]+ in (\S+)\s*\Z")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"")
_WORDS = re.compile(r"\[(?:\s*\"[^\"\\]*(?:\\.[^\"\\]*)*\")*\s*\]\s*\Z")
"""`["a" "b"]`: the exec form as Go prints it."""
_LIMIT = 200_000
_MATCHES = 4_000_000


class Made(NamedTuple):
    """An entry of the history."""

    number: int
    """Counted from 1."""
    layer: int | None
    """The position of the layer that it made; None where it made none."""
    instruction: Instruction


def history(image: Image) -> list[Made]:
    """The image's history, oldest first; a layer without an entry has an empty one at the end."""
    found = []
    layer = 0
    entries = image.config.get("history")
    for number, entry in enumerate(entries if isinstance(entries, list) else [], 1):
        made = entry if isinstance(entry, dict) else {}
        there = not made.get("empty_layer") and layer < len(image.layers)
        found.append(Made(number, layer if there else None, instruction_of(_text(made), number)))
        layer += there
    for position in range(layer, len(image.layers)):
        found.append(Made(len(found) + 1, position, instruction_of("", len(found) + 1)))
    return found


def _text(made: Json) -> str:
    text = made.get("created_by")
    return text[:_LIMIT] if isinstance(text, str) else ""


def instruction_of(created_by: str, number: int) -> Instruction:
    """The instruction that an entry of the history stands for; its line is the entry's number."""
    text = created_by.strip().removesuffix("# buildkit").strip()
    nop = _NOP.match(text)
    if nop:
        text = text[nop.end() :].strip()
    name, _, rest = text.partition(" ")
    if name.upper() in NAMES and (nop or name.isupper()):
        name, rest = name.upper(), rest.strip()
        if name == "RUN":
            rest = _script(rest)
        copied = _COPIED.match(rest) if name in ("ADD", "COPY") else None
        if copied:
            rest = f". {copied[1]}"  # the classic builder does not say what was copied
    else:
        name, rest = "RUN", _script(text)
    if name in ("CMD", "ENTRYPOINT", "SHELL") and _WORDS.match(rest):
        rest = "[" + ", ".join(_QUOTED.findall(rest)) + "]"
    if name == "RUN" or "\n" in rest:
        return Instruction(name, number, number, rest, starts=((0, number),))
    try:
        one = next(instructions(f"{name} {rest}\n"), None)
    except BadInputError:
        one = None
    if one is None:
        return Instruction(name, number, number, rest)
    return Instruction(one.name, number, number, one.text, one.flags, one.words, starts=((0, number),))


def _script(text: str) -> str:
    """The shell code of a RUN, without build arguments and shell."""
    arguments = _ARGUMENTS.match(text)
    if arguments:
        text = text[arguments.end() :]
        shell = _SHELL.search(text)
        if shell and (not text[: shell.start()].strip() or _ARGUMENT.match(text)):
            text = text[shell.start() :]
    shell = _SHELL.match(text)
    return text[shell.end() :] if shell else text


def match(steps: Sequence[Instruction], made: Sequence[Made]) -> list[int | None]:
    """For each instruction of a Dockerfile the index of its entry in the history, or None: the best alignment.

    Instructions may have no entry (ARG, with some builders), and entries no instruction (the base's).
    """
    if not steps or not made or len(steps) * len(made) > _MATCHES:
        return [None] * len(steps)
    rows, columns = len(steps), len(made)
    # best[i][j]: of the instructions from i and the entries from j. Entries are matched late: the base's come first.
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    scores = [[_alike(step, entry.instruction) for entry in made] for step in steps]
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            score = scores[i][j]
            both = best[i + 1][j + 1] + score if score else 0
            best[i][j] = max(both, best[i + 1][j], best[i][j + 1])
    found: list[int | None] = []
    j = 0
    for i in range(rows):
        while j < columns and best[i][j + 1] == best[i][j]:
            j += 1
        if j < columns and scores[i][j] and best[i][j] == best[i + 1][j + 1] + scores[i][j]:
            found.append(j)
            j += 1
        else:
            found.append(None)
    return found


def _alike(step: Instruction, entry: Instruction) -> int:
    """How much an instruction is like an entry of the history; 0: it cannot be it."""
    if step.name != entry.name:
        return 0
    mine, theirs = _squeezed(step.text), _squeezed(entry.text)
    if mine == theirs:
        return 4
    if step.name == "RUN":  # of a heredoc that is a script BuildKit writes the script alone
        return 4 if step.heredocs and all(_squeezed(doc.content) in theirs for doc in step.heredocs) else 0
    return 1  # the builder has put variables in place, or says only a digest


def _squeezed(text: str) -> str:
    return re.sub(r"[\s\\]+", "", text)
