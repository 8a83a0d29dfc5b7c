"""The Python interpreters of an image, and the environment that markers see under each (PEP 508)."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

import msgspec

from deadweight.errors import BadInputError
from deadweight.image.filesystem import Filesystem

_STDLIB = re.compile(r"(?P<prefix>(?:.*/)?)lib(?:64)?/python(?P<version>3\.\d{1,3})t?\Z")
_BINARY = re.compile(r"(?P<prefix>(?:.*/)?)bin/python(?P<version>3\.\d{1,3})t?\Z")
_FULL = re.compile(r"3\.\d{1,3}\.\d{1,3}(?:(?:a|b|rc)\d{1,3})?")
_ANY_VERSION = re.compile(r"(?:\A|/)python(3\.\d{1,3})(?:/|\Z)")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "386": "i686", "arm": "armv7l"}
_SMALL = 1 << 20
_PROGRAM = 64 << 20
"""Bytes of an interpreter that are looked through."""


class Interpreter(msgspec.Struct, frozen=True):
    """A CPython installation or virtual environment. Paths are image paths, without a leading `/`."""

    version: str
    """As `3.11`."""
    full_version: str
    """As `3.11.2`; ends in `.0` when nothing in the image tells it."""
    prefix: str
    executable: str | None
    stdlib: str | None
    """The directory of os.py; a virtual environment has its base's."""
    sites: tuple[str, ...]
    """The site directories that the view has, in the order of its import path; PYTHONPATH first."""
    home: str | None = None
    """The directory of the base interpreter, where this is a virtual environment."""
    exact: bool = True
    """Whether something in the image tells the patch release."""


def interpreters(fs: Filesystem) -> list[Interpreter]:
    """Every interpreter of the image, ordered by prefix and version.

    Found by `bin/python3.X`, `lib/python3.X/os.py` and `pyvenv.cfg` under any prefix.
    """
    stdlibs: dict[tuple[str, str], str] = {}
    binaries: dict[tuple[str, str], str] = {}
    environments: list[str] = []
    libraries: list[str] = []
    for directory in fs.directories:
        if directory.endswith("bin"):
            for path in sorted(fs.children(directory), reverse=True):  # 3.13 goes before 3.13t
                match = _BINARY.match(path)
                if match and fs.nodes[path].kind != "dir":
                    binaries[match["prefix"].rstrip("/"), match["version"]] = path
        elif directory.rpartition("/")[2].startswith("python3.") and f"{directory}/os.py" in fs.nodes:
            libraries.append(directory)
        if f"{directory}/pyvenv.cfg".lstrip("/") in fs.nodes:
            environments.append(directory)
    libraries.sort(key=lambda path: (path.endswith("t"), path), reverse=True)
    for directory in libraries:  # 3.13 goes before 3.13t, lib before lib64
        match = _STDLIB.match(directory)
        if match:
            stdlibs[match["prefix"].rstrip("/"), match["version"]] = directory
    found = {}
    for prefix, version in sorted({*stdlibs, *binaries}):
        if prefix in environments:
            continue
        key = (prefix, version)
        # Without a standard library it is a link to, or a copy of, one that lies elsewhere.
        if key in stdlibs:
            full = _full_version(fs, prefix, version)
            sites = tuple(_sites(fs, prefix, version))
            found[key] = Interpreter(
                version, full or f"{version}.0", prefix, binaries.get(key), stdlibs[key], sites, exact=bool(full)
            )
    bases = list(found.values())
    for prefix in sorted(environments):
        environment = _environment(fs, prefix, bases, binaries)
        if environment is not None:
            found[prefix, environment.version] = environment
    return [found[key] for key in sorted(found)]


def _environment(
    fs: Filesystem, prefix: str, bases: Sequence[Interpreter], binaries: dict[tuple[str, str], str]
) -> Interpreter | None:
    """The virtual environment at `prefix` (PEP 405; `version_info` is uv's and virtualenv's, `version` venv's)."""
    settings = {}
    for line in _text(fs, f"{prefix}/pyvenv.cfg" if prefix else "pyvenv.cfg").splitlines()[:200]:
        key, equals, value = line.partition("=")
        if equals:
            settings[key.strip().lower()] = value.strip()
    stated = _FULL.search(settings.get("version") or settings.get("version_info") or "")
    versions = [version for at, version in binaries if at == prefix]
    if stated is None and not versions:
        return None
    version = ".".join(stated.group().split(".")[:2]) if stated else sorted(versions)[0]
    home = settings.get("home", "").strip("/") or None
    real = fs.resolve(home) if home else None
    base_prefix = posixpath.dirname(real.path if real else home or "")
    base = next((b for b in bases if b.prefix == base_prefix and b.version == version), None)
    base = base or next((b for b in bases if b.version == version), None)
    full = stated.group() if stated else base.full_version if base else f"{version}.0"
    sites = list(_sites(fs, prefix, version))
    if base is not None and settings.get("include-system-site-packages", "").lower() == "true":
        sites += [site for site in base.sites if site not in sites]
    return Interpreter(
        version=version,
        full_version=full,
        prefix=prefix,
        executable=binaries.get((prefix, version)),
        stdlib=base.stdlib if base else None,
        sites=tuple(sites),
        home=home,
        exact=stated is not None or (base is not None and base.exact),
    )


def _sites(fs: Filesystem, prefix: str, version: str) -> Iterator[str]:
    """The site directories of an installation that the view has.

    Debian's interpreter at /usr looks into /usr/local and /usr/lib/python3 (its site.py); Python's own into
    lib/python3.X/site-packages alone.
    """
    at = f"{prefix}/" if prefix else ""
    candidates = [path.strip("/") for path in fs.image.environment.get("PYTHONPATH", "").split(":") if path]
    if prefix == "usr":
        candidates += [f"usr/local/lib/python{version}/dist-packages"]
    candidates += [
        f"{at}local/lib/python{version}/dist-packages",
        f"{at}lib/python{version}/site-packages",
        f"{at}lib64/python{version}/site-packages",
        f"{at}lib/python{version}/dist-packages",
        f"{at}lib/python3/dist-packages",
    ]
    seen = set()
    for path in candidates:
        node = fs.resolve(path)
        if node is not None and node.kind == "dir" and node.path not in seen:
            seen.add(node.path)
            yield node.path


def _full_version(fs: Filesystem, prefix: str, version: str) -> str:
    """The patch release: by header, directory name, the image's environment, conda or dpkg, else by the program.

    Empty where none of them tells it.
    """
    at = f"{prefix}/" if prefix else ""
    header = _text(fs, f"{at}include/python{version}/patchlevel.h")
    stated = re.search(r'#define\s+PY_VERSION\s+"(3\.[\w.]{1,20})', header)
    candidates = [stated[1] if stated else "", posixpath.basename(prefix).removeprefix("cpython-")]
    if prefix == "usr/local":  # the official images' variable
        candidates.append(fs.image.environment.get("PYTHON_VERSION", ""))
    names = (posixpath.basename(path) for path in fs.children(f"{at}conda-meta"))
    candidates += [name.removeprefix("python-") for name in names if name.startswith(f"python-{version}.")]
    if prefix == "usr":
        candidates.append(_dpkg_version(fs, version))
    for candidate in candidates:
        match = _FULL.match(candidate)
        if match and match.group().startswith(f"{version}."):
            return match.group()
    return _program_version(fs, at, version)


def _program_version(fs: Filesystem, at: str, version: str) -> str:
    """What an interpreter, or the library that it is in, says of itself; empty where it says nothing."""
    library = f"libpython{version}.so.1.0"
    machine = _MACHINES.get(str(fs.image.config.get("architecture", "")), "")
    stated = re.compile(rb"(?<![\w.])(%s\.\d{1,3}(?:(?:a|b|rc)\d{1,3})?)\+?\0" % re.escape(version).encode())
    for path in (f"lib/{library}", f"lib64/{library}", f"lib/{machine}-linux-gnu/{library}", f"bin/python{version}"):
        node = fs.resolve(at + path)
        if node is None or node.kind != "file" or node.size > _PROGRAM:
            continue
        match = stated.search(fs.reader(node)(0, node.size))
        if match:
            return match[1].decode()
    return ""


def _dpkg_version(fs: Filesystem, version: str) -> str:
    for name in ("var/lib/dpkg/status", f"var/lib/dpkg/status.d/python{version}-minimal"):
        package = rf"^Package: (?:lib)?python{re.escape(version)}(?:-minimal|-stdlib)?$"
        match = re.search(package + r"(?:\n[^\n]+)*?\nVersion: (?:\d+:)?(\S+)", _text(fs, name, 64 << 20), re.MULTILINE)
        if match:
            return match[1]
    return ""


def _text(fs: Filesystem, path: str, limit: int = _SMALL) -> str:
    if path not in fs.nodes:
        return ""
    try:
        return fs.read(path, limit).decode("utf-8", "replace")
    except BadInputError:
        return ""


def marker_environment(fs: Filesystem, site: str, known: Sequence[Interpreter] | None = None) -> dict[str, str]:
    """What markers see under the interpreter that imports from `site` (PEP 508).

    Versions come from that interpreter, from the site's own path when there is none, else from the image's newest.
    `known` saves looking for interpreters again. What only a running kernel knows is empty.
    """
    found = interpreters(fs) if known is None else list(known)
    own = [i for i in found if site in i.sites]
    # Where several import from it (PYTHONPATH, include-system-site-packages), the one that it lies under is meant.
    own.sort(key=lambda i: (not site.startswith(f"{i.prefix}/"), -len(i.prefix), i.prefix))
    named = _ANY_VERSION.search(site)
    if own:
        version, full = own[0].version, own[0].full_version
    elif named:
        version = named[1]
        full = next((i.full_version for i in found if i.version == version), f"{version}.0")
    elif found:
        newest = max(found, key=lambda i: [int(part) for part in i.version.split(".")])
        version, full = newest.version, newest.full_version
    else:
        version, full = "3.11", "3.11.0"
    architecture = str(fs.image.config.get("architecture", "amd64"))
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": _MACHINES.get(architecture, architecture),
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": full,
        "python_version": version,
        "sys_platform": "linux",
    }
