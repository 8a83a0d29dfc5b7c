"""Python distributions as components: those that an interpreter finds, and those that only lie there.

What lies in a cache, or inside another distribution (setuptools/_vendor), is code in the image too: scanners name it.
Formats: core metadata, direct_url.json (PEP 610), License-Expression (PEP 639).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from packaging.metadata import RawMetadata, parse_email
from packaging.utils import canonicalize_name

from deadweight.errors import BadInputError
from deadweight.image.filesystem import Filesystem
from deadweight.ledger.ledger import Ledger
from deadweight.ledger.python import METADATA_LIMIT, RECORD_LIMIT, SMALL, metadata_files
from deadweight.sbom.model import Component, purl, text

_LICENCE_LIMIT: Final = 120
_UNSAID: Final = frozenset({"", "unknown", "none"})
_URL_SAFE: Final = "!#$%&'()*+,-./:;=?@_~"
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+(?::[0-9]{1,5})?")
"""No IPv6 address: cyclonedx-python-lib encodes its brackets, and what it writes is then no URL."""
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")


def python_components(ledger: Ledger) -> Iterator[Component]:
    """Every distribution whose metadata the image has, with a `ref` yet to be given."""
    fs = ledger.fs
    installed = {_metadata(fs, dist.info): dist for dist in ledger.distributions}
    for path in sorted({*metadata_files(fs, ledger.facts), *installed}):
        node = fs.nodes.get(path)
        if node is None or node.kind == "dir":
            continue
        fields = _fields(fs, path)
        dist = installed.get(path)
        name = dist.display if dist is not None else str(fields.get("name", ""))
        version = dist.version if dist is not None else str(fields.get("version", ""))
        if not name:
            continue
        info = path.rpartition("/")[0]
        url, digest = _source(fs, f"{info}/direct_url.json")
        yield Component(
            kind="python",
            name=text(name),
            version=text(version),
            purl=purl("pypi", "", str(canonicalize_name(text(name))), text(version)),
            ref="",
            path=text(f"/{path}"),
            why=text(ledger.why.get(dist.name, "")) if dist is not None else _lies_in(path),
            licences=_licences(fields),
            homepage=_homepage(fields),
            source_url=url,
            source_sha256=digest,
            record_sha256=_record(fs, f"{info}/RECORD"),
            installed=dist is not None,
        )


def _metadata(fs: Filesystem, info: str) -> str:
    """The file that a distribution's metadata is in."""
    node = fs.nodes.get(info)
    if node is None or node.kind != "dir":
        return info
    return f"{info}/METADATA" if info.endswith(".dist-info") else f"{info}/PKG-INFO"


def _fields(fs: Filesystem, path: str) -> RawMetadata:
    """The core metadata without its description; empty where it cannot be read."""
    try:
        data = fs.read(path, METADATA_LIMIT)
    except BadInputError:
        return {}
    fields, _ = parse_email(data.replace(b"\r\n", b"\n").partition(b"\n\n")[0] + b"\n\n")
    return fields


def _lies_in(path: str) -> str:
    return "inside another distribution" if "/_vendor/" in path else "not installed: it lies in a cache or a folder"


def _licences(fields: RawMetadata) -> tuple[str, ...]:
    """The licence, as one expression or name: the clearest of what the metadata says."""
    expression = str(fields.get("license_expression", "")).strip()
    if expression:
        return (text(expression),)
    stated = [line.strip() for line in str(fields.get("license", "")).strip().splitlines() if line.strip()]
    short = stated[0] if stated and len(stated[0]) <= _LICENCE_LIMIT else ""
    if len(stated) == 1 and short.lower() not in _UNSAID:
        return (text(short),)
    parts = [str(line).split(" :: ") for line in fields.get("classifiers", [])[:1000]]
    names = [each[-1].strip() for each in parts if each[0] == "License" and each[-1].strip() != "OSI Approved"]
    # Whether several hold together or one may be chosen, classifiers do not say: that is left as it stands.
    joined = "; ".join(dict.fromkeys(names)) or short
    return (text(joined),) if joined.lower() not in _UNSAID else ()


def _homepage(fields: RawMetadata) -> str:
    urls = fields.get("project_urls", {})
    named = {label.lower(): url for label, url in urls.items()} if isinstance(urls, dict) else {}
    return safe_url(str(fields.get("home_page", "")) or str(named.get("homepage", "")))


def safe_url(url: str) -> str:
    """A URL without user, password and query, and what no URL may hold; empty where it is none that leads anywhere.

    A query may be a token: that of a presigned URL, or of an index inside a company.
    """
    try:
        parts = urlsplit(text(url).strip())
        host = _ascii(parts.netloc.rpartition("@")[2])
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https", "git+https", "git+http", "git+ssh", "ssh") or not _HOST.fullmatch(host):
        return ""
    return urlunsplit((parts.scheme, host, quote(parts.path, _URL_SAFE), "", ""))


def _ascii(host: str) -> str:
    """A host, perhaps with a port, as a resolver is asked for it (RFC 3490). Raises ValueError where it cannot be."""
    name, colon, port = host.partition(":")
    return host if host.isascii() else f"{name.encode('idna').decode()}{colon}{port}"


def _source(fs: Filesystem, path: str) -> tuple[str, str]:
    """(URL, SHA-256) of what a distribution was installed from, by direct_url.json; empty where it does not say."""
    if path not in fs.nodes:
        return "", ""
    try:
        data: Any = json.loads(fs.read(path, SMALL))
    except (BadInputError, ValueError, RecursionError):
        return "", ""
    if not isinstance(data, dict):
        return "", ""
    archive = data.get("archive_info")
    hashes = archive.get("hashes") if isinstance(archive, dict) else None
    digest = hashes.get("sha256") if isinstance(hashes, dict) else None
    digest = digest if isinstance(digest, str) and _SHA256.match(digest) else ""
    return safe_url(str(data.get("url", ""))), digest


def _record(fs: Filesystem, path: str) -> str:
    """The SHA-256 of a RECORD, which has those of the files; empty where there is none."""
    if path not in fs.nodes:
        return ""
    try:
        return hashlib.sha256(fs.read(path, RECORD_LIMIT)).hexdigest()
    except BadInputError:
        return ""
