"""What is found in a base."""

from __future__ import annotations

from pathlib import Path

import pytest

from deadweight.build.base import Base, read_base
from deadweight.build.builder import check_python
from deadweight.build.recipe import Recipe, read_recipe
from deadweight.build.users import user_items
from deadweight.cache.layers import Cache
from deadweight.errors import BadInputError, DigestError
from deadweight.image.transports import open_image
from support.images import FixtureImage, Member, directory, file, make_image, make_tar, symlink, write_oci
from support.recipes import project

GLIBC = b"\0GNU C Library (Debian GLIBC 2.31-13+deb11u5) stable release version 2.31.\n\0"
DEBIAN = [
    directory("dev"),
    directory("opt"),
    file("usr/bin/python3.11", b"\x7fELF", mode=0o755),
    symlink("usr/bin/python3", "python3.11"),
    file("usr/lib/python3.11/os.py"),
    file("usr/lib/x86_64-linux-gnu/libc.so.6", GLIBC),
    symlink("lib", "usr/lib"),
    file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n", mode=0o644),
]


def found(folder: Path, *members: Member, image: FixtureImage | None = None, **run: object) -> Base:
    folder.mkdir()
    image = image or make_image(make_tar(*members), run=dict(run))
    with open_image(f"oci:{write_oci(folder / 'oci', image)}") as opened:
        cache = Cache(folder / "cache")
        base = read_base(opened, cache)
        assert read_base(opened, cache) == base
    return base


def test_a_debian_base(tmp_path: Path) -> None:
    base = found(tmp_path / "a", *DEBIAN)
    assert base.python.executable == "/usr/bin/python3.11"
    assert (base.python.version, base.python.machine, base.python.glibc) == ("3.11", "x86_64", (2, 31))
    assert (base.python.home, base.python.musl) == ("/usr/bin", False)
    assert base.path.startswith("/usr/local/sbin:")
    assert base.folders == ("dev", "opt")
    assert base.accounts["etc/passwd"].text.startswith("root:")
    assert list(base.accounts) == ["etc/passwd"]


def test_the_first_python3_in_path_is_meant(tmp_path: Path) -> None:
    other = [
        file("usr/local/bin/python3.13", b"\x7fELF", mode=0o755),
        symlink("usr/local/bin/python3", "python3.13"),
        file("usr/local/lib/python3.13/os.py"),
    ]
    base = found(tmp_path / "a", *DEBIAN, *other, Env=["PATH=/nowhere::/usr/local/bin:/usr/bin"])
    assert base.python.executable == "/usr/local/bin/python3.13"
    assert base.path == "/nowhere::/usr/local/bin:/usr/bin"
    base = found(tmp_path / "b", *DEBIAN, *other, Env=["PATH=/usr/bin:/usr/local/bin"])
    assert base.python.version == "3.11"


def test_a_musl_base(tmp_path: Path) -> None:
    python = file("usr/bin/python3.11", b"\x7fELF" + bytes(200) + b"/lib/ld-musl-x86_64.so.1\0", mode=0o755)
    base = found(tmp_path / "a", *(m for m in DEBIAN if m.name.rpartition("/")[2] != "python3.11"), python)
    assert (base.python.musl, base.python.glibc) == (True, (0, 0))


@pytest.mark.parametrize(
    ("without", "more", "why"),
    [
        ("usr/bin/python3", [], "no python3 in its PATH"),
        ("usr/lib/python3.11/os.py", [], "no standard library"),
        ("usr/lib/x86_64-linux-gnu/libc.so.6", [], "C library"),
        ("etc/passwd", [symlink("etc/passwd", "../other")], "no regular file"),
        ("opt", [symlink("opt", "var/opt")], "no directory in the base"),
        ("", [directory("opt/venv"), file("opt/venv/x")], "has a /opt/venv already"),
    ],
)
def test_bases_that_will_not_do(tmp_path: Path, without: str, more: list[Member], why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        found(tmp_path / "a", *(m for m in DEBIAN if m.name != without), *more)


def test_a_machine_without_wheels(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="s390x"):
        found(tmp_path / "a", image=make_image(make_tar(*DEBIAN), architecture="s390x"))


def test_sizes_are_remembered_so_that_a_compressed_base_is_unpacked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make_image(make_tar(*DEBIAN))
    place = write_oci(tmp_path / "oci", image, compression="gzip")
    cache = Cache(tmp_path / "cache")
    with open_image(f"oci:{place}") as opened:
        assert read_base(opened, cache).sizes == (len(image.layers[0]),)
    monkeypatch.setattr("deadweight.image.model.spool", None)
    with open_image(f"oci:{place}") as opened:
        assert read_base(opened, cache).sizes == (len(image.layers[0]),)


def test_a_forged_base_is_refused_and_does_not_speak_for_the_genuine_one(tmp_path: Path) -> None:
    genuine = make_image(make_tar(*DEBIAN))
    forged = genuine.layers[0].replace(b"root:x:0:0::", b"evil::0:0:::")
    assert len(forged) == len(genuine.layers[0])
    good, bad = write_oci(tmp_path / "good", genuine), write_oci(tmp_path / "bad", genuine)
    max((bad / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size).write_bytes(forged)
    cache = Cache(tmp_path / "cache")
    with open_image(f"oci:{bad}") as opened, pytest.raises(DigestError, match="diff-id"):
        read_base(opened, cache)
    with open_image(f"oci:{good}") as opened:
        assert read_base(opened, cache).accounts["etc/passwd"].text.startswith("root:")


@pytest.mark.parametrize("name", ["José".encode(), "Łukasz".encode(), b"Jos\xe9"])
def test_a_user_database_keeps_its_bytes(name: bytes, tmp_path: Path) -> None:
    line = b"root:x:0:0:" + name + b":/root:/bin/sh\n"
    members = [member for member in DEBIAN if member.name != "etc/passwd"]
    base = found(tmp_path / "a", *members, file("etc/passwd", line))
    item = next(item for item in user_items(base) if item.path == "etc/passwd")
    assert isinstance(item.content, bytes)
    assert item.content.startswith(line)


def recipe(folder: Path, requires: str) -> Recipe:
    text = f"[project]\nname = 'a'\nversion = '1'\nrequires-python = '{requires}'\n"
    return read_recipe(project(folder, {"pyproject.toml": text}))


@pytest.mark.parametrize(
    "more",
    [
        [file("usr/lib64/libpython3.11.so.1.0", b"\x7fELF\0x3.11.5\0 3.11.6 \0" + b"3.11.9\0")],
        [file("usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0", b"\x7fELF\0" + b"3.11.9+\0")],
        [file("usr/bin/python3.11", b"\x7fELF 23.11.4\0 3.11.9\0", mode=0o755)],
    ],
)
def test_the_program_tells_the_patch_release(more: list[Member], tmp_path: Path) -> None:
    names = {member.name for member in more}
    base = found(tmp_path / "a", *(member for member in DEBIAN if member.name not in names), *more)
    assert (base.python.full_version, base.python.exact) == ("3.11.9", True)
    check_python(recipe(tmp_path / "p", ">=3.11.4"), base)
    with pytest.raises(BadInputError, match=r"Python 3\.11\.9"):
        check_python(recipe(tmp_path / "p", ">=3.11.10"), base)


def test_a_patch_release_that_nothing_tells_refuses_nothing(tmp_path: Path) -> None:
    base = found(tmp_path / "a", *DEBIAN)
    assert (base.python.full_version, base.python.exact) == ("3.11.0", False)
    check_python(recipe(tmp_path / "p", ">=3.11.4"), base)
    with pytest.raises(BadInputError, match=r"Python 3\.11, "):
        check_python(recipe(tmp_path / "p", ">=3.12"), base)
