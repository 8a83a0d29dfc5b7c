"""What the image's own configuration runs: the words of ENTRYPOINT, CMD and HEALTHCHECK, and what they mean in it.

Shell scripts that they name are read as well, since an entrypoint is often one: their words count too.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from deadweight.errors import BadInputError
from deadweight.image.filesystem import Filesystem, Node
from deadweight.image.model import Image
from deadweight.ledger.ledger import Ledger

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SCRIPT_LIMIT = 1 << 20
SCRIPT_COUNT = 50
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})
_MODULE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*\Z")
_VARIABLE = re.compile(r"\$(?:\{(\w+)[^{}]*\}|(\w+))")
_SPLIT = re.compile(r"[;&|()<>`{}\n]|\$\(")
_SUBCOMMAND = re.compile(r"[a-z][a-z0-9-]*\Z")
# Options of python, gunicorn, celery, uvicorn and others that take a module's name.
_MODULE_OPTIONS = frozenset({"-m", "-A", "--app", "-k", "--worker-class", "-c", "--config", "-w", "--factory"})


class Commands(msgspec.Struct, frozen=True):
    """What the configuration runs."""

    words: tuple[str, ...]
    """Every word of it, in order, once."""
    programs: dict[str, str]
    """Paths that it names, directly or by PATH, and those that links lead on to; each with the word."""
    modules: dict[str, str]
    """Python modules that it names; each with the word."""


_FOUND: WeakKeyDictionary[Ledger, Commands] = WeakKeyDictionary()


def commands(ledger: Ledger) -> Commands:
    """What ENTRYPOINT, CMD and HEALTHCHECK need; worked out once."""
    found = _FOUND.get(ledger)
    if found is None:
        found = _FOUND[ledger] = _commands(ledger.fs)
    return found


def _commands(fs: Filesystem) -> Commands:
    todo = [list(words) for words in _configured(fs.image)]
    seen: dict[str, None] = {}
    programs: dict[str, str] = {}
    modules: dict[str, str] = {}
    scripts: set[str] = set()
    while todo:
        words = todo.pop(0)
        for before, word in zip(["", *words], words, strict=False):
            seen[word] = None
            for module in _modules(before, word):
                modules.setdefault(module, word)
            # `jupyter lab` runs jupyter-lab, as git's subcommands are run.
            sub = f"{posixpath.basename(before)}-{word}" if before and _SUBCOMMAND.match(word) else ""
            for node in (*locate(fs, word), *locate(fs, sub)):
                programs.setdefault(node.path, word)
                if node.kind == "file" and node.path not in scripts and len(scripts) < SCRIPT_COUNT:
                    scripts.add(node.path)
                    todo += _script(fs, node)
    return Commands(tuple(seen), programs, modules)


def _configured(image: Image) -> Iterator[list[str]]:
    run, environment = image.run_config, image.environment
    yield [word for key in ("Entrypoint", "Cmd") for word in _words(run.get(key), environment)]
    check = run.get("Healthcheck")
    test = check.get("Test") if isinstance(check, dict) else None
    if isinstance(test, list) and test[:1] == ["CMD-SHELL"]:
        yield [word for text in test[1:] if isinstance(text, str) for word in split(expand(text, environment))]
    elif isinstance(test, list):
        yield list(_words(test[1:], environment))


def _words(value: Any, environment: Mapping[str, str]) -> Iterator[str]:
    """The words of the exec form; those of the shell form when a shell is what runs."""
    if isinstance(value, str):  # not what the specification has, but seen
        value = ["sh", "-c", value]
    if not isinstance(value, list):
        return
    shell = False
    for word in value:
        if not isinstance(word, str):
            continue
        if shell or (" " in word.strip() and not posixpath.isabs(word)):
            yield from split(expand(word, environment))
        else:
            yield word
        shell = word in ("-c", "-lc", "-ec", "-xc")


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Shell code with the image's own variables in place (`$APP_MODULE`); others stay as they are."""
    return _VARIABLE.sub(lambda match: environment.get(match[1] or match[2], match[0])[:4096], text)


def split(text: str) -> list[str]:
    """The words of shell code: quotes and operators are taken apart, variables stay as they are."""
    words: list[str] = []
    for part in _SPLIT.split(text.replace("\\\n", " ")):
        try:
            words += shlex.split(part, comments=True)
        except ValueError:  # an open quote: it goes on behind an operator
            words += part.replace('"', " ").replace("'", " ").split()
    # A word with blanks was quoted: code for `sh -c`, perhaps.
    return [w for word in words for w in ([word] if " " not in word.strip() else [word, *word.split()]) if w]


def _modules(before: str, word: str) -> Iterator[str]:
    """Modules that a word can mean: `pkg.mod:attr` always, `pkg.mod` where it has a dot, `mod` behind an option."""
    name, colon, _ = word.partition(":")
    if "=" in name:
        name = name.rpartition("=")[2]
    if _MODULE.match(name) and (colon or "." in name or before in _MODULE_OPTIONS):
        yield name
    if word.startswith("-m") and _MODULE.match(word[2:]):
        yield word[2:]


def locate(fs: Filesystem, word: str) -> Iterator[Node]:
    """The file that a word names: itself where it holds a `/`, else in PATH or the working directory.

    Links that lead there come first; they can be anywhere on the way.
    """
    if not word or len(word) > 4096 or "\0" in word:
        return
    word = word.partition("=")[2] or word if word.startswith("-") else word
    workdir = str(fs.image.run_config.get("WorkingDir") or "/")
    places = [posixpath.join(workdir, word)]
    if "/" not in word:
        places += [posixpath.join(directory or workdir, word) for directory in path_directories(fs.image)]
    for place in places:
        chain = list(follow(fs, place))
        if chain and chain[-1].kind == "file":
            yield from chain


def path_directories(image: Image) -> list[str]:
    """PATH of the image's environment."""
    return (image.environment.get("PATH") or DEFAULT_PATH).split(":")


def follow(fs: Filesystem, path: str) -> Iterator[Node]:
    """The links that are followed to open `path`, and what they lead to; nothing when they lead nowhere."""
    chain = []
    place = posixpath.normpath("/" + path).strip("/")
    for _ in range(40):
        parent, _, base = place.rpartition("/")
        directory = fs.resolve(parent)
        if directory is None:
            return
        node = fs.nodes.get(posixpath.join(directory.path, base))
        if node is None:
            return
        chain.append(node)
        if node.kind != "symlink" or node.source is None:
            yield from chain
            return
        place = posixpath.normpath(posixpath.join("/", directory.path, node.source.linkname)).strip("/")


def _script(fs: Filesystem, node: Node) -> Iterator[list[str]]:
    """The words of a shell script."""
    if node.size > SCRIPT_LIMIT or node.size < 2:
        return
    try:
        head = fs.reader(node)(0, 128)
        program = shebang(head)
        if not any(posixpath.basename(word) in _SHELLS for word in program) and not node.path.endswith(".sh"):
            return
        yield split(expand(fs.read(node.path, SCRIPT_LIMIT).decode("utf-8", "replace"), fs.image.environment))
    except BadInputError:
        return


def shebang(head: bytes) -> list[str]:
    """The words of a script's first line behind `#!`; [] when there is none."""
    if head[:2] != b"#!":
        return []
    line = head[2:].split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    program, _, rest = line.partition(" ")
    if posixpath.basename(program) != "env":
        return [program]
    words = [word for word in rest.split() if not word.startswith("-") and "=" not in word]
    return [program, *words[:1]]
