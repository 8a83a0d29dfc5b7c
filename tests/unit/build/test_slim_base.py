"""The base debian:SUITE-minimal: tools that only install or log in leave it, those that were asked for stay."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from deadweight.build.slimming import slim_base
from deadweight.cache.layers import Cache
from deadweight.image.filesystem import Filesystem
from deadweight.image.model import Image
from support.caching import pass_of_others
from support.contexts import Dpkg
from support.images import make_tar
from support.layers import image_of


def base() -> Image:
    made = Dpkg()
    made.add("bash", "usr/bin/bash", essential=True)
    made.add("dpkg", "usr/bin/dpkg", essential=True)
    made.add("util-linux", "usr/bin/setpriv", essential=True, depends="libmount1")
    made.add("libmount1", "usr/lib/libmount.so.1")
    return image_of([make_tar(*made.members())], {"config": {}, "architecture": "amd64"})


def test_passes_of_others_are_asked_each_time(tmp_path: Path) -> None:
    """A base that was slimmed with a pass, with another one, or without it is not the same."""
    cache = Cache(tmp_path / "cache")

    def content() -> bytes:
        image = base()
        with ExitStack() as resources:
            resources.callback(image.close)
            _, cached = slim_base(image, ("bash",), "a", cache, resources)
            return cached.blob.read_at(0, cached.blob.size)

    before = content()
    for text in (b"version 1", b"version 2"):
        with pass_of_others(tmp_path, "usr/bin/bash", text):
            assert text in content()
            assert text in content()
    assert content() == before


def left(cache: Cache, key: str, *requested: str) -> tuple[str, set[str]]:
    """The key, and the packages that are there."""
    image = base()
    with ExitStack() as resources:
        resources.callback(image.close)
        key, cached = slim_base(image, requested, key, cache, resources)
        slim = image_of([cached.blob.read_at(0, cached.blob.size)], {"config": {}})
        resources.callback(slim.close)
        fs = Filesystem(slim)
        status = fs.read("var/lib/dpkg/status", 1 << 16).decode()
        names = {line.partition(": ")[2] for line in status.splitlines() if line.startswith("Package: ")}
        return key, names


def test_what_only_installs_leaves_unless_it_was_asked_for(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key, names = left(cache, "a", "bash")
    assert names == {"bash"}
    assert left(cache, "a", "bash") == (key, names)
    other, names = left(cache, "b", "bash", "util-linux")
    assert names == {"bash", "util-linux", "libmount1"}
    assert other != key
