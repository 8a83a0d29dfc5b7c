"""What uv installed, made independent of the machine that did it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from deadweight.build.base import Python
from deadweight.build.stage import Layout, Stage, platform, put_right
from deadweight.errors import BadInputError
from support.careless import urlsafe
from support.records import records

PYTHON = Python("3.13", "3.13.1", "/usr/local/bin/python3.13", "x86_64", False, (2, 36))
HEAD = b"#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python' \"$0\" \"$@\"\n' '''\n"
SITE = "lib/python3.11/site-packages"
INFO = f"{SITE}/tool-1.0.dist-info"


def stage(root: Path, more: dict[str, bytes] | None = None, origin: bytes = b'{"url": "file:///home/me/x"}') -> Stage:
    """A stage by the host's Python 3.11, with one distribution of every kind of file."""
    files = {
        f"{SITE}/tool/__init__.py": b"x = 1\n",
        "bin/tool": HEAD + b"import tool\n",
        "bin/sh-tool": b"#!/bin/sh\necho\n",
        "bin/binary": b"\x7fELF",
        "include/site/python3.11/tool/tool.h": b"int x;\n",
        'share/to"ol,/data': b"d",
        f"{INFO}/METADATA": b"Name: tool\n",
        f"{INFO}/direct_url.json": origin,
        f"{INFO}/uv_cache.json": b'{"timestamp": 5}',
        **(more or {}),
    }
    lines = []
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        listed = os.path.relpath(name, SITE)
        quoted = '"' + listed.replace('"', '""') + '"' if '"' in listed or "," in listed else listed
        lines.append(f"{quoted},{urlsafe(data)},{len(data)}")
    (root / INFO / "RECORD").write_text("\n".join([*lines, "tool-1.0.dist-info/RECORD,,"]) + "\n")
    (root / "bin/python").symlink_to("/usr/bin/python3")
    (root / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (root / ".lock").touch()
    return Stage(root, root / SITE, frozenset({"bin/python", "pyvenv.cfg"}))


def laid_out(found: Stage, layout: Layout, to: Path) -> set[str]:
    """Puts a stage right and copies what comes of it to where it would be; gives the paths of files."""
    paths = set()
    for item in put_right(found, PYTHON, layout, "/opt/venv/bin/python"):
        place = to / item.path
        if item.content is None and item.target is None:
            place.mkdir(parents=True, exist_ok=True)
            continue
        assert isinstance(item.content, Path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(item.content.read_bytes())
        paths.add(item.path)
    return paths


@pytest.mark.parametrize(
    ("layout", "site", "top"),
    [
        (Layout("opt/venv", "lib/python3.13/site-packages"), "opt/venv/lib/python3.13/site-packages", "opt/venv"),
        (Layout("app/lib", ""), "app/lib", "app/lib"),
    ],
)
def test_every_file_has_its_place_and_records_are_true(tmp_path: Path, layout: Layout, site: str, top: str) -> None:
    paths = laid_out(stage(tmp_path / "stage"), layout, tmp_path / "image")
    assert paths == {
        f"{site}/tool/__init__.py",
        f"{top}/bin/tool",
        f"{top}/bin/sh-tool",
        f"{top}/bin/binary",
        f"{top}/include/site/python3.13/tool/tool.h",
        f'{top}/share/to"ol,/data',
        f"{site}/tool-1.0.dist-info/METADATA",
        f"{site}/tool-1.0.dist-info/RECORD",
    }
    wrong, lines = records(tmp_path / "image")
    assert (wrong, lines) == (set(), 8)
    assert (tmp_path / "image" / top / "bin/tool").read_bytes() == b"#!/opt/venv/bin/python\nimport tool\n"
    assert (tmp_path / "image" / top / "bin/sh-tool").read_bytes() == b"#!/bin/sh\necho\n"


def test_nothing_is_written_through_a_hard_link(tmp_path: Path) -> None:
    found = stage(tmp_path / "stage")
    cached = [tmp_path / "script", tmp_path / "record"]
    os.link(found.root / "bin/tool", cached[0])
    os.link(found.root / INFO / "RECORD", cached[1])
    before = [hashlib.sha256(path.read_bytes()).digest() for path in cached]
    put_right(found, PYTHON, Layout("app/lib", ""), "/opt/venv/bin/python")
    assert [hashlib.sha256(path.read_bytes()).digest() for path in cached] == before


def test_where_something_came_from_stays_when_it_is_the_same_everywhere(tmp_path: Path) -> None:
    origin = json.dumps({"url": "https://example.org/tool.git", "vcs_info": {"vcs": "git"}}).encode()
    paths = laid_out(stage(tmp_path / "stage", origin=origin), Layout("app/lib", ""), tmp_path / "image")
    assert "app/lib/tool-1.0.dist-info/direct_url.json" in paths
    assert "app/lib/tool-1.0.dist-info/uv_cache.json" not in paths


def test_two_files_in_one_place_are_refused(tmp_path: Path) -> None:
    found = stage(tmp_path / "stage", {f"{SITE}/bin/tool": b"a module's directory is called bin\n"})
    with pytest.raises(BadInputError, match="two of the files"):
        put_right(found, PYTHON, Layout("app/lib", ""), "/opt/venv/bin/python")


def test_a_script_that_names_this_machine_is_refused(tmp_path: Path) -> None:
    found = stage(tmp_path / "stage", {"bin/odd": f"#!{tmp_path}/stage/bin/python -E\n".encode()})
    with pytest.raises(BadInputError, match="names a folder of this machine"):
        put_right(found, PYTHON, Layout("app/lib", ""), "/opt/venv/bin/python")


@pytest.mark.parametrize(
    ("glibc", "wanted"),
    [((2, 36), "_2_36"), ((2, 30), "_2_28"), ((2, 28), "_2_28"), ((2, 99), "_2_40"), ((3, 0), "_2_40")],
)
def test_wheels_are_for_no_newer_c_library_than_the_base_has(glibc: tuple[int, int], wanted: str) -> None:
    assert platform(Python("3.13", "3.13.1", "/p", "aarch64", False, glibc)) == f"aarch64-manylinux{wanted}"


def test_musl_and_a_library_that_is_too_old() -> None:
    assert platform(Python("3.13", "3.13.1", "/p", "x86_64", True, (0, 0))) == "x86_64-unknown-linux-musl"
    with pytest.raises(BadInputError, match=r"2\.5"):
        platform(Python("3.13", "3.13.1", "/p", "x86_64", False, (2, 5)))
