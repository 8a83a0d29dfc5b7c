"""A small image that runs: this machine's Python and shell with the libraries they need, and what a test adds.

    reference = mini_image(folder, site({"hello": {"hello/__init__.py": b"x = 1"}}), config={"Cmd": ["python3", "-V"]})

About 100 MB; Python is at /usr/local, its site-packages at `SITE`, the working directory is /app.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from site import getsitepackages
from typing import Any

from support.careless import urlsafe
from support.images import FixtureImage, Member, directory, file, make_image, make_tar, symlink, write_docker_archive

VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"
LIB = f"usr/local/lib/python{VERSION}"
_DEBIAN = any(place.endswith("dist-packages") for place in getsitepackages())
SITE = f"{LIB}/{'dist' if _DEBIAN else 'site'}-packages"  # Debian's Python looks nowhere else
ENV = ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "HELLO=world"]
PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1001:1002:app:/home/app:/bin/sh\n"
_LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data"}
_LEFT_OUT |= {"site-packages", "dist-packages"}
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


def mini_image(folder: Path, members: Sequence[Member] = (), config: dict[str, Any] | None = None) -> str:
    """A reference to a docker-archive in `folder`, with `members` as its second layer."""
    image = mini(members, config)
    path = folder / f"mini-{len(list(folder.iterdir()))}.tar"
    write_docker_archive(path, image, "mini:test", style="25")
    return f"docker-archive:{path}"


def mini(members: Sequence[Member] = (), config: dict[str, Any] | None = None) -> FixtureImage:
    """The same as a FixtureImage."""
    layers = [base_layer()] + ([make_tar(*with_folders(members))] if members else [])
    run = {"Env": ENV, "WorkingDir": "/app", "Cmd": ["python3"], **(config or {})}
    return make_image(*layers, run=run)


def with_folders(members: Sequence[Member]) -> list[Member]:
    """The members with the directories that they lie in, which the base does not have."""
    names = {member.name for member in members}
    parents = sorted({str(p) for m in members for p in list(Path(m.name).parents)[:-1]} - names)
    return [directory(path) for path in parents] + list(members)


def site(distributions: dict[str, dict[str, bytes]], version: str = "1.0") -> list[Member]:
    """Installed distributions, each with its files below site-packages."""
    found = []
    for name, files in distributions.items():
        info = f"{name}-{version}.dist-info"
        every = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()}
        record = "".join(f"{path},{urlsafe(data)},{len(data)}\n" for path, data in every.items())
        every[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
        found += [file(f"{SITE}/{path}", data) for path, data in every.items()]
    return found


def installed(*names: str, where: Path | None = None) -> list[Member]:
    """Real distributions as they are installed on this machine (`where`: a site-packages), without dependencies."""
    from importlib.metadata import Distribution, distribution, distributions

    found = []
    for name in names:
        dist: Distribution = (
            distribution(name) if where is None else next(iter(distributions(name=name, path=[str(where)])))
        )
        for entry in dist.files or ():
            path = Path(str(dist.locate_file(entry)))
            if ".." not in entry.parts and path.is_file() and path.suffix != ".pyc":
                found.append(file(f"{SITE}/{entry}", path.read_bytes()))
    return found


@functools.cache
def base_layer() -> bytes:
    """Python, sh, and what both load."""
    prefix = Path(sys.base_prefix)
    stdlib = Path(os.__file__).parent
    found: dict[str, Member] = {}
    programs = [Path(os.path.realpath(sys.executable)), *(Path(os.path.realpath(f"/bin/{n}")) for n in _TOOLS)]
    targets = [f"usr/local/bin/python{VERSION}", *(f"bin/{name}" for name in _TOOLS)]
    loads = list(programs)
    for program, target in zip(programs, targets, strict=True):
        found[target] = file(target, program.read_bytes(), mode=0o755)
    for folder, folders, names in os.walk(stdlib):
        folders[:] = [n for n in folders if n not in _LEFT_OUT and not n.startswith("config-")]
        for name in names:
            path = Path(folder) / name
            if path.suffix in (".py", ".pyc", ".so", ".cfg", ".txt"):
                target = f"{LIB}/{path.relative_to(stdlib)}"
                found[target] = file(target, path.read_bytes(), mode=0o644, mtime=int(path.stat().st_mtime))
                if path.suffix == ".so":
                    loads.append(path)
    system = next(path.parent for path in _libraries(loads) if path.name == "libc.so.6")
    expected = [path for path in (Path("/usr", *system.parts[-2:], name) for name in _EXPECTED) if path.exists()]
    libraries = sorted({*_libraries([*loads, *expected]), *expected})
    for path in libraries:
        # A Python of its own directory has its library there, where no loader of the image looks.
        target = str(system / path.name if path.is_relative_to(prefix) and prefix != Path("/usr") else path).lstrip("/")
        found[target] = file(target, path.read_bytes(), mode=0o755)
    found["etc/passwd"] = file("etc/passwd", PASSWD)
    found["etc/group"] = file("etc/group", b"root:x:0:\napp:x:1002:\nvideo:x:44:app\n")
    links = [symlink("usr/local/bin/python3", f"python{VERSION}"), symlink("usr/bin/env", "/bin/env")]
    empty = [directory("tmp", 0o1777), directory("app"), directory("root", 0o700), directory(SITE)]
    empty += [directory("home/app", uid=1001, gid=1002), directory("usr"), directory("home"), directory("usr/bin")]
    members = {m.name: m for m in (*empty, *found.values(), *links)}
    ordered = sorted(with_folders(list(members.values())), key=lambda m: m.name)
    return make_tar(*ordered)


# What wheels expect every system to have.
_EXPECTED = ("libstdc++.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1")
_TOOLS = ("sh", "cat", "env", "sleep", "ls", "id", "true")


def _libraries(programs: list[Path]) -> set[Path]:
    done = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    return {Path(match) for match in _LIBRARY.findall(done.stdout)}
