"""How much goes over the network: each byte that is needed once, and nothing else."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deadweight.cli.main import main
from deadweight.image.transports import registry_blob
from deadweight.image.transports.registry_settings import Settings, using
from support.bad_registry import Registry, bad_registry
from support.images import FixtureImage, digest, file, make_image, make_tar
from support.registries import no_logins

HEAD = 64
"""What is read of a layer beforehand, to tell how it is compressed."""


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    no_logins(monkeypatch, tmp_path / "home")
    with using(Settings(tries=2, pause=0.01, timeout=10.0)):
        yield


@pytest.fixture
def registries() -> Iterator[tuple[Registry, Registry]]:
    with ExitStack() as stack:
        yield stack.enter_context(bad_registry()), stack.enter_context(bad_registry())


def service() -> FixtureImage:
    """A layer that stays, and one of which a part leaves."""
    return make_image(
        make_tar(file("base", os.urandom(300_000))),
        make_tar(file("app.py", b"x"), file("root/.cache/pip/wheel", os.urandom(200_000))),
    )


def blobs(registry: Registry) -> Counter[str]:
    """The bytes that were sent of each blob."""
    found: Counter[str] = Counter()
    for path, size in registry.sent:
        if "/blobs/sha256:" in path:
            found[path.rpartition("/")[2]] += size
    return found


def test_inspect_reads_what_it_must_once(registries: tuple[Registry, Registry], tmp_path: Path) -> None:
    registry, _ = registries
    manifest = registry.add("v1", service())
    assert main(["inspect", f"docker://{registry.host}/team/app:v1", "--json", str(tmp_path / "r.json")]) == 0
    read = blobs(registry)
    assert read.keys() == {one["digest"] for one in (manifest["config"], *manifest["layers"])}
    assert read[manifest["config"]["digest"]] == manifest["config"]["size"]
    for layer in manifest["layers"]:
        assert layer["size"] <= read[layer["digest"]] <= layer["size"] + HEAD
    assert len([path for path, _ in registry.sent if "/manifests/" in path]) == 1


def test_of_an_index_one_image_is_read(registries: tuple[Registry, Registry], tmp_path: Path) -> None:
    registry, _ = registries
    wanted, other = registry.add("amd64", service()), registry.add("arm64", service())
    index_type = "application/vnd.oci.image.index.v1+json"
    index = {
        "schemaVersion": 2,
        "mediaType": index_type,
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(registry.manifests[name][1]),
                "size": len(registry.manifests[name][1]),
                "platform": {"os": "linux", "architecture": name},
            }
            for name in ("amd64", "arm64")
        ],
    }
    registry.put("v1", index_type, json.dumps(index).encode())
    words = ["inspect", f"docker://{registry.host}/team/app:v1", "--platform", "linux/amd64"]
    assert main([*words, "--json", str(tmp_path / "r.json")]) == 0
    assert not blobs(registry).keys() & {one["digest"] for one in other["layers"]}
    assert blobs(registry).keys() >= {one["digest"] for one in wanted["layers"]}


def test_from_one_registry_to_another_each_layer_comes_once_and_what_is_there_is_not_sent(
    registries: tuple[Registry, Registry],
) -> None:
    near, far = registries
    manifest = near.add("v1", service())
    words = ["slim", f"docker://{near.host}/team/app:v1", "--to", f"docker://{far.host}/team/app"]
    assert main([*words[:-1], f"{words[-1]}:slim"]) == 0
    stays, changes = manifest["layers"]
    assert stays["digest"] in far.blobs
    for layer in (stays, changes):
        assert blobs(near)[layer["digest"]] <= layer["size"] + HEAD
    # And again: the layers are there, so nothing but documents is sent.
    far.asked.clear()
    assert main([*words[:-1], f"{words[-1]}:again"]) == 0
    sent = [one for one in far.asked if one.method in ("PATCH", "PUT") and "/blobs/" in one.path]
    assert sum(len(one.body) for one in sent) < stays["size"] / 10


@pytest.mark.parametrize("why", ["large", "full"])
def test_what_cannot_be_kept_comes_again(
    registries: tuple[Registry, Registry], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    near, far = registries
    if why == "large":
        monkeypatch.setattr(registry_blob, "_KEPT", 1000)
    else:
        monkeypatch.setattr(registry_blob, "_put", lambda file, piece: False)
    manifest = near.add("v1", service())
    words = ["slim", f"docker://{near.host}/team/app:v1", "--to", f"docker://{far.host}/team/app:slim"]
    assert main(words) == 0
    stays = manifest["layers"][0]
    assert digest(far.blobs[stays["digest"]]) == stays["digest"]
    assert blobs(near)[stays["digest"]] >= 2 * stays["size"]
