"""What uv.lock and pylock.toml lock: which distributions an image gets of them, and for which Pythons there are wheels.

References: https://docs.astral.sh/uv/concepts/projects/layout/, https://packaging.python.org/en/latest/specifications/
pylock-toml/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from deadweight.application.files import table
from deadweight.build.pyproject import strings

Package = Mapping[str, Any]


def requires_python(document: Mapping[str, Any]) -> str:
    """The Pythons that a lock is for, as a specifier."""
    found = document.get("requires-python")
    return found if isinstance(found, str) else ""


def packages(document: Mapping[str, Any]) -> list[Package]:
    """The packages of either lock: uv calls the list `package`, pylock.toml `packages`."""
    found = document.get("package") or document.get("packages")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def uv_packages(document: Mapping[str, Any], name: str, extras: Iterable[str], minor: int) -> list[Package]:
    """What a uv.lock installs beside the project itself, with these extras, on Python 3.`minor`."""
    by_name: dict[str, list[Package]] = {}
    for one in packages(document):
        by_name.setdefault(str(one.get("name")), []).append(one)
    found: list[Package] = []
    todo: list[tuple[str, str | None, tuple[str, ...]]] = [(name, None, tuple(extras))]
    seen = set[tuple[str, str | None, str]]()
    while todo:
        wanted, version, more = todo.pop()
        for part in ("", *more):
            if (wanted, version, part) in seen:
                continue
            seen.add((wanted, version, part))
            for one in by_name.get(wanted, ()):
                if version is not None and one.get("version") != version:
                    continue
                if part == "" and wanted != name:
                    found.append(one)
                listed = table(one, "optional-dependencies").get(part) if part else one.get("dependencies")
                for each in listed if isinstance(listed, list) else ():
                    if isinstance(each, dict) and applies(each.get("marker"), minor):
                        known = each.get("version")
                        known = known if isinstance(known, str) else None
                        todo.append((str(each.get("name")), known, tuple(strings(each.get("extra")))))
    return found


def pylock_packages(document: Mapping[str, Any], extras: Iterable[str], minor: int) -> list[Package]:
    """What a pylock.toml installs with these extras on Python 3.`minor`."""
    return [one for one in packages(document) if applies(one.get("marker"), minor, extras)]


def applies(marker: Any, minor: int, extras: Iterable[str] = ()) -> bool:
    """Whether a marker holds on Linux, x86_64 and CPython 3.`minor`; so does one that cannot be read."""
    if not isinstance(marker, str):
        return True
    environment: dict[str, Any] = {
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.99",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extras": frozenset(extras),
        "dependency_groups": frozenset[str](),
        "extra": "",
    }
    try:
        return Marker(marker).evaluate(environment)
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName, TypeError, KeyError, RecursionError):
        return True


def runs_on(found: Iterable[Package], minor: int) -> bool:
    """Whether each package that has wheels for Linux has one for Python 3.`minor`."""
    return all(_runs_on(one, minor) for one in found)


def _runs_on(one: Package, minor: int) -> bool:
    linux = False
    wheels = one.get("wheels")
    for wheel in wheels if isinstance(wheels, list) else ():
        try:
            tags = parse_wheel_filename(_file_name(wheel))[3]
        except InvalidWheelFilename:
            continue
        for tag in tags:
            if tag.platform != "any" and "linux" not in tag.platform:
                continue
            linux = True
            if tag.interpreter in ("py3", f"py3{minor}", f"cp3{minor}") and tag.abi != f"cp3{minor}t":
                return True
            older = tag.interpreter.removeprefix("cp3")
            if tag.abi == "abi3" and older.isdigit() and int(older) <= minor:
                return True
    return not linux


def _file_name(wheel: Any) -> str:
    if not isinstance(wheel, dict):
        return ""
    return next(
        (
            value.rpartition("/")[2].partition("#")[0].replace("%2B", "+")
            for key in ("filename", "name", "url", "path")
            if isinstance(value := wheel.get(key), str)
        ),
        "",
    )


def names(found: Iterable[Package]) -> frozenset[str]:
    """Canonical names."""
    return frozenset(str(canonicalize_name(str(one.get("name")))) for one in found)


def from_directories(document: Mapping[str, Any], name: str) -> list[str]:
    """Names of other packages that a uv.lock takes from directories: members of a workspace, say."""
    return sorted(
        str(one.get("name"))
        for one in packages(document)
        if one.get("name") != name and {"editable", "directory", "virtual"} & set(table(one, "source"))
    )
