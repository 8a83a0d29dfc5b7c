"""A small image of a service, with a bit of everything that deadweight looks for; and hostile ones."""

from __future__ import annotations

import re
from pathlib import Path

from support.images import FixtureImage, Member, file, hardlink, make_image, make_tar, whiteout, write_docker_archive

SITE = "usr/local/lib/python3.11/site-packages"
STATUS = """Package: libc6
Status: install ok installed
Priority: optional
Architecture: amd64
Version: 2.36

Package: gcc
Status: install ok installed
Priority: optional
Architecture: amd64
Version: 4:12.2
Depends: libc6, gcc-12

Package: gcc-12
Status: install ok installed
Priority: optional
Architecture: amd64
Version: 12.2.0-14
Depends: libc6

"""
STATES = """Package: gcc-12
Architecture: amd64
Auto-Installed: 1

Package: libc6
Architecture: amd64
Auto-Installed: 1
"""
HOSTILE = "e\x1b[31mvil\n\u202e[bold]\x9b\x07"
"""A name that tries to colour, to break lines, to turn text around, and to be markup."""


def distribution(
    name: str, files: dict[str, bytes], requires: tuple[str, ...] = (), linked: tuple[str, ...] = ()
) -> list[Member]:
    """An installed distribution, with a RECORD that fits; `linked` files are listed, and made by somebody else."""
    info = f"{SITE}/{name.replace('-', '_')}-1.0.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}".encode()
    listed = [*files, *linked, f"{info}/METADATA".removeprefix(f"{SITE}/"), f"{info}/RECORD".removeprefix(f"{SITE}/")]
    record = "".join(f"{path},,\n" for path in listed).encode()
    return [
        *(file(f"{SITE}/{path}", data) for path, data in files.items()),
        file(f"{info}/METADATA", metadata),
        file(f"{info}/RECORD", record),
    ]


def service(name: str = "numlib", more: tuple[Member, ...] = (), commands: tuple[str, ...] = ()) -> FixtureImage:
    """The image: Debian packages, distributions, an application, caches, and what later layers hide."""
    base = make_tar(
        file("etc/os-release", b"ID=debian\n"),
        file("var/lib/dpkg/status", STATUS.encode()),
        file("var/lib/dpkg/info/gcc-12.list", b"/usr/lib/gcc/cc1\n"),
        file("var/lib/dpkg/info/libc6.list", b"/usr/lib/libc.so.6\n"),
        file("var/lib/apt/extended_states", STATES.encode()),
        file("usr/lib/gcc/cc1", b"\x7fELF" + bytes(60_000)),
        file("usr/lib/libc.so.6", bytes(20_000)),
        file("var/lib/apt/lists/packages", b"p" * 500_000),
        file("usr/share/doc/gone", b"d" * 30_000),
        file("etc/motd", b"old"),
    )
    python = make_tar(
        file("root/.cache/uv/archive-v0/x/core.py", b"x = 1\n" * 3000),
        *distribution(
            name, {"numlib/__init__.py": b"", "numlib/tests/test_it.py": b"t" * 9000}, (), ("numlib/core.py",)
        ),
        hardlink(f"{SITE}/numlib/core.py", "root/.cache/uv/archive-v0/x/core.py"),
        *distribution("webapp", {"webapp.py": b"import numlib\n"}, (f"{name}>=1",) if name == "numlib" else ()),
        *more,
    )
    last = make_tar(
        whiteout("usr/share/doc/gone"),
        file("etc/motd", b"new"),
        file("app/main.py", b"import webapp\n"),
        file("app/model.bin", b"m" * 70_000),
    )
    return make_image(
        base,
        python,
        last,
        commands=commands or ("ADD rootfs.tar /", "RUN /bin/sh -c uv pip install webapp", "COPY . ."),
        run={"WorkingDir": "/app", "Env": ["PATH=/usr/local/bin:/usr/bin"], "Cmd": ["python3", "main.py"]},
    )


def save(folder: Path, image: FixtureImage | None = None, name: str = "image.tar") -> Path:
    """The image as a docker-archive."""
    return write_docker_archive(folder / name, image or service(), "service:1", style="25")


def differences(text: str) -> dict[str, list[int]]:
    """The column of exact differences of each table of `compare` on a terminal, by title; the last is the total."""
    found: dict[str, list[int]] = {}
    for part in text.split("\n\n"):
        title, *lines = part.splitlines() or [""]
        if lines and re.match(r" *difference +before +after", lines[0]):
            rows = (re.match(r" *([+-][\d,]+) +(?:-|[\d.]+ \w+) +(?:-|[\d.]+ \w+) +\S", line) for line in lines)
            found[title] = [int(row[1].replace(",", "")) for row in rows if row]
    return found


def tables(text: str) -> dict[str, list[int]]:
    """The column of exact bytes of each table on a terminal, by title; the last number is the total."""
    found: dict[str, list[int]] = {}
    for part in text.split("\n\n"):
        lines = part.splitlines()
        headers = [i for i, line in enumerate(lines) if re.match(r" *bytes +size +share", line)]
        if headers:
            title = lines[headers[0] - 1]
            rows = (re.match(r" {0,20}(-?[\d,]+)  +-?[\d.,]+ [kMGT]?B +[<\d]", line) for line in lines)
            found[title] = [int(row[1].replace(",", "")) for row in rows if row]
    return found
