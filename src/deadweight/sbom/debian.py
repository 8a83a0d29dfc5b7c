"""Debian packages, and the system that they make up, as components.

Formats: os-release(5); the machine-readable debian/copyright; package URLs of type deb.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Final

from deadweight.errors import BadInputError
from deadweight.image.filesystem import Filesystem
from deadweight.ledger.debian import DPKG, Package
from deadweight.ledger.ledger import Ledger
from deadweight.report.reasons import package_reasons
from deadweight.sbom.model import Component, purl, text

_COPYRIGHT_LIMIT: Final = 1 << 20
_LICENCES: Final = 30
"""How many of a package's licences are named at most."""
_NAMED: Final = re.compile(r"^License:[ \t]*(\S[^\n]*)$", re.MULTILINE)
_COMMON: Final = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9][\w.+-]*[\w+])")


def os_release(fs: Filesystem) -> dict[str, str]:
    """What /etc/os-release says; empty where there is none."""
    try:
        content = fs.read("etc/os-release", 1 << 16).decode("utf-8", "replace")
    except BadInputError:
        return {}
    fields = {}
    for line in content.splitlines():
        name, equals, value = line.partition("=")
        try:
            words = shlex.split(value)
        except ValueError:
            words = [value]
        if equals and re.fullmatch(r"[A-Z0-9_]{1,40}", name):
            fields[name] = text(words[0]) if words else ""
    return fields


def system(ledger: Ledger) -> Iterator[Component]:
    """The operating system, where the image says which it is."""
    release = os_release(ledger.fs)
    name = release.get("ID", "")
    if name:
        yield Component("os", name, release.get("VERSION_ID", ""), "", "", "/etc/os-release")


def debian_components(ledger: Ledger) -> Iterator[Component]:
    """Every package that dpkg has unpacked, with a `ref` yet to be given."""
    fs = ledger.fs
    release = os_release(fs)
    vendor = release.get("ID") or "debian"
    version_id = release.get("VERSION_ID", "")
    distro = f"{vendor}-{version_id}" if version_id else vendor
    reasons = package_reasons(ledger.packages)
    for package in ledger.packages:
        if not package.installed:
            continue
        name, version, arch = text(package.name), text(package.version), text(package.architecture)
        upstream = text(package.source) if package.source != package.name or package.source_version else ""
        upstream += f"@{text(package.source_version)}" if package.source_version else ""
        yield Component(
            kind="debian",
            name=name,
            version=version,
            purl=purl("deb", vendor, name, version, arch=arch, distro=distro, upstream=upstream),
            ref="",
            path=text(f"/{list_of(package)}"),
            why=text(reasons.get(package.name, "")),
            licences=_licences(fs, package.name),
        )


def list_of(package: Package) -> str:
    """Where the image says that a package is there."""
    lists = [path for path in package.info_files if path.endswith(".list")]
    return next(iter(lists or package.info_files), f"{DPKG}/status")


def _licences(fs: Filesystem, name: str) -> tuple[str, ...]:
    """The licences that a package's copyright file names: all of them hold, for one file or another."""
    try:
        content = fs.read(f"usr/share/doc/{name}/copyright", _COPYRIGHT_LIMIT).decode("utf-8", "replace")
    except BadInputError:
        return ()
    found = _NAMED.findall(content) if content.startswith("Format:") else _COMMON.findall(content)
    return tuple(dict.fromkeys(text(each.strip(), 120) for each in found))[:_LICENCES]
