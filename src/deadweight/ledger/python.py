"""The Python distributions of an image: what is installed where, and which files are theirs.

Formats, from the Python Packaging User Guide's specifications: core metadata, "Recording installed projects"
(RECORD, REQUESTED, INSTALLER, direct_url.json), entry points; egg-info as setuptools writes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TypeVar

import msgspec
from packaging.utils import canonicalize_name

from deadweight.cache.known import Facts
from deadweight.errors import BadInputError, shown
from deadweight.image.filesystem import Filesystem
from deadweight.ledger.interpreters import Interpreter, interpreters, marker_environment
from deadweight.ledger.listed import Finder, join
from deadweight.ledger.named import named
from deadweight.ledger.record import (
    RecordLine,
    read_record,
    record_hash,
    record_names,
    record_paths,
    rewrite_record,
)

__all__ = [
    "Distribution",
    "Interpreter",
    "RecordLine",
    "find_distributions",
    "interpreters",
    "marker_environment",
    "read_record",
    "record_hash",
    "record_paths",
    "rewrite_record",
]

T = TypeVar("T")

SITE_NAMES = ("site-packages", "dist-packages")
SMALL = 1 << 20
METADATA_LIMIT = 4 << 20
RECORD_LIMIT = 64 << 20
ENTRY_POINT_LIMIT = 10_000
NOTE_LIMIT = 20

_INFO = re.compile(r"(?:^|/)[^/]+(?:\.dist-info/METADATA|\.egg-info|\.egg-info/PKG-INFO)\Z")
_INFO_NAME = re.compile(r"(?P<name>.+?)(?:-(?P<version>[^-]+)(?:-py[\d.]+)?)?\.(?:dist|egg)-info\Z")
# uv keeps unpacked wheels and whole environments in versioned buckets; pip and uv build in directories of their own.
_UV_BUCKET = re.compile(r"(?:archive|builds|sdists|environments|wheels)-v\d+\Z")
_MODULE_FILE = re.compile(r"([^\W\d]\w*)(?:\.cpython-[\w.-]+|\.abi3|\.pypy[\w.-]+)?\.(?:py|so|pyc)\Z")


class Distribution(msgspec.Struct, frozen=True):
    """An installed distribution. Paths are image paths, without a leading `/`."""

    name: str
    """Canonical, as PEP 503 has it."""
    display: str
    """As its own metadata writes it."""
    version: str
    site: str
    """The directory that holds its metadata, and that its modules are imported from."""
    info: str
    """The `.dist-info` or `.egg-info` directory (or file)."""
    requires: tuple[str, ...] = ()
    """Requires-Dist, as written."""
    extras: tuple[str, ...] = ()
    """Provides-Extra, canonical."""
    requested: bool = False
    """Whether there is a REQUESTED file. uv writes one for everything, so it says nothing when `installer` is uv."""
    installer: str = ""
    direct_url: str | None = None
    """Where it came from, when not from an index."""
    editable: bool = False
    files: tuple[str, ...] = ()
    """What RECORD (or installed-files.txt) lists and the view has, and all that is in `info`; no directories."""
    top_level: tuple[str, ...] = ()
    """Names that can be imported, sorted."""
    entry_points: tuple[tuple[str, str, str], ...] = ()
    """(group, name, value) of entry_points.txt."""
    has_record: bool = False
    """Whether there is a list of its files: Debian's packages come without, dpkg owns their files."""
    notes: tuple[str, ...] = ()
    """What could not be read or was passed over, and why."""


def find_distributions(fs: Filesystem, facts: Facts | None = None) -> list[Distribution]:
    """Every distribution that an interpreter of the image can find, ordered by site and name.

    Those are the ones in directories named site-packages or dist-packages, on PYTHONPATH, named by a .pth file,
    or (dist-info only) in any directory that is no cache: `pip install --target` makes such. Metadata vendored
    inside another distribution, and wheels unpacked in caches, are not installed. Damaged files leave notes. What
    `facts` know of files is not read again.
    """
    finder = Finder(fs)
    infos = sorted(set(map(_info_of, metadata_files(fs, facts))))
    search = _search_path(fs, {path.rpartition("/")[0] for path in infos})
    found = []
    for info in infos:
        site = info.rpartition("/")[0]
        if is_site(fs, site, search, wheel=info.endswith(".dist-info")):
            distribution = _read(fs, facts, finder, site, info)
            if distribution is not None:
                found.append(distribution)
    return sorted(found, key=lambda d: (d.site, d.name, d.info))


_ENDINGS = (".dist-info/METADATA", ".egg-info", ".egg-info/PKG-INFO")


def metadata_files(fs: Filesystem, facts: Facts | None = None) -> list[str]:
    """The files and folders by which distributions are known, wherever they lie: installed, vendored or in caches."""
    return [*filter(_is_metadata, fs.directories), *named(fs, facts, "metadata", _is_metadata)]


def _is_metadata(path: str) -> bool:
    return path.endswith(_ENDINGS) and _INFO.search(path) is not None


def _info_of(path: str) -> str:
    return path if path.endswith(".egg-info") else path.rpartition("/")[0]


def _search_path(fs: Filesystem, sites: Iterable[str]) -> frozenset[str]:
    """Directories on PYTHONPATH, and those that .pth files add (the `site` module's documentation)."""
    found = {path.strip("/") for path in fs.image.environment.get("PYTHONPATH", "").split(":") if path}
    for site in sites:
        if site.rpartition("/")[2] not in SITE_NAMES:
            continue
        for path in fs.children(site):
            if path.endswith((".pth", ".egg-link")):
                for line in _text(fs, path, SMALL).splitlines()[:1000]:
                    if line.strip() and not line.startswith(("#", "import ", "import\t")):
                        found.add(join(site, line.strip()) or "")
    return frozenset(found - {""})


def is_site(fs: Filesystem, path: str, search: frozenset[str], *, wheel: bool) -> bool:
    """Whether an interpreter of the image imports from `path`; `search` are directories known to be on its path."""
    if path in search:
        return True
    parts = path.split("/")
    if any(_UV_BUCKET.match(part) for part in parts) or _package_cache(fs, parts):
        return False
    if parts[-1] in SITE_NAMES:
        return True
    below_cache = ".cache" in parts or parts[:2] == ["var", "cache"] or parts[0] == "tmp"
    vendored = any(part in SITE_NAMES or part == "_vendor" for part in parts)
    return wheel and not below_cache and not vendored


def _package_cache(fs: Filesystem, parts: list[str]) -> bool:
    """Whether a path lies in a cache of uv, pip or conda."""
    pairs = set(pairwise(parts))
    if any((cache, tool) in pairs for cache in (".cache", "cache") for tool in ("uv", "pip")):
        return True
    path = "/".join(parts) + "/"
    for variable in ("UV_CACHE_DIR", "PIP_CACHE_DIR"):
        cache = fs.image.environment.get(variable, "").strip("/")
        if cache and path.startswith(cache + "/"):
            return True
    if "pkgs" in parts:
        prefix = "/".join(parts[: parts.index("pkgs")])
        return (f"{prefix}/conda-meta" if prefix else "conda-meta") in fs.nodes
    return False


def _read(fs: Filesystem, facts: Facts | None, finder: Finder, site: str, info: str) -> Distribution | None:
    notes: list[str] = []
    node = fs.nodes[info]
    is_file = node.kind != "dir"
    base = "METADATA" if info.endswith(".dist-info") else "PKG-INFO"
    metadata = info if is_file else f"{info}/{base}"
    if metadata not in fs.nodes:
        return None  # an .egg-info directory of something else
    try:
        headers = _of_file(
            fs,
            facts,
            "headers",
            metadata,
            dict[str, list[str]],
            lambda: parse_headers(fs.read(metadata, METADATA_LIMIT)),
        )
    except BadInputError as error:
        notes.append(str(error))
        headers = {}
    guess = _INFO_NAME.match(info.rpartition("/")[2])
    display = headers.get("name", [""])[0] or (guess["name"] if guess else info.rpartition("/")[2])
    version = headers.get("version", [""])[0] or (guess["version"] or "" if guess else "")
    requires = tuple(headers.get("requires_dist", []))
    extras = [str(canonicalize_name(extra)) for extra in headers.get("provides_extra", [])]
    if is_file:
        files, listed = [info], None
    else:
        if not requires and info.endswith(".egg-info"):
            requires = tuple(requires_of_egg(_text(fs, f"{info}/requires.txt", SMALL)))
            extras = extras or sorted({m for r in requires for m in re.findall(r'extra == "([^"]+)"', r)})
        listed = _listed(fs, facts, finder, site, info, notes)
        files = [*(listed or ()), *(n.path for n in fs.walk(info) if n.kind != "dir")]
    url, editable = _direct_url(_text(fs, f"{info}/direct_url.json", SMALL))
    editable = editable or any("/__editable__" in f for f in files)
    top = _text(fs, f"{info}/top_level.txt", SMALL).split()
    return Distribution(
        name=str(canonicalize_name(display)),
        display=display,
        version=version,
        site=site,
        info=info,
        requires=requires,
        extras=tuple(dict.fromkeys(extras)),
        requested=f"{info}/REQUESTED" in fs.nodes,
        installer=_text(fs, f"{info}/INSTALLER", 4096).strip(),
        direct_url=url,
        editable=editable,
        files=tuple(dict.fromkeys(files)),
        top_level=tuple(sorted({*modules_of(site, files), *(t for t in top if t.isidentifier())})),
        entry_points=tuple(read_entry_points(_text(fs, f"{info}/entry_points.txt", SMALL))),
        has_record=listed is not None,
        notes=tuple(notes),
    )


def _text(fs: Filesystem, path: str, limit: int) -> str:
    """A small file's text, empty when it is not there or too large."""
    if path not in fs.nodes:
        return ""
    try:
        return fs.read(path, limit).decode("utf-8", "surrogateescape")
    except BadInputError:
        return ""


def parse_headers(data: bytes) -> dict[str, list[str]]:
    """The fields of core metadata that matter here, each as a list of strings; the description is not parsed.

    packaging's lenient parser does it: its strict one refuses metadata that is in use.
    """
    from packaging.metadata import parse_email  # noqa: PLC0415  (a few hundredths of a second, for what is mostly known)

    data = data.replace(b"\r\n", b"\n")
    head, blank, _ = data.partition(b"\n\n")
    if not blank:
        head = data
    fields: dict[str, list[str]] = {}
    raw, _ = parse_email(_without_long_fields(head))
    for key, value in raw.items():
        if key in ("name", "version", "requires_dist", "provides_extra"):
            fields[key] = [value.strip()] if isinstance(value, str) else [str(v) for v in value]  # type: ignore[attr-defined]
    return fields


def _without_long_fields(head: bytes) -> bytes:
    """Only the header lines that `parse_headers` is after: a licence text in a field costs more than all others."""
    kept = []
    keep = False
    for line in head.split(b"\n"):
        if line[:1] not in (b" ", b"\t"):
            keep = line.partition(b":")[0].strip().lower() in _FIELDS
        if keep:
            kept.append(line)
    return b"\n".join(kept) + b"\n\n"


_FIELDS = frozenset({b"metadata-version", b"name", b"version", b"requires-dist", b"provides-extra"})


def names_in_record(fs: Filesystem, facts: Facts | None, path: str) -> list[str]:
    """The names that the RECORD at a path lists. Raises BadInputError as `Filesystem.read` does."""
    return _of_file(fs, facts, "record", path, list[str], lambda: record_names(fs.read(path, RECORD_LIMIT)))


def _of_file(fs: Filesystem, facts: Facts | None, kind: str, path: str, of: type[T], work: Callable[[], T]) -> T:
    """What `work` finds in a file, or what is known of it."""
    node = fs.nodes[path]
    if facts is None or node.kind != "file" or node.inode is None:
        return work()
    return facts.of(kind, node.inode, of, work)


def _listed(
    fs: Filesystem, facts: Facts | None, finder: Finder, site: str, info: str, notes: list[str]
) -> list[str] | None:
    """The files that a distribution lists and the view has; None where there is no list."""
    record, legacy = f"{info}/RECORD", f"{info}/installed-files.txt"
    try:
        if record in fs.nodes:
            names = [(site, name) for name in names_in_record(fs, facts, record)]
        elif legacy in fs.nodes:  # pip before 2023, relative to the egg-info directory itself
            names = [(info, line.strip()) for line in _text(fs, legacy, RECORD_LIMIT).splitlines()]
        else:
            return None
    except BadInputError as error:
        notes.append(str(error))
        return None
    files = []
    for base, name in names:
        if not name:
            continue
        path = join(base, name)
        node = (fs.nodes.get(path) or finder.node(path)) if path else None
        if node is not None and node.kind != "dir":
            files.append(node.path)
        elif path is None and len(notes) < NOTE_LIMIT:
            notes.append(f"{shown(name)} in its RECORD leads out of the image: passed over")
    return files


def _direct_url(text: str) -> tuple[str | None, bool]:
    """(url, editable) of direct_url.json (PEP 610); (None, False) when it is not there or damaged."""
    if not text:
        return None, False
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None, False
    if not isinstance(data, dict) or not isinstance(data.get("url"), str):
        return None, False
    directory = data.get("dir_info")
    return data["url"], isinstance(directory, dict) and directory.get("editable") is True


def requires_of_egg(text: str) -> list[str]:
    """setuptools' requires.txt as Requires-Dist strings: sections are `[extra]`, `[:marker]` or `[extra:marker]`."""
    requires = []
    condition = ""
    for line in map(str.strip, text.splitlines()[:ENTRY_POINT_LIMIT]):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            extra, _, marker = line[1:-1].partition(":")
            parts = [f"({marker})"] if marker else []
            parts += [f'extra == "{canonicalize_name(extra)}"'] if extra else []
            condition = " and ".join(parts)
        else:
            requires.append(f"{line} ; {condition}" if condition else line)
    return requires


def read_entry_points(text: str) -> list[tuple[str, str, str]]:
    """(group, name, value) of entry_points.txt, leniently: what is no such line is passed over."""
    points: list[tuple[str, str, str]] = []
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            group = line[1:-1].strip()
        elif "=" in line and group and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            points.append((group, name.strip(), value.strip()))
            if len(points) >= ENTRY_POINT_LIMIT:
                break
    return points


def modules_of(site: str, files: Iterable[str]) -> set[str]:
    """The top-level names that can be imported from `site` thanks to `files`."""
    start = len(site) + 1 if site else 0
    prefix = f"{site}/" if site else ""
    names = set()
    for path in files:
        if not path.startswith(prefix) or not path.endswith((".py", ".so", ".pyc")):
            continue
        top, slash, _ = path[start:].partition("/")
        if slash:
            names.add(top)
        else:
            match = _MODULE_FILE.match(top)
            if match:
                names.add(match[1])
    return {name for name in names if name.isidentifier() and name != "__pycache__"}
