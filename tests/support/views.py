"""Merged views of one layer, from names and contents."""

from __future__ import annotations

import tarfile
import weakref
from collections.abc import Mapping
from pathlib import Path

from deadweight.image.filesystem import Filesystem
from support.layers import image_of, member, tar_of


class Link(str):
    """The target of a symbolic link."""

    __slots__ = ()


def view(
    files: Mapping[str, str | bytes | None], env: Mapping[str, str] | None = None, arch: str = "amd64"
) -> Filesystem:
    """A view of files by path: contents, Link for a symbolic link, None for a directory."""
    members = []
    for path, content in files.items():
        if content is None:
            members.append(member(path, kind=tarfile.DIRTYPE))
        elif isinstance(content, Link):
            members.append(member(path, kind=tarfile.SYMTYPE, link=str(content)))
        else:
            members.append(member(path, content.encode() if isinstance(content, str) else content))
    config: dict[str, object] = {"architecture": arch, "config": {"Env": [f"{k}={v}" for k, v in (env or {}).items()]}}
    image = image_of([tar_of(members)], config)
    fs = Filesystem(image)
    weakref.finalize(fs, image.close)
    return fs


def view_of_tree(root: Path, *below: str, contents: str = "") -> Filesystem:
    """A view of parts of this machine's own files; those without `contents` in their path are made empty."""
    files: dict[str, str | bytes | None] = {}
    for part in below:
        for path in sorted((root / part).rglob("*")) if (root / part).is_dir() else [root / part]:
            name = str(path.relative_to(root))
            if path.is_symlink():
                files[name] = Link(path.readlink())
            elif path.is_dir():
                files[name] = None
            elif path.is_file():
                files[name] = path.read_bytes() if contents in name else b""
    return view(files)
