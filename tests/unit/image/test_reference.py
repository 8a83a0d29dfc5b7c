"""References: what parses, what is refused, and what the refusal advises."""

from __future__ import annotations

from pathlib import Path

import pytest

from deadweight.errors import UsageError
from deadweight.image.reference import (
    Reference,
    docker_name,
    full_name,
    parse_destination,
    parse_reference,
    short_name,
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


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("docker-daemon:demo:latest", "docker save demo:latest -o image.tar"),
        ("docker://reg.example/demo:1", "skopeo copy docker://reg.example/demo:1 docker-archive:image.tar"),
        ("containers-storage:demo", "skopeo copy containers-storage:demo docker-archive:image.tar"),
        ("python:3.12", "docker save python:3.12 -o image.tar"),
        ("docker-daemon:$(reboot)", "docker save IMAGE"),
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


@pytest.mark.parametrize("text", ["out.tar", "./dir", "docker://x/y", "demo:latest"])
def test_a_destination_names_its_transport(text: str) -> None:
    with pytest.raises(UsageError, match=r"docker-archive:|not supported yet"):
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
