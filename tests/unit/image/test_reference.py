"""References: what parses, what is refused, and what the refusal advises."""

from __future__ import annotations

from pathlib import Path

import pytest

from deadweight.errors import UsageError
from deadweight.image.reference import (
    Name,
    Reference,
    Transport,
    docker_name,
    full_name,
    parse_destination,
    parse_name,
    parse_reference,
    short_name,
    split_name,
)
from support.images import make_image, write_oci


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci:some/dir", Reference("oci", Path("some/dir"))),
        ("oci:dir:latest", Reference("oci", Path("dir"), "latest")),
        ("oci:dir:demo:1.0", Reference("oci", Path("dir"), "demo:1.0")),
        ("oci:/a/dir:sha256:" + "0" * 64, Reference("oci", Path("/a/dir"), "sha256:" + "0" * 64)),
        ("oci-archive:/x.tar", Reference("oci-archive", Path("/x.tar"))),
        ("oci-archive:/x.tar:v1", Reference("oci-archive", Path("/x.tar"), "v1")),
        ("docker-archive:x.tar", Reference("docker-archive", Path("x.tar"))),
        ("docker-archive:x.tar:demo", Reference("docker-archive", Path("x.tar"), "demo:latest")),
        ("docker-archive:x.tar:h:5000/a/b:c", Reference("docker-archive", Path("x.tar"), "h:5000/a/b:c")),
        ("docker-archive:x.tar:@1", Reference("docker-archive", Path("x.tar"), "@1")),
        ("rootfs:/a:b", Reference("rootfs", Path("/a:b"))),
    ],
)
def test_explicit(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert parse_destination(text) == expected
    assert parse_reference(str(expected)) == expected


HEX = "0123456789ab" * 5 + "cdef"


@pytest.mark.parametrize(
    ("text", "transport", "name"),
    [
        ("docker-daemon:demo:slim", "docker-daemon", "demo:slim"),
        ("docker-daemon:demo", "docker-daemon", "demo:latest"),
        ("docker-daemon:reg.example:5000/a/b", "docker-daemon", "reg.example:5000/a/b:latest"),
        ("podman:localhost/demo:1", "podman", "localhost/demo:1"),
        ("containers-storage:demo:1", "containers-storage", "demo:1"),
        ("containers-storage:[vfs@/a+/run/b]demo:1", "containers-storage", "[vfs@/a+/run/b]demo:1"),
        ("docker://demo", "docker", "docker.io/library/demo:latest"),
        ("docker://me/demo:1", "docker", "docker.io/me/demo:1"),
        ("docker://docker.io/demo:1", "docker", "docker.io/library/demo:1"),
        ("docker://index.docker.io/me/demo:1", "docker", "docker.io/me/demo:1"),
        ("docker://127.0.0.1:5000/demo:1", "docker", "127.0.0.1:5000/demo:1"),
        ("docker://[::1]:5000/demo:1", "docker", "[::1]:5000/demo:1"),
        ("docker://Host/demo:1", "docker", "Host/demo:1"),
    ],
)
def test_names_of_engines_and_registries(text: str, transport: Transport, name: str) -> None:
    expected = Reference(transport, name=name)
    assert parse_reference(text) == expected
    assert parse_destination(text) == expected
    assert parse_reference(str(expected)) == expected
    assert expected.local is None


@pytest.mark.parametrize(
    ("text", "transport", "name"),
    [
        ("python:3.12", "engine", "python:3.12"),
        ("me/demo", "engine", "me/demo:latest"),
        (HEX[:12], "engine", HEX[:12]),
        (f"sha256:{HEX}", "engine", f"sha256:{HEX}"),
        (f"docker-daemon:sha256:{HEX}", "docker-daemon", f"sha256:{HEX}"),
        (f"podman:demo@sha256:{HEX}", "podman", f"demo@sha256:{HEX}"),
        (f"docker://reg.example/demo@sha256:{HEX}", "docker", f"reg.example/demo@sha256:{HEX}"),
        (f"docker://reg.example/demo:1@sha256:{HEX}", "docker", f"reg.example/demo:1@sha256:{HEX}"),
    ],
)
def test_what_can_only_be_read(text: str, transport: Transport, name: str) -> None:
    assert parse_reference(text) == Reference(transport, name=name)
    assert parse_reference(str(parse_reference(text))) == parse_reference(text)
    with pytest.raises(UsageError, match="docker-daemon:" if transport == "engine" else "NAME:TAG"):
        parse_destination(text)


def test_names_taken_apart() -> None:
    assert split_name("demo") == Name("docker.io", "library/demo", None, None)
    assert split_name("h:5000/a/b:c") == Name("h:5000", "a/b", "c", None)
    assert split_name(f"me/b:c@sha256:{HEX}") == Name("docker.io", "me/b", "c", f"sha256:{HEX}")
    for name in ("python:3.12", "docker.io/python:3.12", "index.docker.io/library/python:3.12"):
        assert split_name(name) == Name("docker.io", "library/python", "3.12", None)
    assert split_name("Demo") is None
    assert split_name("demo:") is None


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("docker-daemon:$(reboot)", "docker-daemon:NAME:TAG"),
        ("docker-daemon:", "docker-daemon:NAME:TAG"),
        ("podman:Demo", "lower case"),
        ("docker:27", "docker-daemon:NAME:TAG for an engine's"),
        ("docker://", "docker://HOST/NAME:TAG"),
        ("docker://h/a\n:1", "docker://HOST/NAME:TAG"),
        ("containers-storage:[$(x)]demo", "containers-storage:NAME:TAG"),
        ("dir:some", "skopeo copy dir:some docker-archive:image.tar"),
        ("image.tar", "no file or directory 'image.tar'; an engine's image is docker-daemon:NAME:TAG"),
        ("./demo", "no file or directory"),
        ("Demo:1", "no file or directory"),
        ("a\0b", "no file or directory"),
        ("", "oci:DIR"),
        ("oci:", "no path"),
        ("oci:dir:", "tag"),
        ("oci:dir:-x", "no tag"),
        ("docker-archive:x:Upper:1", "NAME:TAG"),
    ],
)
def test_refused(text: str, advice: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert advice in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bare_word_is_sniffed(tmp_path: Path) -> None:
    layout = write_oci(tmp_path / "layout", make_image())
    assert parse_reference(str(layout)) == Reference("oci", layout)
    (tmp_path / "x").write_bytes(b"")
    assert parse_reference(str(tmp_path / "x")).transport == "archive"
    with pytest.raises(UsageError, match="rootfs:"):
        parse_reference(str(tmp_path))


@pytest.mark.parametrize("text", ["out.tar", "./dir", "dir:x", "demo:latest"])
def test_a_destination_names_its_transport(text: str) -> None:
    with pytest.raises(UsageError, match=r"docker-archive:"):
        parse_destination(text)


def test_names() -> None:
    assert docker_name("demo") == "demo:latest"
    assert docker_name("Demo:1") is None
    assert docker_name("a//b:1") is None
    for short, full in {
        "demo:1": "docker.io/library/demo:1",
        "me/demo:1": "docker.io/me/demo:1",
        "reg.example/demo:1": "reg.example/demo:1",
        "localhost/demo:1": "localhost/demo:1",
    }.items():
        assert full_name(short) == full
        assert short_name(full) == short


def test_a_folder_that_hides_an_image_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("svc", "svc.tar", "Svc"):
        (tmp_path / name).mkdir()
    with pytest.raises(
        UsageError, match=r"rootfs:svc, for an engine's image docker-daemon:svc:latest, .* or svc:latest"
    ):
        parse_reference("svc")
    for name in ("svc.tar", "Svc", "./svc"):
        with pytest.raises(UsageError) as caught:
            parse_reference(name)
        assert "docker-daemon" not in str(caught.value)


def test_where_no_file_can_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "svc").mkdir()
    (tmp_path / "api").write_bytes(b"")
    assert parse_name("svc") == Reference("engine", name="svc:latest")
    assert parse_name("api") == Reference("engine", name="api:latest")
    assert parse_name("docker-daemon:svc:1") == Reference("docker-daemon", name="svc:1")
    assert parse_name("oci:svc") == Reference("oci", Path("svc"))
    for name in ("./svc", "svc.tar", ""):
        with pytest.raises(UsageError):
            parse_name(name)
