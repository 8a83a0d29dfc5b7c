"""Opening images: every format that tools write, and every way in which one can be bad."""

from __future__ import annotations

import gzip
import json
import os
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deadweight.errors import BadInputError, DigestError, UsageError
from deadweight.image.filesystem import Filesystem
from deadweight.image.model import Image
from deadweight.image.transports import open_image
from support import images
from support.images import (
    Compression,
    FixtureImage,
    Json,
    Style,
    compress,
    docker_archive_members,
    dump,
    file,
    hardlink,
    layout_files,
    make_image,
    make_tar,
    oci_files,
    put_blob,
    put_manifest,
    simple_image,
    symlink,
    write_docker_archive,
    write_files,
    write_oci,
    write_oci_archive,
)

COMPRESSIONS: list[Compression] = ["none", "gzip", "zstd"]
STYLES: list[Style] = ["old", "skopeo", "25", "ggcr"]


def check(image: Image, fixture: FixtureImage) -> None:
    """Holds that `image` is the fixture, to the byte."""
    with image:
        assert image.config_digest == fixture.config_digest
        assert [layer.diff_id for layer in image.layers] == fixture.diff_ids
        for layer, data in zip(image.layers, fixture.layers, strict=True):
            layer.check()
            assert b"".join(layer.tar.chunks()) == data


def refused(call: Callable[[], Image], kind: type[Exception] = BadInputError, says: str = "") -> None:
    """Holds that opening (or the first look into a layer) is refused with one clear line."""

    def look() -> None:
        with call() as image:
            for layer in image.layers:
                layer.check()
                _ = layer.entries

    with pytest.raises(kind) as caught:
        look()
    message = str(caught.value)
    assert says in message, message
    assert "\n" not in message
    assert len(message) > 15


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_oci(tmp_path: Path, compression: Compression) -> None:
    fixture = simple_image()
    folder = write_oci(tmp_path / "layout", fixture, "v1", compression)
    for reference in (f"oci:{folder}", f"oci:{folder}:v1", str(folder)):
        image = open_image(reference)
        assert image.tag == "v1"
        assert image.manifest_digest
        check(image, fixture)
    archive = write_oci_archive(tmp_path / "a.tar", fixture, "v1", compression)
    for reference in (f"oci-archive:{archive}", f"oci-archive:{archive}:v1", str(archive)):
        check(open_image(reference), fixture)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("outer", COMPRESSIONS)
def test_docker_archive(tmp_path: Path, style: Style, compression: Compression, outer: Compression) -> None:
    same = make_tar(file("same", b"x"))
    fixture = make_image(same, make_tar(file("a")), same)
    path = write_docker_archive(tmp_path / "image.tar", fixture, "demo:1", style, compression, outer)
    for reference in (str(path), f"docker-archive:{path}", f"docker-archive:{path}:docker.io/library/demo:1"):
        image = open_image(reference)
        assert image.tag == "demo:1"
        check(image, fixture)


def compress_zstd(data: bytes) -> bytes:
    return compress(data, "zstd")


def test_streams_as_encoders_may_write_them(tmp_path: Path) -> None:
    data = make_tar(file("a", b"a" * 5000), file("b", os.urandom(3000)))
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
    streams = [
        gzip.compress(data[:4000]) + gzip.compress(data[4000:]),
        compress_zstd(data[:4000]) + compress_zstd(data[4000:]),
        skippable + compress_zstd(data) + skippable,
    ]
    for i, stream in enumerate(streams):
        fixture = make_image(data)
        members = docker_archive_members(fixture, "demo:1")
        members = [file(m.name, stream) if m.name.endswith("layer.tar") else m for m in members]
        path = tmp_path / f"{i}.tar"
        path.write_bytes(make_tar(*members))
        check(open_image(str(path)), fixture)


def test_no_layers(tmp_path: Path) -> None:
    fixture = make_image()
    check(open_image(f"oci:{write_oci(tmp_path / 'l', fixture)}"), fixture)
    check(open_image(f"docker-archive:{write_docker_archive(tmp_path / 'a', fixture)}"), fixture)


def several(**platforms: Json) -> tuple[dict[str, bytes], dict[str, FixtureImage]]:
    """A nested index of one image a platform, with an attestation, as buildx writes it."""
    blobs: dict[str, bytes] = {}
    built, entries = {}, []
    for name, platform in platforms.items():
        built[name] = make_image(make_tar(file(name)), **platform)
        entries.append(put_manifest(blobs, built[name], platform=platform))
    attestation = make_image(architecture="unknown", os="unknown")
    entries.append(
        put_manifest(
            blobs,
            attestation,
            platform={"os": "unknown", "architecture": "unknown"},
            annotations={"vnd.docker.reference.type": "attestation-manifest"},
        )
    )
    inner = dump({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": entries})
    return layout_files([put_blob(blobs, images.OCI_INDEX, inner)], blobs), built


AMD = {"os": "linux", "architecture": "amd64"}
ARM = {"os": "linux", "architecture": "arm64", "variant": "v8"}


@pytest.fixture(autouse=True)
def on_amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def test_platforms(tmp_path: Path) -> None:
    files, built = several(arm=ARM, amd=AMD)
    reference = f"oci:{write_files(tmp_path / 'layout', files)}"
    image = open_image(reference)
    assert image.notes == ("picked linux/amd64 of linux/arm64/v8, linux/amd64",)
    check(image, built["amd"])
    for asked in ("linux/arm64", "linux/arm64/v8", "linux/aarch64"):
        check(open_image(reference, asked), built["arm"])
    refused(lambda: open_image(reference, "linux/s390x"), says="there is linux/arm64/v8, linux/amd64")
    refused(lambda: open_image(reference, "linux/arm64/v9"))
    refused(lambda: open_image(reference, "linux"), UsageError, "os/architecture")


def test_another_platform_alone(tmp_path: Path) -> None:
    files, built = several(arm=ARM)
    reference = f"oci:{write_files(tmp_path / 'layout', files)}"
    image = open_image(reference)
    assert image.notes == ("the image is for linux/arm64/v8; this machine is linux/amd64",)
    check(image, built["arm"])
    refused(lambda: open_image(reference, "linux/amd64"), says="is for linux/arm64/v8")
    files, _ = several(arm=ARM, power={"os": "linux", "architecture": "ppc64le"})
    reference = f"oci:{write_files(tmp_path / 'two', files)}"
    refused(lambda: open_image(reference), UsageError, "--platform")
    archive = write_docker_archive(tmp_path / "a.tar", make_image(architecture="arm64"))
    with open_image(str(archive)) as image:
        assert "linux/arm64" in image.notes[0]
    refused(lambda: open_image(str(archive), "linux/amd64"))


def test_platforms_without_a_descriptor_of_them(tmp_path: Path) -> None:
    blobs: dict[str, bytes] = {}
    amd, arm = make_image(make_tar(file("a"))), make_image(architecture="arm64")
    files = layout_files([put_manifest(blobs, arm), put_manifest(blobs, amd)], blobs)
    check(open_image(f"oci:{write_files(tmp_path / 'layout', files)}"), amd)


def test_several_images(tmp_path: Path) -> None:
    blobs: dict[str, bytes] = {}
    one, two = make_image(make_tar(file("one"))), make_image(make_tar(file("two")))
    entries = [
        put_manifest(blobs, image, annotations={"org.opencontainers.image.ref.name": name})
        for name, image in (("one", one), ("two", two))
    ]
    folder = write_files(tmp_path / "layout", layout_files(entries, blobs))
    check(open_image(f"oci:{folder}:two"), two)
    check(open_image(f"oci:{folder}:{entries[0]['digest']}"), one)
    refused(lambda: open_image(f"oci:{folder}"), UsageError, "'one', 'two'")
    refused(lambda: open_image(f"oci:{folder}:three"), UsageError, "'one', 'two'")

    a, b = docker_archive_members(one, "demo:1"), docker_archive_members(two, None)
    manifest = json.loads(a[-1].data) + json.loads(b[-1].data)
    path = tmp_path / "two.tar"
    path.write_bytes(make_tar(*a[:-1], *b[:-1], file("manifest.json", dump(manifest))))
    check(open_image(f"docker-archive:{path}:demo:1"), one)
    check(open_image(f"docker-archive:{path}:@1"), two)
    refused(lambda: open_image(str(path)), UsageError, "'demo:1', '@1'")
    refused(lambda: open_image(f"docker-archive:{path}:other:1"), UsageError, "'demo:1', '@1'")
    refused(lambda: open_image(f"docker-archive:{path}:@7"), UsageError)


def blob_name(files: dict[str, bytes], kind: str) -> str:
    """The name of a layout's manifest, config or first layer."""
    manifest = "blobs/sha256/" + str(json.loads(files["index.json"])["manifests"][0]["digest"])[7:]
    if kind == "manifest":
        return manifest
    parsed = json.loads(files[manifest])
    described = parsed["config"] if kind == "config" else parsed["layers"][0]
    return "blobs/sha256/" + str(described["digest"])[7:]


def with_manifest(change: Callable[[Json], Any]) -> dict[str, bytes]:
    """A layout whose manifest is changed, all digests fitting."""
    files = oci_files(simple_image())
    manifest = json.loads(files.pop(blob_name(files, "manifest")))
    change(manifest)
    described = put_blob(files, images.OCI_MANIFEST, dump(manifest))
    return {**files, **layout_files([described])}


def with_index(change: Callable[[Json], Any]) -> dict[str, bytes]:
    files = oci_files(simple_image())
    index = json.loads(files["index.json"])
    change(index)
    return {**files, "index.json": dump(index)}


def with_blob(kind: str, change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    files = oci_files(simple_image(), compression="gzip")
    name = blob_name(files, kind)
    return {**files, name: change(files[name])}


def without(name: str) -> dict[str, bytes]:
    files = oci_files(simple_image())
    del files[blob_name(files, name) if name in ("manifest", "config", "layer") else name]
    return files


def set_at(*path: Any) -> Callable[[Json], None]:
    """A change: the last of `path` is put where the others lead."""

    def change(document: Any) -> None:
        for step in path[:-2]:
            document = document[step]
        document[path[-2]] = path[-1]

    return change


def flipped(data: bytes) -> bytes:
    return data[:-30] + bytes([data[-30] ^ 1]) + data[-29:]


SHA512 = "sha512:" + "a" * 128
BAD: dict[str, tuple[dict[str, bytes], type[Exception], str]] = {
    "no index.json": (without("index.json"), BadInputError, "index.json"),
    "no manifest": (without("manifest"), BadInputError, "missing"),
    "no config": (without("config"), BadInputError, "missing"),
    "no layer": (without("layer"), BadInputError, "missing"),
    "index no JSON": ({**oci_files(simple_image()), "index.json": b"{nope"}, BadInputError, "no JSON"),
    "index a list": ({**oci_files(simple_image()), "index.json": b"[]"}, BadInputError, "Expected `object`"),
    "index nested": ({**oci_files(simple_image()), "index.json": b"[" * 100_000}, BadInputError, "index.json"),
    "index not UTF-8": ({**oci_files(simple_image()), "index.json": b'{"manifests":"\xff"}'}, BadInputError, ""),
    "index huge": ({**oci_files(simple_image()), "index.json": b" " * (33 << 20)}, BadInputError, "limit"),
    "index empty": (layout_files([]), BadInputError, "no image"),
    "manifests an object": (with_index(set_at("manifests", {})), BadInputError, "Expected `array"),
    "size a string": (with_index(set_at("manifests", 0, "size", "5")), BadInputError, "Expected `int`"),
    "size wrong": (with_index(set_at("manifests", 0, "size", 5)), BadInputError, "where 5 are stated"),
    "size negative": (with_index(set_at("manifests", 0, "size", -5)), BadInputError, "negative"),
    "sha512": (with_index(set_at("manifests", 0, "digest", SHA512)), BadInputError, "not supported"),
    "digest with a path": (
        with_index(set_at("manifests", 0, "digest", "sha256:../../../etc/passwd")),
        BadInputError,
        "no digest",
    ),
    "digest absolute": (with_index(set_at("manifests", 0, "digest", "sha256:/etc/passwd")), BadInputError, "no digest"),
    "schema version": (with_index(set_at("schemaVersion", 3)), BadInputError, "version 3"),
    "index and manifest": (with_index(set_at("layers", [])), BadInputError, "both"),
    "manifest and index": (with_manifest(set_at("manifests", [])), BadInputError, "both"),
    "unknown manifest type": (
        with_index(set_at("manifests", 0, "mediaType", "application/x-new")),
        BadInputError,
        "application/x-new",
    ),
    "schema 1": (
        with_index(set_at("manifests", 0, "mediaType", "application/vnd.docker.distribution.manifest.v1+prettyjws")),
        BadInputError,
        "schema 1",
    ),
    "schema 1 inside": (with_manifest(set_at("schemaVersion", 1)), BadInputError, "schema 1"),
    "artifact": (
        with_manifest(set_at("config", "mediaType", "application/vnd.oci.empty.v1+json")),
        BadInputError,
        "application/vnd.oci.empty.v1+json",
    ),
    "layer type": (
        with_manifest(set_at("layers", 0, "mediaType", "application/x-squashfs")),
        BadInputError,
        "application/x-squashfs",
    ),
    "encrypted": (
        with_manifest(set_at("layers", 0, "mediaType", images.OCI_LAYER + "+gzip+encrypted")),
        BadInputError,
        "decrypt",
    ),
    "foreign": (
        with_manifest(
            set_at(
                "layers",
                0,
                {
                    "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                    "digest": "sha256:" + "1" * 64,
                    "size": 7,
                    "urls": ["https://example.org"],
                },
            )
        ),
        BadInputError,
        "foreign",
    ),
    "layers a string": (with_manifest(set_at("layers", "x")), BadInputError, "Expected `array"),
    "layer too few": (with_manifest(lambda m: m["layers"].pop()), BadInputError, "names 2 layers"),
    "layers too many": (with_manifest(lambda m: m["layers"].extend(m["layers"] * 600)), BadInputError, "limit"),
    "manifest changed": (with_blob("manifest", lambda d: d.replace(b"sha256", b"sha257", 1)), DigestError, "manifest"),
    "config changed": (with_blob("config", flipped), DigestError, "config"),
    "layer changed": (with_blob("layer", flipped), BadInputError, "layer 1"),
    "layer truncated": (with_blob("layer", lambda d: d[:-9]), BadInputError, "truncated"),
    "layout version": ({**oci_files(simple_image()), "oci-layout": b'{"imageLayoutVersion":"2.0"}'}, BadInputError, ""),
    "layout no JSON": ({**oci_files(simple_image()), "oci-layout": b"1"}, BadInputError, "oci-layout"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_layout(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # messages name the path, and pytest's paths name the test
    files, kind, says = BAD[name]
    write_files(tmp_path / "image", files)
    refused(lambda: open_image("oci:image"), kind, says)
    (tmp_path / "a.tar").write_bytes(make_tar(*(file(n, data) for n, data in files.items())))
    refused(lambda: open_image("oci-archive:a.tar"), kind, says)


def test_indexes_nested_without_end(tmp_path: Path) -> None:
    blobs: dict[str, bytes] = {}
    entry = put_manifest(blobs, simple_image())
    for _ in range(20):
        inner = dump({"schemaVersion": 2, "mediaType": images.OCI_INDEX, "manifests": [entry]})
        entry = put_blob(blobs, images.OCI_INDEX, inner)
    folder = write_files(tmp_path / "layout", layout_files([entry], blobs))
    refused(lambda: open_image(f"oci:{folder}"), says="deep")


def test_a_blob_that_is_a_link_is_refused(tmp_path: Path) -> None:
    files = oci_files(simple_image())
    folder = write_files(tmp_path / "layout", files)
    for kind in ("layer", "config", "manifest"):
        path = folder / blob_name(files, kind)
        path.rename(tmp_path / kind)
        path.symlink_to(tmp_path / kind)
        refused(lambda: open_image(f"oci:{folder}"), says="symbolic link")
        path.unlink()
        os.mkfifo(path)
        refused(lambda: open_image(f"oci:{folder}"), says="no regular file")
        path.unlink()
        (tmp_path / kind).rename(path)
    check(open_image(f"oci:{folder}"), simple_image())


def docker_with(change: Callable[[Any], Any]) -> bytes:
    members = docker_archive_members(simple_image(), "demo:1")
    manifest = json.loads(members[-1].data)
    manifest = change(manifest) or manifest
    return make_tar(*members[:-1], file("manifest.json", dump(manifest)))


GOOD = make_tar(*docker_archive_members(simple_image(), "demo:1"))
LAYER = make_tar(file("a"))


def links_to(*members: images.Member) -> bytes:
    config = make_image(LAYER)
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": ["layer.tar"]}]
    return make_tar(*members, file("c.json", config.config_bytes), file("manifest.json", dump(manifest)))


BAD_ARCHIVES: dict[str, tuple[bytes, type[Exception], str]] = {
    "empty": (b"", BadInputError, "empty"),
    "no tar": (b"hello" * 1000, BadInputError, "no sound tar"),
    "other tar": (LAYER, BadInputError, "neither manifest.json nor index.json"),
    "xz": (b"\xfd7zXZ\0" + b"x" * 100, BadInputError, "xz"),
    "cut in a member": (GOOD[:5000], BadInputError, "no sound tar"),
    "cut in a header": (GOOD[:700], BadInputError, ""),
    "cut gzip": (gzip.compress(GOOD)[:-20], BadInputError, "decompressed"),
    "cut zstd": (compress(GOOD, "zstd")[:-20], BadInputError, "decompressed"),
    "manifest no JSON": (make_tar(file("manifest.json", b"[{")), BadInputError, "no JSON"),
    "manifest an object": (make_tar(file("manifest.json", b"{}")), BadInputError, "Expected `array`"),
    "manifest empty": (make_tar(file("manifest.json", b"[]")), BadInputError, "no image"),
    "manifest null": (make_tar(file("manifest.json", b"[null]")), BadInputError, "Expected `object`"),
    "layers an object": (docker_with(lambda m: m[0].update(Layers={})), BadInputError, "Expected `array"),
    "config missing": (docker_with(lambda m: m[0].update(Config="x.json")), BadInputError, "missing"),
    "layer missing": (docker_with(lambda m: m[0]["Layers"].append("x/layer.tar")), BadInputError, "missing"),
    "layer climbs": (docker_with(lambda m: m[0].update(Layers=["../../etc/passwd"])), BadInputError, "climbs"),
    "layer absolute": (docker_with(lambda m: m[0].update(Layers=["/etc/passwd"])), BadInputError, "outside"),
    "config a folder": (
        docker_with(lambda m: m[0].update(Config=m[0]["Layers"][0].rpartition("/")[0])),
        BadInputError,
        "missing",
    ),
    "config changed": (GOOD.replace(b'"amd64"', b'"amd65"'), DigestError, "config"),
    "layer changed": (GOOD.replace(b"echo tool", b"echo fool"), DigestError, "layer 1"),
    "member climbs": (make_tar(file("../x"), *docker_archive_members(simple_image())), BadInputError, "climbs"),
    "link climbs": (links_to(symlink("layer.tar", "../../etc/passwd")), BadInputError, "outside"),
    "link absolute": (links_to(symlink("layer.tar", "/etc/passwd")), BadInputError, "outside"),
    "link loop": (links_to(symlink("layer.tar", "b"), symlink("b", "layer.tar")), BadInputError, "loop"),
    "link to itself": (links_to(symlink("layer.tar", "layer.tar")), BadInputError, "loop"),
    "hard link to nothing": (links_to(hardlink("layer.tar", "b")), BadInputError, "missing"),
    "fifo": (links_to(images.Member("layer.tar", tarfile.FIFOTYPE)), BadInputError, "fifo"),
}


@pytest.mark.parametrize("name", BAD_ARCHIVES)
def test_bad_archive(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, kind, says = BAD_ARCHIVES[name]
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # messages name the path, and pytest's paths name the test
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    refused(lambda: open_image("a.tar"), kind, says)
    assert list(tmp_path.iterdir()) == [path]


def test_the_last_of_equal_names_holds_and_hard_links_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(links_to(file("layer.tar", b"old"), file("b", LAYER), hardlink("layer.tar", "b")))
    check(open_image(str(path)), make_image(LAYER))


def test_the_wrong_transport_is_named(tmp_path: Path) -> None:
    docker = write_docker_archive(tmp_path / "d.tar", simple_image())
    oci = write_oci_archive(tmp_path / "o.tar", simple_image())
    refused(lambda: open_image(f"oci-archive:{docker}"), says="docker-archive:")
    refused(lambda: open_image(f"docker-archive:{oci}"), says="oci-archive:")
    refused(lambda: open_image(f"oci:{oci}"), says="oci-archive:")
    refused(lambda: open_image(f"docker-archive:{tmp_path}"))
    refused(lambda: open_image(f"docker-archive:{tmp_path}/absent"))
    refused(lambda: open_image(f"rootfs:{oci}"))


def test_files_are_closed_when_opening_fails(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "layout", without("layer"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(BadInputError):
            open_image(f"oci:{folder}")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_rootfs(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_files(root, {"etc/motd": b"hello\n", "usr/bin/tool": b"#!/bin/sh\n", "a-b": b"", "a/x": b"1"})
    (root / "usr/bin/tool").chmod(0o4755)
    (root / "same").hardlink_to(root / "usr/bin/tool")
    (root / "out").symlink_to("/etc")
    (root / ".wh.odd").write_bytes(b"")
    (root / "name-\udcff").write_bytes(b"not UTF-8")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    os.utime(root / "etc/motd", (1_600_000_000.5, 1_600_000_000.5))
    with open_image(f"rootfs:{root}") as image, open_image(f"rootfs:{root}") as again:
        assert image.config_digest == again.config_digest
        assert any("socket" in note for note in image.notes)
        assert any(".wh.odd" in note for note in image.notes)
        image.layers[0].check()
        view = Filesystem(image)
        assert view.read("etc/motd") == b"hello\n"
        nodes = view.nodes
        assert nodes["usr/bin/tool"].inode == nodes["same"].inode
        kept = nodes["usr/bin/tool"].source
        assert kept is not None
        assert kept.mode == 0o4755
        assert nodes["out"].kind == "symlink"
        assert nodes["pipe"].kind == "fifo"
        assert "name-\udcff" in nodes
        motd = nodes["etc/motd"].source
        assert motd is not None
        assert motd.mtime == 1_600_000_000
        assert set(nodes) == {
            "", "a", "a-b", "a/x", "etc", "etc/motd", "name-\udcff", "out", "pipe", "same", "usr", "usr/bin",
            "usr/bin/tool",
        }  # fmt: skip


def test_layers_are_not_read_to_open_an_image(tmp_path: Path) -> None:
    files = with_blob("layer", lambda d: b"\x1f\x8b" + bytes(len(d) - 2))
    with open_image(f"oci:{write_files(tmp_path / 'layout', files)}") as image:
        assert image.layers[0].compression == "gzip"
        assert not image.layers[0].checked


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(lambda: open_image(f"docker-archive:{tmp_path / 'pipe'}"), says="no regular file")
