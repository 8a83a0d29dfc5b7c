"""What deadweight writes, real tools take; what real tools write, deadweight reads.

skopeo, umoci, podman and a Docker engine of our own (its own folder, socket and process) on a container that runs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deadweight.image.compression import Compression
from deadweight.image.filesystem import Filesystem
from deadweight.image.model import Image
from deadweight.image.output import NewImage, OutputLayer, keep_image
from deadweight.image.reference import parse_destination
from deadweight.image.transports import open_image, write_image
from support.images import (
    FixtureImage,
    directory,
    dump,
    file,
    hardlink,
    make_image,
    make_tar,
    symlink,
    whiteout,
    write_docker_archive,
    write_oci,
)

COMPRESSIONS: list[Compression] = ["none", "gzip", "zstd"]
GREETING = "ready: 7 files\n"
HELLO = rf"""
#include <stdio.h>
int main(void) {{ fputs({json.dumps(GREETING)}, stdout); return 0; }}
"""
PODMAN_RUN = ("--runtime", "runc", "--cgroup-manager", "cgroupfs")


def need(*tools: str, root: bool = False) -> None:
    """Skips, with the reason, where a tool is missing; CI installs all of them."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (apt-get install skopeo umoci podman docker.io gcc)")
    if root and os.geteuid() != 0:
        pytest.skip("needs root")


def run(*command: str | Path) -> str:
    """A command's output. Its errors are shown when it fails."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def hello() -> bytes:
    """A static program, so that an image needs nothing else."""
    need("gcc")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hello.c").write_text(HELLO)
        run("gcc", "-static", "-Os", "-s", "-o", f"{folder}/hello", f"{folder}/hello.c")
        return (Path(folder) / "hello").read_bytes()


@pytest.fixture(scope="module")
def fixture(hello: bytes) -> FixtureImage:
    """An image that runs: links, whiteouts, and two equal layers."""
    again = make_tar(directory("app"), file("app/settings", b"x=1\n"))
    return make_image(
        make_tar(
            directory("bin"),
            file("bin/hello", hello, mode=0o755),
            hardlink("bin/hello2", "bin/hello", mode=0o755),
            directory("etc"),
            file("etc/gone", b"secret"),
            file("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
            symlink("sbin", "bin"),
        ),
        again,
        make_tar(whiteout("etc/gone"), file("etc/new", b"new\n")),
        again,
        run={"Entrypoint": ["/bin/hello"], "Env": ["PATH=/bin"], "Labels": {"a": "b"}, "User": "0"},
    )


@pytest.fixture(params=COMPRESSIONS)
def source(request: pytest.FixtureRequest, tmp_path: Path, fixture: FixtureImage) -> Iterator[Image]:
    """The fixture as an image, in each compression."""
    with open_image(f"oci:{write_oci(tmp_path / 'source', fixture, 'v1', request.param)}") as image:
        yield image


def edited(image: Image) -> NewImage:
    """The image with one new layer in place of the third: some streams, some kept blobs."""
    layers = list(keep_image(image).layers)
    data = make_tar(whiteout("etc/gone"), file("etc/new", b"newer\n"))
    layers[2] = OutputLayer(len(data), lambda: iter([data]), compression=image.layers[2].compression)

    def config(diff_ids: list[str]) -> bytes:
        return dump({**image.config, "rootfs": {"type": "layers", "diff_ids": diff_ids}})

    return NewImage(tuple(layers), config)


def write(new: NewImage, destination: str, **more: Any) -> str:
    """Writes; gives the image ID."""
    return write_image(new, parse_destination(destination), **more).config_digest


@pytest.mark.parametrize("to", ["docker-archive", "oci-archive", "oci"])
def test_skopeo_takes_what_we_write(tmp_path: Path, source: Image, to: str) -> None:
    need("skopeo")
    for name, new in (("kept", keep_image(source)), ("edited", edited(source))):
        place = f"{to}:{tmp_path / name}:demo:1"
        config = write(new, place)
        inspected = json.loads(run("skopeo", "inspect", place))
        assert len(inspected["Layers"]) == 4
        assert inspected["Labels"] == {"a": "b"}
        copies = [f"oci:{tmp_path / name}-copy:x"]
        if to == "docker-archive" or source.layers[0].compression != "zstd":
            copies.append(f"docker-archive:{tmp_path / name}-copy.tar:demo:2")  # skopeo converts no zstd for Docker
        for copy in copies:
            run("skopeo", "copy", "--insecure-policy", place, copy)
            # skopeo converts between Docker's and OCI's configuration, so only the layers can be held equal.
            with open_image(copy) as image, open_image(place) as ours:
                assert ours.config_digest == config
                assert image.config["rootfs"] == ours.config["rootfs"]
                for layer in image.layers:
                    layer.check()


def new_rootfs(place: str) -> Any:
    """The layers that the configuration of what was written names."""
    with open_image(place) as image:
        return image.config["rootfs"]


@pytest.mark.parametrize("source", ["none", "gzip"], indirect=True)  # umoci 0.4 reads no zstd layers
def test_umoci_unpacks_what_we_write(tmp_path: Path, source: Image) -> None:
    need("umoci", root=True)
    write(edited(source), f"oci:{tmp_path / 'layout'}:v1")
    run("umoci", "unpack", "--image", f"{tmp_path / 'layout'}:v1", tmp_path / "bundle")
    write(edited(source), f"rootfs:{tmp_path / 'ours'}")
    theirs, ours = (listing(folder) for folder in (tmp_path / "bundle/rootfs", tmp_path / "ours"))
    assert theirs == ours
    assert ours["etc/new"][2] == b"newer\n"


def listing(root: Path) -> dict[str, tuple[Any, ...]]:
    """What a tree holds: mode, owner, content or target, and which names are one file."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        content: Any = None
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = path.read_bytes()
        mtime = 0 if path.is_dir() else status.st_mtime
        links = 0 if path.is_dir() else status.st_nlink
        found[str(path.relative_to(root))] = (status.st_mode, (status.st_uid, status.st_gid), content, mtime, links)
    return found


def test_we_read_what_umoci_writes(tmp_path: Path) -> None:
    need("umoci", root=True)
    layout = tmp_path / "layout"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:v1")
    bundle = tmp_path / "bundle"
    run("umoci", "unpack", "--image", f"{layout}:v1", bundle)
    (bundle / "rootfs/opt").mkdir()
    (bundle / "rootfs/opt/data").write_bytes(b"from umoci")
    (bundle / "rootfs/opt/gone").write_bytes(b"")
    run("umoci", "repack", "--refresh-bundle", "--image", f"{layout}:v1", bundle)
    (bundle / "rootfs/opt/gone").unlink()
    run("umoci", "repack", "--image", f"{layout}:v1", bundle)
    with open_image(f"oci:{layout}:v1") as image:
        assert len(image.layers) == 2
        assert Filesystem(image).read("opt/data") == b"from umoci"
        assert "opt/gone" not in Filesystem(image).nodes
        write(keep_image(image), f"docker-archive:{tmp_path / 'a.tar'}:demo:1")
        with open_image(f"docker-archive:{tmp_path / 'a.tar'}") as again:
            assert again.config_bytes == image.config_bytes


@pytest.mark.parametrize("to", ["docker-archive", "oci-archive"])
def test_podman_loads_and_runs_it(tmp_path: Path, source: Image, to: str) -> None:
    need("podman", "runc", root=True)
    new = edited(source)
    config = write(new, f"{to}:{tmp_path / 'a.tar'}:localhost/demo:1")
    with tempfile.TemporaryDirectory(prefix="deadweight-podman-", dir="/var/tmp") as folder:
        podman = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        try:
            loaded = run(*podman, "load", "-i", tmp_path / "a.tar")
            assert "localhost/demo:1" in loaded
            assert "sha256:" + run(*podman, "image", "inspect", "--format", "{{.Id}}", "demo:1").strip() == config
            limits = ["--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000", "--network", "none"]
            assert run(*podman, *PODMAN_RUN, "run", "--rm", *limits, "demo:1") == GREETING
            if to == "docker-archive":
                for form in ("docker-archive", "oci-archive"):
                    run(*podman, "save", "--format", form, "-o", f"{folder}/{form}.tar", "demo:1")
                    with open_image(f"{form}:{folder}/{form}.tar") as image:
                        assert Filesystem(image).read("etc/new") == b"newer\n"
                        assert image.config["rootfs"] == new_rootfs(f"{to}:{tmp_path / 'a.tar'}")
        finally:
            subprocess.run([*podman, "unshare", "true"], check=False, capture_output=True)
            subprocess.run([*podman, "rmi", "--all", "--force"], check=False, capture_output=True)


@pytest.fixture(scope="module")
def docker() -> Iterator[list[str]]:
    """The command line of a Docker engine of our own."""
    need("dockerd", "docker", "runc", root=True)
    with tempfile.TemporaryDirectory(prefix="deadweight-docker-", dir="/var/tmp") as folder:
        socket = f"unix://{folder}/docker.sock"
        places = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
        offline = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
        log = Path(folder, "log").open("wb")
        with log, subprocess.Popen(["dockerd", "-H", socket, *places, *offline], stdout=log, stderr=log) as engine:
            command = ["docker", "-H", socket]
            try:
                for _ in range(150):
                    if subprocess.run([*command, "version"], check=False, capture_output=True).returncode == 0:
                        break
                    if engine.poll() is not None:
                        break
                    time.sleep(0.2)
                else:
                    pytest.fail("dockerd did not start in 30 seconds")
                if engine.poll() is not None:
                    pytest.fail(f"dockerd ended: {Path(folder, 'log').read_text()[-500:]}")
                yield command
            finally:
                engine.terminate()
                engine.wait(60)


def test_docker_loads_and_runs_it(tmp_path: Path, source: Image, docker: list[str]) -> None:
    for i, new in enumerate((keep_image(source), edited(source))):
        config = write(new, f"docker-archive:{tmp_path / f'{i}.tar'}:demo:{i}")
        assert f"demo:{i}" in run(*docker, "load", "-i", tmp_path / f"{i}.tar")
        found = json.loads(run(*docker, "image", "inspect", f"demo:{i}"))[0]
        assert found["Id"] == config
        assert found["Config"]["Labels"] == {"a": "b"}
        assert run(*docker, "run", "--rm", "--network", "none", f"demo:{i}") == GREETING
        run(*docker, "save", f"demo:{i}", "-o", tmp_path / f"saved-{i}.tar")
        with open_image(f"docker-archive:{tmp_path / f'saved-{i}.tar'}:demo:{i}") as image:
            assert image.config_digest == config
            assert image.tag == f"demo:{i}"
            for layer in image.layers:
                layer.check()
        run(*docker, "rmi", f"demo:{i}")


def test_docker_loads_gzipped_layers(tmp_path: Path, source: Image, docker: list[str]) -> None:
    config = write(edited(source), f"docker-archive:{tmp_path / 'a.tar'}:gz:1", compression="gzip")
    run(*docker, "load", "-i", tmp_path / "a.tar")
    assert json.loads(run(*docker, "image", "inspect", "gz:1"))[0]["Id"] == config
    run(*docker, "rmi", "gz:1")


def test_we_read_several_images_of_docker_save(tmp_path: Path, fixture: FixtureImage, docker: list[str]) -> None:
    other = make_image(make_tar(file("other", b"x")))
    for i, image in enumerate((fixture, other)):
        run(*docker, "load", "-i", write_docker_archive(tmp_path / f"{i}.tar", image, f"many:{i}", "skopeo"))
    run(*docker, "save", "many:0", "many:1", "-o", tmp_path / "both.tar")
    for i, image in enumerate((fixture, other)):
        with open_image(f"docker-archive:{tmp_path / 'both.tar'}:many:{i}") as opened:
            assert opened.config_digest == image.config_digest
            for layer in opened.layers:
                layer.check()


def test_what_skopeo_writes_we_read(tmp_path: Path, fixture: FixtureImage) -> None:
    need("skopeo")
    place = f"oci:{write_oci(tmp_path / 'source', fixture, 'v1')}:v1"
    for to in (
        f"docker-archive:{tmp_path / 'd.tar'}:demo:1",
        f"oci-archive:{tmp_path / 'o.tar'}:x",
        f"oci:{tmp_path / 'o'}:x",
    ):
        run("skopeo", "copy", "--insecure-policy", place, to)
        with open_image(to) as image:
            assert image.config["rootfs"] == fixture.config["rootfs"]
            assert Filesystem(image).read("etc/new") == b"new\n"
            for layer in image.layers:
                layer.check()
