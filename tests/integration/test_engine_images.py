"""Images in real engines: read by name, loaded back under another, run, and rolled back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from deadweight.cli.main import main
from deadweight.errors import EnvironmentFailure, UsageError
from deadweight.image.output import NewImage, OutputLayer, PredictionError, keep_image
from deadweight.image.reference import parse_destination
from deadweight.image.transports import engine, open_image, write_image
from deadweight.image.transports.engine_api import Engine, load
from support.actions import ROOT
from support.engines import GREETING, docker_host, greeter, podman_host
from support.images import directory, file, make_image, make_tar, write_docker_archive
from support.registries import start_registry

pytestmark = pytest.mark.xdist_group("engine-images")
RUN = {"docker": ["run", "--rm", "--network", "none"], "podman": ["run", "--rm", "--network", "none"]}


class Client:
    """An engine's own client, as the judge."""

    def __init__(self, kind: str, host: str) -> None:
        self.kind, self.host = kind, host
        self.transport = "docker-daemon" if kind == "docker" else kind
        self.command = ["docker", "-H", host] if kind == "docker" else ["podman", "--url", host]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([*self.command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def inspect(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("image", "inspect", name))[0]
        return {**found, "Id": "sha256:" + found["Id"].removeprefix("sha256:")}

    def names(self) -> dict[str, str]:
        """Every name with its image's ID, and images without one."""
        lines = self("image", "ls", "--all", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
        return {name.removeprefix("localhost/"): image_id for name, image_id in map(str.split, lines)}

    def clear(self) -> None:
        ids = set(self.names().values())
        if ids:
            self("rmi", "--force", *ids)


@pytest.fixture(scope="module", params=["docker", "podman"])
def started(request: pytest.FixtureRequest) -> Iterator[Client]:
    with ExitStack() as stack:
        host = docker_host(stack) if request.param == "docker" else podman_host(stack)
        yield Client(request.param, host)


@pytest.fixture
def client(
    started: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Client:
    """The engine, empty, which the environment names; the other one is not there."""
    started.clear()
    if started.kind == "docker":
        monkeypatch.setenv("DOCKER_HOST", started.host)
        monkeypatch.setenv("CONTAINER_HOST", "unix:///nowhere/podman.sock")
    else:
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        monkeypatch.setattr("deadweight.image.transports.engine_places.DOCKER_SOCKET", "/nowhere/docker.sock")
        monkeypatch.setenv("CONTAINER_HOST", started.host)
    config = tmp_path_factory.mktemp("docker")
    (config / "config.json").write_text("{}")
    monkeypatch.setenv("DOCKER_CONFIG", str(config))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return started


@pytest.fixture
def service(client: Client, tmp_path: Path) -> str:
    """The ID of svc:latest: a base, and a layer of which a part leaves."""
    image = make_image(
        make_tar(directory("bin"), file("bin/greet", greeter(), mode=0o755)),
        make_tar(directory("root/.cache/pip"), file("root/.cache/pip/wheel", b"x" * 300_000), file("tmp/x", b"x")),
        run={"Cmd": ["/bin/greet"], "Labels": {"kept": "yes"}},
    )
    client("load", "-i", str(write_docker_archive(tmp_path / "svc.tar", image, "svc:latest")))
    (tmp_path / "svc.tar").unlink()
    return image.config_digest


def slim(*arguments: str) -> int:
    return main(["slim", *arguments])


def test_slim_reads_from_the_engine_and_loads_back(client: Client, service: str, tmp_path: Path) -> None:
    assert slim("svc:latest", "--tag", "svc:slim", "--json", "report.json") == 0
    report = json.loads(Path("report.json").read_text())
    found = client.inspect("svc:slim")
    assert found["Id"] == report["after"]["digest"] != service
    assert found["RootFS"]["Layers"] == [layer["after_diff_id"] for layer in report["layers"]]
    labels = found["Config"]["Labels"]
    assert labels["kept"] == "yes"
    assert (labels["deadweight.source"], labels["deadweight.source.name"]) == (service, "svc:latest")
    assert report["predicted_bytes"] == report["after_bytes"] < report["before_bytes"] - 300_000
    assert client.inspect("svc:latest")["Id"] == service
    assert client.names() == {"svc:latest": service, "svc:slim": found["Id"]}
    assert client(*RUN[client.kind], "svc:slim") == GREETING
    left_out = any("1 of 2 layers were in" in note for note in report["notes"])
    assert left_out == (client.kind == "docker")
    # What the engine gives out again is what was written, layer by layer.
    with open_image(f"{client.transport}:svc:slim") as image:
        assert image.config_digest == found["Id"]
        assert image.reference == f"{client.transport}:svc:slim"
        for layer in image.layers:
            layer.check()
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_the_same_again_gives_the_same_image(client: Client, service: str) -> None:
    assert slim("svc:latest", "--tag", "svc:slim") == 0
    first = client.inspect("svc:slim")["Id"]
    assert slim("svc", "--to", f"{client.transport}:svc:slim") == 0
    assert client.names() == {"svc:latest": service, "svc:slim": first}
    # The ID, as people copy it from a list.
    assert slim(service[7:19], "--tag", "svc:by-id") == 0
    name = client.inspect("svc:by-id")["Config"]["Labels"]["deadweight.source.name"]
    assert name.removeprefix("localhost/") == "svc:latest"


def test_plan_and_apply_by_name(client: Client, service: str) -> None:
    assert main(["plan", "svc:latest", "-o", "plan.json"]) == 0
    assert json.loads(Path("plan.json").read_text())["image"]["reference"] == f"{client.transport}:svc:latest"
    assert main(["apply", "plan.json", "--tag", "svc:slim"]) == 0
    assert client.inspect("svc:slim")["Config"]["Labels"]["deadweight.source"] == service


def test_verify_after_loading(client: Client, service: str) -> None:
    assert slim("svc:latest", "--tag", "svc:slim", "--plan-out", "plan.json") == 0
    assert main(["verify", "svc:latest", "svc:slim", "--plan", "plan.json", "--static-only"]) == 0


def test_the_original_keeps_its_name(client: Client, service: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert slim("svc:latest", "--tag", "svc:latest") == 2
    said = capfd.readouterr().err
    assert "the original, which is never overwritten" in said
    assert "svc:latest-original" in said
    client("tag", "svc:latest", "other:1")
    assert slim("svc:latest", "--tag", "other:1") == 2
    assert client.names() == {"svc:latest": service, "other:1": service}
    assert slim("svc:latest", "--tag", "svc:latest", "--replace") == 0
    assert "svc:latest is" in capfd.readouterr().out.replace("localhost/", "")
    names = client.names()
    assert names.pop("svc:latest") not in (service, None)
    assert names == {"other:1": service, "svc:latest-original": service}


def test_a_slim_image_of_which_another_is_made_keeps_its_name(client: Client, service: str) -> None:
    assert slim("svc:latest", "--tag", "svc:slim", "--keep", "/tmp/x") == 0
    first = client.inspect("svc:slim")["Id"]
    # Made by deadweight, so that its name may go to another; but not to what is made from it.
    assert slim("svc:slim", "--tag", "svc:slim") == 2
    assert slim("svc:latest", "--tag", "svc:slim") == 0
    assert client.inspect("svc:slim")["Id"] != first


def test_rollback(client: Client, service: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert slim("svc:latest", "--tag", "svc:latest", "--replace") == 0
    made = client.inspect("svc:latest")["Id"]
    before = client.names()
    capfd.readouterr()
    assert main(["rollback", "svc:latest", "--dry-run", "--json", "-"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert (report["slim_id"], report["original_id"], report["dry_run"]) == (made, service, True)
    assert client.names() == before
    assert main(["rollback", "svc"]) == 0
    assert client.names() == {"svc:latest": service, "svc:latest-original": service, "svc:latest-slim": made}
    capfd.readouterr()
    assert main(["rollback", "svc:latest"]) == 2
    assert "is no slim image" in capfd.readouterr().err


def test_replaced_and_rolled_back_again_and_again(client: Client, service: str) -> None:
    for _ in range(3):
        assert slim("svc:latest", "--tag", "svc:latest", "--replace") == 0
        made = client.inspect("svc:latest")["Id"]
        assert main(["rollback", "svc:latest"]) == 0
    assert client.names() == {"svc:latest": service, "svc:latest-original": service, "svc:latest-slim": made}


def test_rollback_where_a_folder_has_the_name(client: Client, service: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert slim("svc:latest", "--tag", "svc:latest", "--replace") == 0
    Path("svc").mkdir()
    assert main(["rollback", "svc"]) == 0
    assert client.inspect("svc:latest")["Id"] == service
    assert main(["inspect", "svc"]) == 2
    assert "docker-daemon:svc:latest" in capfd.readouterr().err


def test_the_document_from_slim_to_rollback(client: Client, service: str) -> None:
    """docs/deploying.md, its own lines, for another image."""
    client("tag", "svc:latest", "truthgraph-api:latest")
    lines = (ROOT / "docs/deploying.md").read_text().splitlines()
    commands = [line.split() for line in lines if line.startswith(("    deadweight slim", "    deadweight rollback"))]
    ours = [words[1:] for words in commands if "docker://" not in " ".join(words)]
    assert [words[0] for words in ours] == ["slim", "rollback", "rollback"]
    for words in ours:
        assert main(words) == 0
    assert client.inspect("truthgraph-api:slim")["Id"] == service


def test_an_image_that_is_known_only_by_digest(client: Client, service: str, capfd: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        host = start_registry(stack).host
        client("tag", "svc:latest", f"{host}/team/svc:1")
        insecure = ["--tls-verify=false"] if client.kind == "podman" else []
        client("push", *insecure, f"{host}/team/svc:1")
        client.clear()
        with open_image(f"docker://{host}/team/svc:1") as image:
            name = f"{host}/team/svc@{image.manifest_digest}"
        client("pull", *insecure, name)
        assert slim(name, "--tag", "dig:slim") == 0
        assert client.inspect("dig:slim")["Config"]["Labels"]["deadweight.source.name"] == name
        client("rmi", name)
        assert main(["rollback", "dig:slim"]) == 3
        assert f"{client.kind} pull {name})" in capfd.readouterr().err
        client("pull", *insecure, name)
        # Its ID leads to the same name.
        image_id = client.inspect(name)["Id"]
        assert slim(image_id[7:19], "--tag", "dig:by-id") == 0
        assert client.inspect("dig:by-id")["Config"]["Labels"]["deadweight.source.name"] == name
        assert main(["rollback", "dig:slim"]) == 0
        assert client.inspect("dig:slim")["Id"] == image_id


def test_rollback_when_the_original_is_gone(
    client: Client, service: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert slim("svc:latest", "--tag", "svc:slim") == 0
    client("rmi", "svc:latest")
    assert main(["rollback", "svc:slim"]) == 3
    said = capfd.readouterr().err
    assert f"{client.kind} pull svc:latest" in said
    assert service[:40] in said


@pytest.mark.parametrize("error", [PredictionError("too long"), KeyboardInterrupt()])
def test_a_load_that_does_not_end_leaves_nothing(client: Client, service: str, error: BaseException) -> None:
    with open_image(f"{client.transport}:svc:latest") as image:

        def chunks() -> Iterator[bytes]:
            yield bytes(200_000)
            raise error

        layers = (OutputLayer(400_000, chunks), *keep_image(image).layers)
        new = NewImage(layers, lambda _: image.config_bytes, image.tag)
        with pytest.raises(type(error)):
            write_image(new, parse_destination(f"{client.transport}:svc:new"))
    assert client.names() == {"svc:latest": service}


def test_a_stop_while_the_engine_unpacks_leaves_nothing(
    client: Client, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*arguments: Any) -> None:
        load(*arguments)  # the real one
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, "load", stopped)
    with open_image(f"{client.transport}:svc:latest") as image:
        # A new image, and one that was there before.
        for new in (edited(image, lambda c: c.update(author="me")), keep_image(image)):
            with pytest.raises(KeyboardInterrupt):
                write_image(new, parse_destination(f"{client.transport}:svc:2"))
    assert client.names() == {"svc:latest": service}


def edited(image: Any, change: Callable[[dict[str, Any]], None]) -> NewImage:
    """The image with another configuration."""

    def make(diff_ids: list[str]) -> bytes:
        config = {**image.config, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
        change(config)
        return json.dumps(config).encode()

    return NewImage(keep_image(image).layers, make)


def test_an_image_that_cannot_be_named_is_removed(
    client: Client, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise EnvironmentFailure("it may not")

    monkeypatch.setattr(engine, "tag", refuse)
    with open_image(f"{client.transport}:svc:latest") as image:
        with pytest.raises(EnvironmentFailure, match="may not"):
            write_image(edited(image, lambda c: c.update(author="me")), parse_destination(f"{client.transport}:svc:2"))
        # One that was there before stays.
        with pytest.raises(EnvironmentFailure, match="may not"):
            write_image(keep_image(image), parse_destination(f"{client.transport}:svc:2"))
    assert client.names() == {"svc:latest": service}


def test_a_base_that_goes_meanwhile_is_sent_after_all(
    client: Client, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if client.kind == "podman":
        pytest.skip("Podman gets every layer")
    count = engine._layers_there
    asked = []

    def then(one: Engine, new: NewImage) -> int:
        asked.append(count(one, new))
        if len(asked) == 1:
            client("rmi", "svc:latest")
        return asked[-1]

    monkeypatch.setattr(engine, "_layers_there", then)
    with open_image("docker-daemon:svc:latest") as image:
        write_image(edited(image, lambda c: c.update(author="me")), parse_destination("docker-daemon:svc:2"))
        assert asked == [2, 0]
    assert client(*RUN["docker"], "svc:2") == GREETING


def test_an_engine_refuses_what_does_not_hash(client: Client, service: str) -> None:
    with open_image(f"{client.transport}:svc:latest") as image:
        layers = [replace(layer, source=None) for layer in keep_image(image).layers]
        wrong = make_tar(file("other", b"y"))
        layers[1] = OutputLayer(len(wrong), lambda: iter([wrong]))
        new = NewImage(tuple(layers), lambda ids: image.config_bytes)
        with pytest.raises(Exception, match="defect of deadweight"):
            write_image(new, parse_destination(f"{client.transport}:svc:2"))
    assert client.names() == {"svc:latest": service}


def test_no_such_image(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "nothing:1"]) == 2
    said = capfd.readouterr().err
    assert f"{client.kind} pull nothing:1" in said
    assert "no such file or directory" in said
    assert main(["inspect", f"{client.transport}:nothing:1"]) == 2
    assert "image ls" in capfd.readouterr().err


def test_no_space(client: Client, service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_RESERVE", 1 << 60)
    monkeypatch.setattr(engine, "_RESERVE_LIMIT", 1 << 60)
    with pytest.raises(EnvironmentFailure, match="set TMPDIR"):
        open_image("svc:latest")


def test_both_say_where(client: Client, service: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert slim("svc:latest", "--tag", "svc:slim", "--to", "oci:out") == 2
    assert "give one of them" in capfd.readouterr().err
    assert slim("svc:latest") == 2
    assert "--tag NAME:TAG" in capfd.readouterr().err
    assert slim("svc:latest", "--tag", "Svc") == 2
    assert "lower case" in capfd.readouterr().err


def test_names_of_podman_are_of_localhost(client: Client, service: str) -> None:
    if client.kind == "docker":
        pytest.skip("Docker's short names are docker.io's")
    assert slim("svc:latest", "--tag", "svc:slim") == 0
    assert client.inspect("localhost/svc:slim")["RepoTags"] == ["localhost/svc:slim"]
    with pytest.raises(UsageError):
        open_image("podman:docker.io/library/svc:slim")


def test_a_short_name_of_podmans_keeps_its_meaning(client: Client, service: str) -> None:
    if client.kind == "docker":
        pytest.skip("Docker's short names are docker.io's")
    client("tag", service[7:], "docker.io/library/app:1")
    client("untag", service[7:], "localhost/svc:latest")
    assert slim("podman:app:1", "--tag", "app:1") == 2
    assert client.inspect("app:1")["Id"] == service
    assert slim("podman:app:1", "--tag", "app:1", "--replace") == 0
    assert client.inspect("docker.io/library/app:1")["Id"] == service
    assert client.inspect("app:1-original")["Id"] == service
    assert client.inspect("app:1")["Id"] != service


def test_an_image_from_which_nothing_leaves_twice(client: Client, service: str) -> None:
    assert slim("svc:latest", "--tag", "svc:small") == 0
    assert slim("svc:small", "--tag", "svc:smaller") == 0
    assert slim("svc:small", "--tag", "svc:smaller") == 0
