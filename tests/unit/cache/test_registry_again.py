"""From registry to registry a second time: the application's layer comes, and what it becomes goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deadweight.cli.main import main
from deadweight.image.transports.registry_settings import Settings, using
from support.bad_registry import Registry, bad_registry
from support.images import FixtureImage, file, make_image, make_tar
from support.registries import no_logins


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    no_logins(monkeypatch, tmp_path / "home")
    with using(Settings(tries=2, pause=0.01, timeout=10.0)):
        yield


BASE = make_tar(file("base", os.urandom(300_000)), file("root/.cache/pip/wheel", os.urandom(200_000)))


def service(code: bytes) -> FixtureImage:
    return make_image(BASE, make_tar(file("app.py", code), file("root/.cache/pip/other", os.urandom(3000))))


def test_only_what_is_new_comes_and_goes() -> None:
    with ExitStack() as stack:
        source, target = (stack.enter_context(bad_registry()) for _ in range(2))
        for number in (1, 2):
            manifest = source.add(f"v{number}", service(b"x" * number))
            source.sent.clear()
            before = set(target.blobs)
            words = ["slim", f"docker://{source.host}/team/app:v{number}", "--all-layers"]
            assert main([*words, "--to", f"docker://{target.host}/team/app:v{number}"]) == 0
            come, gone = _blobs(source), set(target.blobs) - before
            wanted = {manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"][number - 1 :])}
            assert come == wanted
            assert len(gone) == 4 - number, "the layers that are new, and the configuration"


@pytest.mark.parametrize("command", ["inspect", "compare", "check"])
def test_what_only_looks_downloads_once(command: str) -> None:
    more = ["--max-size", "1GB"] if command == "check" else []
    with bad_registry() as registry:
        manifest = registry.add("v1", service(b"x"))
        words = [command, f"docker://{registry.host}/team/app:v1", *more]
        layers = {layer["digest"] for layer in manifest["layers"]}
        assert main(words) == 0
        assert _blobs(registry) >= layers
        registry.sent.clear()
        assert main(words) == 0
        assert not _blobs(registry) & layers
        assert main([*words, "--no-cache"]) == 0
        assert _blobs(registry) >= layers


def _blobs(registry: Registry) -> set[str]:
    """Those of which more was sent than tells how they are compressed."""
    return {path.rpartition("/")[2] for path, size in registry.sent if "/blobs/sha256:" in path and size > 64}
