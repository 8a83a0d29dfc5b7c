"""Converters between character sets that glibc itself calls extra, and nobody in the image can ask for.

glibc lists its converters in two files: `gconv-modules` has those that every system needs (UTF-16, UTF-32, Latin-1 and
few more; UTF-8 is built in), `gconv-modules.d/gconv-modules-extra.conf` all others, which Debian 13 and Fedora have in
a package of their own. iconv_open loads them, and so do locales in other character sets. Python has its own.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterator
from typing import Final

from deadweight.binary.dynamic import dynamic_strings
from deadweight.binary.elf import ElfError, parse
from deadweight.ledger.known import known, matcher
from deadweight.passes.application import mentions
from deadweight.passes.base import TO_STAY, Context, Pass, Proposal
from deadweight.passes.commands import commands
from deadweight.passes.imports import source
from deadweight.passes.libraries import needs

_LISTS: Final = "/gconv/gconv-modules.d"
_EXTRA: Final = "gconv-modules.d/gconv-modules-extra.conf"
_MODULE: Final = re.compile(rb"^module\s+\S+\s+\S+\s+(\S+)", re.MULTILINE)
_VARIABLES: Final = ("LC_ALL", "LC_CTYPE", "LANG")
_UNICODE: Final = re.compile(r"(?:C|POSIX|)|.*\.utf-?8(?:@.*)?", re.IGNORECASE)
_ICONV: Final = re.compile(rb"\biconv\b|\bsetlocale\b")
_SETTING: Final = re.compile(r"(?:.*\s)?(LC_ALL|LC_CTYPE|LANG)=(.*)", re.DOTALL)


def propose(context: Context) -> Iterator[Proposal]:
    """The converters, the list of them, and the cache of both lists, without which glibc reads the first; by path."""
    nodes = context.ledger.fs.nodes
    folders = [path.rpartition("/")[0] for path in context.ledger.fs.directories if path.endswith(_LISTS)]
    lists = ((f"{folder}/{_EXTRA}", folder) for folder in folders)
    there = ((path, folder) for path, folder in lists if path in nodes and path not in context.gone)
    # dpkg's database follows; nothing else that keeps lists of files would.
    found = [(path, folder) for path, folder in there if context.ledger.owner(path).kind == "debian"]
    if not found:
        return
    reason = _asked(context)
    if reason is not None:
        context.notes.append(f"converters between character sets stay: {reason}")
        return
    evidence = "glibc lists it as extra, no locale of the environment has its character set, and no program asks for it"
    for path, folder in sorted(found):
        leaving = nodes.keys() & {path, f"{folder}/gconv-modules.cache", *_modules(context, path, folder)}
        stays = next((each for each in sorted(leaving) if not context.may_change(each)), None)
        if stays is not None:  # a converter is found by the list, or by the cache alone where there is one
            context.notes.append(f"converters between character sets stay: /{stays}{TO_STAY}")
            continue
        for each in sorted(leaving):
            yield Proposal("remove", each, "converters between character sets", evidence)


def _modules(context: Context, extra: str, folder: str) -> set[str]:
    """The modules that only the list of extra ones names, and the libraries beside them that only those need."""
    main = f"{folder}/gconv-modules"
    stay = _names(context, main) if main in context.ledger.fs.nodes else set()
    leaving = {f"{folder}/{name}" for name in _names(context, extra) - stay}
    asked: dict[str, set[str]] = {}
    for path, needed in needs(context.ledger).items():
        for chain in needed.libraries.values():
            for step in chain:
                asked.setdefault(step, set()).add(path)
    beside = {path for path in asked if posixpath.dirname(path) == folder}
    return leaving | {path for path in beside if asked[path] <= leaving}


def _names(context: Context, path: str) -> set[str]:
    """The files that a list of modules names, in its own folder."""
    words = {word.decode("utf-8", "replace") for word in _MODULE.findall(source(context.ledger, path))}
    return {word if word.endswith(".so") else f"{word}.so" for word in words if "/" not in word}


def _asked(context: Context) -> str | None:
    """Who may ask for a converter, as a reason; None where nobody does."""
    environment = context.ledger.image.environment
    for variable in _VARIABLES:
        if not _UNICODE.fullmatch(environment.get(variable, "")):
            return f"{variable} is {environment[variable]!a}"
    for word in commands(context.ledger).words:  # `env LC_ALL=...`, and what scripts export
        if (said := _SETTING.fullmatch(word)) and not _UNICODE.fullmatch(said[2].strip("\"' ")):
            return f"the image runs {word[:100]!a}"
    for path, word in mentions(context, _ICONV):
        return f"/{path} mentions {word}"
    for path, word in commands(context.ledger).programs.items():
        if posixpath.basename(path) == "iconv":
            return f"the image runs {word}"
    return _importer(context, known("charsets", "of_the_locale"))


def _importer(context: Context, exempt: Collection[str]) -> str | None:
    """A program or library that asks for converters, but for those of Debian packages that only want the locale's."""
    is_exempt = matcher(exempt)
    required = {p.name for p in context.ledger.packages if p.essential or p.priority == "required"}
    for path, node in context.ledger.elf_files.items():
        owner = context.ledger.owner(path)
        if path in context.gone or (owner.kind == "debian" and (owner.name in required or is_exempt(owner.name))):
            continue
        read = context.ledger.reader(path)
        try:
            if b"\0iconv_open\0" in dynamic_strings(read, parse(read, node.size)):
                return f"/{path} asks for them by iconv_open"
        except ElfError:
            continue
    return None


PASS = Pass(
    name="charsets",
    risk="policy",
    order=66,
    summary="glibc's extra converters between character sets, where no locale and no program asks for them",
    propose=propose,
)
