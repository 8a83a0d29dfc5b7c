"""Debian's registry, and skopeo on the other side: what we push it copies, what it pushes we read, digests equal."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from deadweight.cli.main import main
from deadweight.errors import BadInputError, EnvironmentFailure
from deadweight.image.output import NewImage, OutputLayer, keep_image
from deadweight.image.reference import parse_destination
from deadweight.image.transports import open_image, write_image
from deadweight.image.transports.registry_settings import Settings, using
from support.images import (
    OCI_INDEX,
    FixtureImage,
    compress,
    directory,
    dump,
    file,
    layout_files,
    make_image,
    make_tar,
    put_blob,
    put_manifest,
    simple_image,
    write_docker_archive,
    write_files,
    write_oci,
)
from support.registries import PASSWORD, USER, Server, flaky, pushed, raw, requests, skopeo, start_registry

pytestmark = pytest.mark.usefixtures("without_logins")


def test_what_skopeo_pushed_is_read(server: Server, tmp_path: Path) -> None:
    image = simple_image()
    reference = pushed(server, "read/app:v1", image, tmp_path)
    with open_image(reference) as found:
        assert found.config_digest == image.config_digest
        assert found.tag == f"{server.host}/read/app:v1"
        assert (
            found.manifest_digest == skopeo("inspect", "--format={{.Digest}}", "--tls-verify=false", reference).strip()
        )
        # Until a layer is asked for, none is sent.
        blobs = requests(server, "GET", "/read/app/blobs/")
        assert len(blobs) == 1
        assert image.config_digest in blobs[0]
        found.fetch()
        assert [b"".join(layer.tar.chunks()) for layer in found.layers] == list(image.layers)
        assert all(layer.checked for layer in found.layers)
        assert len(requests(server, "GET", "/read/app/blobs/")) == 3  # each layer once, and not for its first bytes
        assert [layer.compression for layer in found.layers] == ["gzip", "gzip"]
    told = skopeo("inspect", "--format={{.Digest}}", "--tls-verify=false", reference)
    assert found.manifest_digest == told.strip()
    with open_image(f"docker://{server.host}/read/app@{found.manifest_digest}") as pinned:
        assert pinned.config_digest == image.config_digest
        assert pinned.tag is None


def test_what_we_push_skopeo_copies(server: Server, tmp_path: Path) -> None:
    image = simple_image()
    archive = write_docker_archive(tmp_path / "a.tar", image, "demo:1")
    done: list[int] = []
    with open_image(str(archive)) as source:
        to = parse_destination(f"docker://{server.host}/pushed/app:v1")
        written = write_image(keep_image(source), to, progress=done.append)
        assert max(done) == source.size
    assert written.config_digest == image.config_digest
    reference = f"docker://{server.host}/pushed/app:v1"
    assert [layer["mediaType"] for layer in raw(reference)["layers"]] == [
        "application/vnd.oci.image.layer.v1.tar+gzip"
    ] * 2
    skopeo("copy", "-q", "--src-tls-verify=false", reference, f"oci:{tmp_path / 'back'}:v1")
    with open_image(f"oci:{tmp_path / 'back'}:v1") as back:
        assert (back.config_digest, back.manifest_digest) == (written.config_digest, written.manifest_digest)
        assert [b"".join(layer.tar.chunks()) for layer in back.layers] == list(image.layers)
    assert written.stored_sizes == tuple(layer["size"] for layer in raw(reference)["layers"])
    assert server.uploads("pushed/app") == []


def test_layers_of_the_same_registry_are_mounted_and_not_sent(server: Server, tmp_path: Path) -> None:
    reference = pushed(server, "origin/app:v1", simple_image(), tmp_path)
    with open_image(reference) as source:
        source.fetch()
        read = len(requests(server, "GET", "/origin/app/blobs/"))
        written = write_image(keep_image(source), parse_destination(f"docker://{server.host}/mounted/app:v2"))
        assert written.manifest_digest == source.manifest_digest
        assert len(requests(server, "GET", "/origin/app/blobs/")) == read
        assert len(requests(server, "POST", "/mounted/app/blobs/uploads/?mount=")) == 2
        assert len(requests(server, "PUT", "/mounted/app/blobs/uploads/")) == 1  # the configuration
        # Again, and nothing but the manifest goes there.
        write_image(keep_image(source), parse_destination(f"docker://{server.host}/mounted/app:v3"))
        assert len(requests(server, "PUT", "/mounted/app/blobs/uploads/")) == 1
    assert server.tags("mounted/app") == {"v2", "v3"}


def test_layers_stream_from_registry_to_registry(server: Server, tmp_path: Path) -> None:
    image = simple_image()
    reference = pushed(server, "far/app:v1", image, tmp_path)
    with ExitStack() as stack, open_image(reference) as source:
        other = start_registry(stack)
        written = write_image(keep_image(source), parse_destination(f"docker://{other.host}/near/app:v1"))
        assert written.manifest_digest == source.manifest_digest
        assert other.links("near/app") == {layer.digest for layer in source.layers} | {image.config_digest}


def test_dockers_manifests_stay_dockers(server: Server, tmp_path: Path) -> None:
    reference = pushed(server, "schema2/app:v1", simple_image(), tmp_path, "--format=v2s2")
    assert "docker" in raw(reference)["mediaType"]
    with open_image(reference) as source:
        there = write_image(keep_image(source), parse_destination(f"docker://{server.host}/schema2/copy:v1"))
        assert there.manifest_digest
        found = raw(f"docker://{server.host}/schema2/copy:v1")
        assert found["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
        assert found["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
        assert [layer["digest"] for layer in found["layers"]] == [layer.digest for layer in source.layers]
        assert {layer["mediaType"] for layer in found["layers"]} == {
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
        }


def test_large_layers_go_in_chunks(server: Server, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    image = make_image(make_tar(file("weights", data)))
    archive = write_docker_archive(tmp_path / "a.tar", image)
    to = parse_destination(f"docker://{server.host}/chunks/app:v1")
    with using(Settings(chunk=100_000)), open_image(str(archive)) as source:
        write_image(keep_image(source), to)
    assert len(requests(server, "PATCH", "/chunks/app/blobs/uploads/")) >= 3
    with open_image(f"docker://{server.host}/chunks/app:v1") as back:
        assert b"".join(back.layers[0].tar.chunks()) == image.layers[0]


@pytest.mark.parametrize(
    "cuts",
    [
        pytest.param([(1 << 60, 300_000), (1 << 60, 700_000)], id="answers"),
        pytest.param([(300_000, 1 << 60), (700_000, 1 << 60), (50_000, 1 << 60)], id="requests"),
        pytest.param([(0, 0), (200, 0), (1 << 60, 100)], id="at the start"),
    ],
)
def test_connections_that_break_off(server: Server, tmp_path: Path, cuts: list[tuple[int, int]]) -> None:
    """To and from a real registry, over connections that are cut in the midst of blobs."""
    image = make_image(make_tar(file("weights", os.urandom(2_000_000))))
    name = f"flaky/{cuts[0][0]}-{cuts[0][1]}:v1"
    archive = write_docker_archive(tmp_path / "a.tar", image)
    settings = Settings(pause=0.02, chunk=200_000)
    # What is cut is a first connection on which all goes well so far, and then the next ones.
    with flaky(server.host, cuts) as host, using(settings), open_image(str(archive)) as source:
        write_image(keep_image(source), parse_destination(f"docker://{host}/{name}"))
    with flaky(server.host, cuts) as host, using(settings), open_image(f"docker://{host}/{name}") as back:
        assert back.config_digest == image.config_digest
        assert b"".join(back.layers[0].tar.chunks()) == image.layers[0]


def test_equal_layers_are_sent_and_read_once(server: Server, tmp_path: Path) -> None:
    layer = make_tar(file("same", os.urandom(10_000)))
    image = make_image(layer, make_tar(file("between", b"x")), layer)
    archive = write_docker_archive(tmp_path / "a.tar", image)
    with open_image(str(archive)) as source:
        write_image(keep_image(source), parse_destination(f"docker://{server.host}/equal/app:v1"))
    assert len(requests(server, "PUT", "/equal/app/blobs/uploads/")) == 3  # two layers and the configuration
    with open_image(f"docker://{server.host}/equal/app:v1") as back:
        back.fetch()
        assert len(requests(server, "GET", "/equal/app/blobs/")) == 3
        assert [b"".join(each.tar.chunks()) for each in back.layers] == [layer, image.layers[1], layer]


def test_plain_and_zstd_layers(server: Server, tmp_path: Path) -> None:
    image = simple_image()
    for compression in ("none", "zstd"):
        folder = write_oci(tmp_path / compression, image, "v", "none" if compression == "none" else "zstd")
        with open_image(f"oci:{folder}:v") as source:
            to = parse_destination(f"docker://{server.host}/kinds/{compression}:v1")
            write_image(keep_image(source), to, compression="none" if compression == "none" else "keep")
        with open_image(f"docker://{server.host}/kinds/{compression}:v1") as back:
            assert [layer.compression for layer in back.layers] == [compression] * 2  # by their first bytes alone
            assert not any(layer.checked for layer in back.layers)
            assert [b"".join(layer.tar.chunks()) for layer in back.layers] == list(image.layers)
            assert all(layer.checked for layer in back.layers)


def test_what_is_not_there_is_said(server: Server) -> None:
    with pytest.raises(BadInputError, match=r"no such thing \(HTTP 404\).*MANIFEST_UNKNOWN"):
        open_image(f"docker://{server.host}/nothing/here:v1")


def test_a_failed_write_leaves_nothing(server: Server, tmp_path: Path) -> None:
    """A layer that breaks off in the middle: the tag stays what it was, and uploads are given up."""
    image = simple_image()
    reference = pushed(server, "failing/app:v1", image, tmp_path)
    before = raw(reference)

    def broken() -> Iterator[bytes]:
        yield os.urandom(5 << 20)
        raise BadInputError("the source broke off")

    with open_image(reference) as source, using(Settings(chunk=1 << 20)):
        kept = keep_image(source)
        new = NewImage((*kept.layers, OutputLayer(10 << 20, broken)), kept.make_config)
        with pytest.raises(BadInputError, match="broke off"):
            write_image(new, parse_destination(reference))
    assert raw(reference) == before
    assert server.uploads("failing/app") == []


@pytest.fixture(scope="module")
def locked() -> Iterator[Server]:
    with ExitStack() as stack:
        yield start_registry(stack, password=True, tls=True)


def test_tls_and_passwords(
    locked: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reference = f"docker://{locked.host}/secret/app:v1"
    to = parse_destination(reference)
    archive = write_docker_archive(tmp_path / "a.tar", simple_image())
    with open_image(str(archive)) as source:
        new = keep_image(source)
        with pytest.raises(EnvironmentFailure, match=r"not to be trusted.*--registry-ca"):
            write_image(new, to)
        with using(Settings(ca=locked.ca)):
            with pytest.raises(EnvironmentFailure, match=f"log in first: docker login {locked.host}"):
                write_image(new, to)
            login = ["--tls-verify=false", "--authfile", str(tmp_path / "auth.json")]
            skopeo("login", *login, "-u", USER, "-p", PASSWORD, locked.host)
            monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
            written = write_image(new, to)
            with open_image(reference) as back:
                assert back.manifest_digest == written.manifest_digest
                assert len(back.layers[0].entries) == 7
    assert locked.ca is not None
    # The same from the command line, where the authority comes from SSL_CERT_FILE, from a folder, or from an option.
    copied = ["slim", reference, "--to", f"docker://{locked.host}/secret/slim:v1"]
    assert main([*copied, "--registry-ca", str(locked.ca)]) == 0
    certificates = tmp_path / "home/.config/containers/certs.d" / locked.host
    assert main(["inspect", reference]) == 4
    certificates.mkdir(parents=True)
    (certificates / "ca.crt").write_bytes(locked.ca.read_bytes())
    assert main(["inspect", reference]) == 0
    wrong = json.dumps({"auths": {locked.host: {"auth": "dGVzdGVyOndyb25nLXBhc3M="}}})
    (tmp_path / "auth.json").write_text(wrong)
    assert main(["--debug", "inspect", reference]) == 4
    shown = capfd.readouterr()
    assert "are not enough" in shown.err
    for secret in (PASSWORD, "wrong-pass", "dGVzdGVyOndyb25nLXBhc3M=", "dGVzdGVy"):
        assert secret not in shown.err + shown.out


def test_slim_within_a_registry(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The untouched layer is mounted, the slimmed one is sent; the original and its tag are as they were."""
    base = make_tar(directory("usr"), file("usr/data", os.urandom(50_000)))
    top = make_tar(
        directory("root"), directory("root/.cache"), directory("root/.cache/pip"),
        file("root/.cache/pip/wheel", os.urandom(20_000)), file("app.py", b"print()\n"),
    )  # fmt: skip
    reference = pushed(server, "whole/app:v1", make_image(base, top), tmp_path)
    before = raw(reference)
    assert main(["slim", reference, "--to", reference]) == 2
    assert "say --replace, which first gives that image the name" in capfd.readouterr().err
    to = f"docker://{server.host}/whole/app:slim"
    assert main(["slim", reference, "--to", to, "--all-layers", "--json", "-"]) == 0
    report = json.loads(capfd.readouterr().out)
    found = raw(to)
    assert raw(reference) == before
    assert found["layers"][0] == before["layers"][0]
    assert report["after"]["reference"] == to
    assert report["after"]["digest"] == found["config"]["digest"]
    assert report["after_bytes"] == report["predicted_bytes"] < report["before_bytes"] - 20_000
    with open_image(to) as slim:
        assert "root/.cache/pip/wheel" not in {entry.name for layer in slim.layers for entry in layer.entries}
        assert slim.config["config"]["Labels"]["deadweight.source"] == before["config"]["digest"]


def test_an_image_keeps_a_name(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """--replace: the tag goes to the slim image, and the original is at another; what we made may be replaced."""
    tar = make_tar(directory("root/.cache/pip"), file("root/.cache/pip/big", os.urandom(20_000)))
    reference = pushed(server, "names/app:v1", make_image(tar), tmp_path)
    before = raw(reference)
    assert main(["slim", reference, "--to", reference, "--replace", "--all-layers", "--json", "-"]) == 0
    report = json.loads(capfd.readouterr().out)
    name = reference.removeprefix("docker://")
    assert f"the image that was {name} is {name}-original now" in report["notes"]
    assert raw(f"{reference}-original") == before
    assert raw(reference)["config"]["digest"] == report["after"]["digest"] != before["config"]["digest"]
    assert main(["slim", f"{reference}-original", "--to", reference, "--all-layers"]) == 0
    assert server.tags("names/app") == {"v1", "v1-original"}
    # And back.
    slim = raw(reference)
    assert main(["rollback", reference, "--dry-run"]) == 0
    assert raw(reference) == slim
    assert main(["rollback", reference, "--json", "-"]) == 0
    assert raw(reference) == before
    assert raw(f"{reference}-slim") == slim
    assert main(["rollback", reference]) == 2  # the original is no slim image


def test_registry_to_layout_and_back(server: Server, tmp_path: Path) -> None:
    image = simple_image()
    reference = pushed(server, "layout/app:v1", image, tmp_path)
    with open_image(reference) as source:
        written = write_image(keep_image(source), parse_destination(f"oci:{tmp_path / 'out'}:v1"))
        assert written.manifest_digest == source.manifest_digest
        plain = write_image(keep_image(source), parse_destination(f"docker-archive:{tmp_path / 'out.tar'}"))
        assert plain.config_digest == image.config_digest
    blobs = {path.name for path in (tmp_path / "out/blobs/sha256").iterdir()}
    assert {layer["digest"][7:] for layer in raw(reference)["layers"]} <= blobs
    assert compress(image.layers[0], "gzip") in [(tmp_path / "out/blobs/sha256" / name).read_bytes() for name in blobs]


def many(server: Server, name: str, place: Path, *more: str) -> tuple[str, dict[str, Any], dict[str, FixtureImage]]:
    """An index of two platforms and an attestation, put there by skopeo; gives its reference, what it says, images."""
    blobs: dict[str, bytes] = {}
    images, entries = {}, []
    for architecture in ("amd64", "arm64"):
        cache = file("root/.cache/pip/wheel", os.urandom(20_000))
        tar = make_tar(directory("root/.cache/pip"), cache, file("app", architecture.encode()))
        images[architecture] = make_image(tar, architecture=architecture)
        platform = {"os": "linux", "architecture": architecture}
        entries.append(put_manifest(blobs, images[architecture], "gzip", platform=platform))
    attested = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": entries[0]["digest"],
    }
    nowhere = {"os": "unknown", "architecture": "unknown"}
    statement = make_image(make_tar(file("statement")), os="unknown", architecture="unknown")
    entries.append(put_manifest(blobs, statement, "gzip", platform=nowhere, annotations=attested))
    index = dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    top = put_blob(blobs, OCI_INDEX, index, annotations={"org.opencontainers.image.ref.name": "v"})
    folder = write_files(place / "many", layout_files([top], blobs))
    reference = f"docker://{server.host}/{name}"
    skopeo("copy", "-q", "--all", "--dest-tls-verify=false", *more, f"oci:{folder}:v", reference)
    return reference, raw(reference), images


@pytest.mark.parametrize("kind", ["oci", "v2s2"])
def test_every_platform(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    reference, before, images = many(
        server, f"many/{kind}:v1", tmp_path, *([f"--format={kind}"] if kind != "oci" else [])
    )
    signed = before["manifests"][0]["digest"].replace(":", "-") + ".sig"
    pushed(server, f"many/{kind}:{signed}", simple_image(), tmp_path)
    # One platform is picked where one is read.
    with open_image(reference, "linux/arm64") as arm:
        assert arm.config_digest == images["arm64"].config_digest
    to = f"docker://{server.host}/many/{kind}:slim"
    assert main(["slim", reference, "--to", to, "--all-platforms", "--all-layers", "--json", "-"]) == 0
    report = json.loads(capfd.readouterr().out)
    after = raw(to)
    assert raw(reference) == before
    assert after["mediaType"] == before["mediaType"]
    assert [one["platform"] for one in after["manifests"]] == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64"},
    ]
    assert [one["after"]["manifest_digest"] for one in report["platforms"]] == [
        one["digest"] for one in after["manifests"]
    ]
    told = skopeo("inspect", "--format={{.Digest}}", "--tls-verify=false", to).strip()
    assert report["after_digest"] == told
    for one in report["platforms"]:
        assert one["after_bytes"] == one["predicted_bytes"] < one["before_bytes"] - 20_000
    for architecture in ("amd64", "arm64"):
        with open_image(to, f"linux/{architecture}") as slim:
            names = {entry.name for layer in slim.layers for entry in layer.entries}
            assert "app" in names
            assert "root/.cache/pip/wheel" not in names
            source = slim.config["config"]["Labels"]["deadweight.source"]
            assert source == images[architecture].config_digest
    notes = " ".join(report["notes"])
    if kind == "oci":  # Docker's lists have no annotations: there it is told by its platform alone
        assert f"'attestation-manifest' {before['manifests'][2]['digest']}, which speaks of" in notes
    assert before["manifests"][2]["digest"] in notes
    assert signed in notes
    # Again, over what deadweight made; but not over the original.
    assert main(["slim", reference, "--to", to, "--all-platforms", "--all-layers"]) == 0
    assert "is the index of 2 images now" in capfd.readouterr().out
    assert main(["slim", reference, "--to", reference, "--all-platforms"]) == 2
    assert raw(reference) == before
    assert main(["rollback", to]) == 0
    assert raw(to) == before
    assert raw(f"{to}-slim") == after
    skopeo("copy", "-q", "--all", "--src-tls-verify=false", f"{to}-slim", f"oci:{tmp_path / 'back'}:slim")


def test_every_platform_of_one(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reference = pushed(server, "single/app:v1", simple_image(), tmp_path)
    to = f"docker://{server.host}/single/app:slim"
    assert main(["slim", reference, "--to", to, "--all-platforms"]) == 2
    assert "leave --all-platforms out" in capfd.readouterr().err
    assert main(["slim", reference, "--to", to, "--all-platforms", "--platform", "linux/amd64"]) == 2
    assert main(["slim", reference, "--to", f"oci:{tmp_path / 'o'}", "--all-platforms"]) == 2
    assert "skopeo copy --all" in capfd.readouterr().err
    assert server.tags("single/app") == {"v1"}
