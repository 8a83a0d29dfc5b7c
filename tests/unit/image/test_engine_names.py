"""Whose names an engine's images are: what is removed, replaced and rolled back, and what is not."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deadweight.cli.main import main
from deadweight.errors import EnvironmentFailure
from deadweight.image.transports import engine
from deadweight.image.transports.engine_api import Engine, tag
from support.fake_engine import Store, fake_engine
from support.images import FixtureImage, directory, file, make_image, make_tar, write_docker_archive


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dw-") as name:
        yield Path(name)


@pytest.fixture
def store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/engine.sock")
    with fake_engine(folder / "engine.sock") as found:
        yield found


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
