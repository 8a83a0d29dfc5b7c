"""A small service's image, careless as real ones are, and what to hold its slim version to."""

from __future__ import annotations

import base64
import csv
import functools
import hashlib
import io
import posixpath
import subprocess
import tempfile
from pathlib import Path

from support.images import FixtureImage, Member, directory, file, hardlink, make_image, make_tar, symlink, whiteout
from support.layers import Seen

SITE = "usr/local/lib/python3.11/dist-packages"
CACHE = "root/.cache/uv/archive-v0/abc"


@functools.cache
def library() -> bytes:
    """A shared library with symbols and debug sections."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "x.c"
        source.write_text("".join(f"int function_{i}(int x) {{ return x * {i}; }}\n" for i in range(200)))
        command = ["gcc", "-g", "-shared", "-fPIC", "-o", f"{folder}/x.so", str(source)]
        subprocess.run(command, check=True)
        return (Path(folder) / "x.so").read_bytes()


def urlsafe(data: bytes) -> str:
    """A RECORD's hash of a content."""
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def folders_of(files: dict[str, bytes]) -> list[str]:
    """The directories that files lie in."""
    return sorted({str(p) for path in files for p in list(Path(path).parents)[:-1]})


def distribution(name: str, version: str, files: dict[str, bytes], requires: tuple[str, ...] = ()) -> list[Member]:
    """An installed wheel."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {line}\n" for line in requires)
    if any("extra ==" in line for line in requires):
        metadata += "Provides-Extra: dev\n"
    files = {**files, f"{info}/METADATA": metadata.encode(), f"{info}/INSTALLER": b"pip\n"}
    record = "".join(f"{path},{urlsafe(data)},{len(data)}\n" for path, data in files.items())
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    members = [directory(f"{SITE}/{p}") for p in folders_of(files)]
    return members + [file(f"{SITE}/{p}", d) for p, d in sorted(files.items())]


def package(name: str, files: dict[str, bytes]) -> list[Member]:
    """An unpacked Debian package's files with dpkg's lists; its stanza is for `status` to give."""
    listing = "/.\n" + "".join(f"/{path}\n" for path in [*folders_of(files), *files])
    sums = "".join(f"{hashlib.md5(data).hexdigest()}  {path}\n" for path, data in files.items())
    return [file(path, data, mode=0o755) for path, data in files.items()] + [
        file(f"var/lib/dpkg/info/{name}.list", listing.encode()),
        file(f"var/lib/dpkg/info/{name}.md5sums", sums.encode()),
    ]


def status(*packages: tuple[str, str]) -> bytes:
    """dpkg's status: (name, Depends) of installed packages."""
    stanzas = []
    for name, depends in packages:
        more = f"Depends: {depends}\n" if depends else ""
        more += "Essential: yes\n" if name == "base" else ""
        stanzas.append(
            f"Package: {name}\nStatus: install ok installed\nPriority: optional\nArchitecture: amd64\n"
            f"Version: 1.0\n{more}Description: {name}\n"
        )
    return "\n".join(stanzas).encode()


BASE = {"usr/bin/sh": b"shell" * 400, "usr/lib/libbase.txt": b"base" * 900}
GCC = {"usr/bin/gcc": b"compiler" * 9000, "usr/lib/gcc/cc1": b"cc1" * 30_000}
NUMLIB = {
    "numlib/__init__.py": b"import numlib.core\n",
    "numlib/core.py": b"from numlib.tests_used.tests import helper\n" + b"x = 1\n" * 200,
    "numlib/tests_used/__init__.py": b"",
    "numlib/tests_used/tests/__init__.py": b"",
    "numlib/tests_used/tests/helper.py": b"value = 1\n" * 100,
    "numlib/tests/__init__.py": b"",
    "numlib/tests/test_core.py": b"def test(): pass\n" * 500,
    "numlib/include/numlib.h": b"#define X\n" * 300,
    "numlib/table.bin": b"table" * 2000,
    "numlib/table_copy.bin": b"table" * 2000,
}


def carried_by_cache(members: list[Member], *names: str) -> list[Member]:
    """The members with some of them as hard links into uv's cache, which then has the bytes, as uv does it."""
    chosen = [m for m in members if m.name.removeprefix(f"{SITE}/") in names]
    place = {m.name: f"{CACHE}/{i}-{Path(m.name).name}" for i, m in enumerate(chosen)}
    carriers = [file(place[m.name], m.data) for m in chosen]
    return carriers + [hardlink(m.name, place[m.name]) if m.name in place else m for m in members]


def service_image() -> FixtureImage:
    """Four layers: a base, build tools, packages, the application."""
    base = make_tar(
        *(directory(p) for p in ("usr", "usr/bin", "usr/lib", "var", "etc", "var/lib/dpkg/info", "tmp", "root")),
        *package("base", BASE),
        file("var/lib/dpkg/status", status(("base", ""))),
        file("usr/bin/python3.11", b"\x7fPY" * 40, mode=0o755),
        file("usr/lib/python3.11/os.py", b"# os\n"),
        file("etc/secret", b"do not come back"),
    )
    tools = make_tar(
        *package("gcc", GCC),
        file("var/lib/dpkg/status", status(("base", ""), ("gcc", "base"))),
        file("var/lib/apt/lists/index", b"Package: x\n" * 2000),
        whiteout("etc/secret"),
    )
    python = [
        *distribution("numlib", "2.0", {**NUMLIB, "numlib/fast.so": library()}),
        *distribution("pytest", "8.0", {"pytest/__init__.py": b"import pluggy\n" * 300}, ("pluggy>=1", "numlib")),
        *distribution("pluggy", "1.5", {"pluggy/__init__.py": b"# pluggy\n" * 300}),
        *distribution("service", "1.0", {"service/main.py": b"import numlib\n"}, ("numlib", "pytest; extra == 'dev'")),
    ]
    packages = make_tar(
        directory(CACHE),
        file(f"{CACHE}/unused.whl", b"wheel" * 5000),
        *carried_by_cache(python, "numlib/fast.so", "numlib/core.py", "pluggy/__init__.py"),
    )
    app = make_tar(
        directory("app"),
        file("app/run.py", b"from service import main\n"),
        file("usr/lib/libbase.txt", b"changed by the application's layer\n"),
        symlink("app/link", "/usr/lib/libbase.txt"),
    )
    run = {"Cmd": ["python3.11", "/app/run.py"], "WorkingDir": "/app", "Env": ["PATH=/usr/local/bin:/usr/bin"]}
    return make_image(base, tools, packages, app, run=run)


def untrue_records(view: dict[str, Seen]) -> set[str]:
    """Lines of RECORD files in a view that do not match their file."""
    wrong = set()
    for path, seen in view.items():
        if path.endswith(".dist-info/RECORD"):
            site = path.rpartition("/")[0].rpartition("/")[0]
            for row in csv.reader(io.StringIO(seen.content.decode())):
                name, digest, size, *_ = *row, "", "", ""  # what is missing is not said
                there = view.get(posixpath.normpath(f"{site}/{name}"))
                if there is None or (digest and (digest, size) != (urlsafe(there.content), str(len(there.content)))):
                    wrong.add(f"{path}: {name}")
    return wrong


def untrue_md5sums(view: dict[str, Seen]) -> set[str]:
    """Lines of dpkg's md5sums in a view that do not match their file: what dpkg --verify reports."""
    wrong = set()
    for path, seen in view.items():
        if path.startswith("var/lib/dpkg/info/") and path.endswith(".md5sums"):
            for line in seen.content.decode().splitlines():
                digest, name = line.split("  ", 1)
                there = view.get(name)
                if there is None or hashlib.md5(there.content).hexdigest() != digest:
                    wrong.add(f"{path}: {name}")
    return wrong


def packages_of(view: dict[str, Seen]) -> set[str]:
    """The packages that dpkg's status names."""
    lines = view["var/lib/dpkg/status"].content.decode().splitlines()
    return {line.split(": ")[1] for line in lines if line.startswith("Package: ")}
