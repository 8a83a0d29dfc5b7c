"""Whose names an engine's images are: what is removed, replaced and rolled back, and what is not."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from deadweight.cli.main import main
from deadweight.errors import EnvironmentFailure
from deadweight.image.transports import engine, engine_places
from deadweight.image.transports.engine_api import Engine, tag
from support.fake_engine import Store
from support.images import (
    FixtureImage,
    directory,
    docker_archive_members,
    file,
    make_image,
    make_tar,
    write_docker_archive,
)
from support.schemas import checked


def service(text: bytes = b"x") -> FixtureImage:
    """An image of which a part leaves."""
    return make_image(
        make_tar(file("app.py", text), directory("root/.cache/pip/http"), file("root/.cache/pip/http/a", b"x" * 5000))
    )


def slim(folder: Path, image: FixtureImage, name: str, *more: str) -> int:
    archive = folder / "image.tar"
    archive.unlink(missing_ok=True)
    write_docker_archive(archive, image)
    return main(["slim", str(archive), "--tag", name, *more])


def from_slim(store: Store, slim_name: str, name: str, *, layers: int = 1) -> str:
    """What a build FROM a slim image leaves: its labels, and more layers or only more history."""
    base = store.names[slim_name]
    image_id = "sha256:" + str(layers) * 64
    store.inspected[image_id] = derived = copy.deepcopy(store.inspected[base])
    derived["Id"] = image_id
    derived["RootFS"]["Layers"] += ["sha256:" + "9" * 64] * layers
    store.history[image_id] = [*store.history[base], {"created_by": "COPY service.py"}]
    store.names[name] = image_id
    return image_id


@pytest.mark.parametrize("layers", [0, 1])
def test_an_image_made_from_a_slim_one_is_its_makers(
    store: Store, folder: Path, capfd: pytest.CaptureFixture[str], layers: int
) -> None:
    original = service()
    assert slim(folder, original, "base:slim") == 0
    store.add(original.config_digest, original.config, b"", "base:1")
    theirs = from_slim(store, "base:slim", "prod:1", layers=layers)
    capfd.readouterr()
    assert main(["rollback", "prod:1"]) == 2
    assert "made FROM a slim one is another" in capfd.readouterr().err
    assert slim(folder, service(b"other"), "prod:1") == 2
    assert "an image that deadweight did not make" in capfd.readouterr().err
    assert store.names["prod:1"] == theirs
    # The slim image itself is deadweight's.
    assert main(["rollback", "base:slim"]) == 0
    assert store.names["base:slim"] == original.config_digest


def test_slim_images_are_replaced(store: Store, folder: Path) -> None:
    assert slim(folder, service(), "app:slim") == 0
    first = store.names["app:slim"]
    assert slim(folder, service(b"other"), "app:slim") == 0
    assert store.names["app:slim"] != first


@pytest.mark.parametrize("error", [EnvironmentFailure("the connection broke"), KeyboardInterrupt()])
def test_a_name_that_was_given_and_not_heard_of_stays(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    assert slim(folder, service(), "app:slim") == 0
    first = store.names["app:slim"]

    def unheard(*arguments: object) -> None:
        tag(*arguments)  # type: ignore[arg-type]
        raise error

    monkeypatch.setattr(engine, "tag", unheard)
    assert slim(folder, service(b"other"), "app:slim") == (130 if isinstance(error, KeyboardInterrupt) else 0)
    assert store.names["app:slim"] != first
    assert store.find("app:slim") is not None


def test_what_another_run_has_named_meanwhile_stays(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def slow(one: Engine, image_id: str, name: str) -> None:
        tag(one, image_id, "other:slim")  # the other run
        raise EnvironmentFailure("it may not")

    monkeypatch.setattr(engine, "tag", slow)
    assert slim(folder, service(), "app:slim") == 4
    assert store.find("other:slim") is not None
    assert "app:slim" not in store.names


def test_the_same_again_where_nothing_leaves(store: Store, folder: Path) -> None:
    whole = make_image(make_tar(file("app.py", b"x")))
    store.add(whole.config_digest, whole.config, b"", "mine:1")  # as an engine without containerd's store has it
    assert slim(folder, whole, "mine:1") == 0
    assert store.tags(store.names["mine:1"]) == ["mine:1"]
    # Where something leaves, the same name is refused.
    store.add(service().config_digest, service().config, b"", "svc:1")
    assert slim(folder, service(), "svc:1") == 2
    assert store.names["svc:1"] == service().config_digest


def test_rolls_back_what_lost_its_name_in_containerds_store(store: Store, folder: Path) -> None:
    image = service()
    export = make_tar(*docker_archive_members(image, "svc:latest", "25"))
    other = service(b"other")
    store.add(
        "sha256:" + "b" * 64, other.config, make_tar(*docker_archive_members(other, "x:1", "25")), "svc:latest-original"
    )
    store.add("sha256:" + "a" * 64, image.config, export, "svc:latest")
    assert main(["slim", "svc:latest", "--tag", "svc:latest"]) == 2
    assert main(["slim", "svc:latest", "--tag", "svc:latest", "--replace"]) == 0
    assert store.names["svc:latest-original-2"] == "sha256:" + "a" * 64
    slim_id = store.names["svc:latest"]
    assert slim_id != "sha256:" + "a" * 64
    assert main(["rollback", "svc:latest", "--dry-run", "--json", str(folder / "dry.json")]) == 0
    assert checked(json.loads((folder / "dry.json").read_bytes()))["slim_id"] == slim_id
    assert main(["rollback", "svc:latest"]) == 0
    assert store.names["svc:latest"] == "sha256:" + "a" * 64
    assert store.names["svc:latest-slim"] == slim_id


def test_a_slim_image_keeps_its_name_where_another_is_made_of_it_in_containerds_store(
    store: Store, folder: Path
) -> None:
    cache, pages = (directory(name) for name in ("root/.cache/pip/http", "usr/share/man/man1"))
    files = [file(f"root/.cache/pip/http/{name}", b"x" * 5000) for name in "ab"]
    image = make_image(make_tar(cache, *files, pages, file("usr/share/man/man1/ls.1.gz", b"x" * 5000)))
    assert slim(folder, image, "svc:slim", "--skip", "documentation") == 0
    first = store.names["svc:slim"]
    assert main(["slim", "svc:slim", "--tag", "svc:slim"]) == 2
    assert main(["slim", "svc:slim", "--tag", "svc:slim", "--replace"]) == 0
    assert store.names["svc:slim-original"] == first


def test_an_original_keeps_the_name_that_it_has_already(store: Store, folder: Path) -> None:
    image, image_id = service(), "sha256:" + "a" * 64
    store.add(image_id, image.config, make_tar(*docker_archive_members(image, "svc:latest", "25")), "svc:latest")
    for _ in range(2):
        assert main(["slim", "svc:latest", "--tag", "svc:latest", "--replace"]) == 0
        made = store.names["svc:latest"]
        assert main(["rollback", "svc:latest"]) == 0
    assert store.tags(image_id) == ["svc:latest", "svc:latest-original"]
    assert store.tags(made) == ["svc:latest-slim"]


def test_an_image_that_is_asked_for_by_digest(store: Store, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image, image_id = service(), "sha256:" + "a" * 64
    export = make_tar(*docker_archive_members(image, "svc:1", "25"))
    digest = f"registry.example/svc@{image_id}"
    store.add(image_id, image.config, export, digest)
    store.names["svc:1"] = image_id
    assert main(["slim", digest, "--tag", "svc:slim"]) == 0
    made = store.names["svc:slim"]
    assert store.inspected[made]["Config"]["Labels"]["deadweight.source.name"] == digest
    assert main(["rollback", "svc:slim", "--dry-run"]) == 0
    del store.names[digest]
    assert main(["rollback", "svc:slim", "--dry-run"]) == 3
    assert f"docker pull {digest}" in capfd.readouterr().err


def test_an_image_that_is_asked_for_by_id(store: Store, folder: Path) -> None:
    """Nobody can pull an ID: a name of its is said, or what a registry calls it."""
    image, image_id = service(), "sha256:" + "a" * 64
    digest = f"registry.example/svc@{image_id}"
    store.add(image_id, image.config, make_tar(*docker_archive_members(image, "svc:1", "25")), digest)
    for number, name in enumerate((digest, "svc:1")):
        store.names[name] = image_id
        assert main(["slim", image_id, "--tag", f"slim:{number}"]) == 0
        made = store.inspected[store.names[f"slim:{number}"]]
        assert made["Config"]["Labels"]["deadweight.source.name"] == name


@pytest.mark.parametrize(("free", "status"), [(1 << 20, 4), (100 << 20, 0)])
def test_space_to_spare_is_by_the_image(
    store: Store,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    free: int,
    status: int,
) -> None:
    image, image_id = service(), "sha256:" + "a" * 64
    store.add(image_id, image.config, make_tar(*docker_archive_members(image, "svc:1", "25")), "svc:1")
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1))
    assert main(["slim", "svc:1", "--tag", "svc:slim", "--no-cache"]) == status
    assert ("set TMPDIR" in capfd.readouterr().err) == (status != 0)


def test_no_engine_for_what_is_to_be_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for variable in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(engine_places, "DOCKER_SOCKET", "/nowhere/docker.sock")
    monkeypatch.setenv("CONTAINER_HOST", "unix:///nowhere/podman.sock")
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    assert slim(folder, service(), "svc:x") == 4
    said = capfd.readouterr().err
    assert "no engine answers that could have the name 'svc:x'" in said
    assert "no file or directory" not in said
    # What is to be read may be a file.
    for words in (["slim", "svc:1", "--tag", "svc:x"], ["inspect", "svc:1"]):
        assert main(words) == 4
        assert "there is no file or directory 'svc:1', and no engine to ask" in capfd.readouterr().err
