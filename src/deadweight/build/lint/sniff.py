"""Whether what was named is a Dockerfile or an image, and where the build context is."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from deadweight.application.dockerfile import SIZE_LIMIT, Dockerfile, parse_dockerfile
from deadweight.application.servers import shlex_split
from deadweight.build.lint.context import Context
from deadweight.errors import BadInputError, shown

_NAMED = re.compile(r"(?:.*[.-])?(?:dockerfile|containerfile)(?:[.-].*)?\Z", re.IGNORECASE)
_MAGIC = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
_PROJECT = ("pyproject.toml", "requirements.txt", "setup.py", "uv.lock", ".dockerignore", "environment.yml")


def read_dockerfile(name: str) -> Dockerfile | None:
    """The Dockerfile in a file, or on standard input (`-`); None where the name is an image's.

    Raises BadInputError, with file and line, where it is a Dockerfile and cannot be read.
    """
    if name == "-":
        return _parsed(name, sys.stdin.buffer.read(SIZE_LIMIT + 1))
    path = Path(name)
    if "\0" in name or not path.is_file():
        if _NAMED.match(path.name) and not path.exists() and ":" not in name:
            raise BadInputError(f"there is no file {shown(name)}")
        return None
    try:
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise BadInputError(f"cannot read {shown(name)}: {error.strerror}") from None
    # A tar has its magic in the first header; a text of that size has no zero bytes.
    if not _NAMED.match(path.name) and (data.startswith(_MAGIC) or b"\0" in data[:1024] or not data):
        return None
    return _parsed(name, data)


def _parsed(name: str, data: bytes) -> Dockerfile:
    try:
        return parse_dockerfile(data.decode("utf-8", "replace"))
    except BadInputError as error:
        raise BadInputError(f"{shown(name)}: {error}") from None


def context_of(name: str, dockerfile: Dockerfile, folder: Path | None) -> Context | None:
    """The build context: what was said, or where the Dockerfile lies, or up to two above, if what it copies is."""
    if folder is not None:
        return Context(folder, Path(name).name)
    if name == "-":
        return None
    sources = [
        word
        for stage in dockerfile.stages
        for one in stage.instructions
        if one.name in ("COPY", "ADD") and one.flag("from") is None
        for word in (one.words or tuple(shlex_split(one.text)))[:-1]
        if not re.match(r"\d*<<|[a-z]+://|.*[$*?\[]", word)
    ]
    named = [word for word in sources if word.strip("./")]
    here = Path(name).parent
    for up, place in enumerate((here, here / "..", here / ".." / "..")):
        whole = not named and bool(sources) and up < 2 and any((place / one).exists() for one in _PROJECT)
        if whole or (named and all((place / word.lstrip("/")).exists() for word in named)):
            return Context(Path(os.path.normpath(place)), Path(name).name)
    return None
