"""Writing images: what goes in comes out, byte for byte, and a failure leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deadweight.errors import (
    BadInputError,
    DeadweightError,
    DigestError,
    EnvironmentFailure,
    UsageError,
)
from deadweight.image.compression import Compression
from deadweight.image.filesystem import Filesystem
from deadweight.image.output import NewImage, OutputLayer, PredictionError, Written, keep_image
from deadweight.image.reference import parse_destination
from deadweight.image.transports import CompressionChoice, open_image, write_image
from deadweight.image.transports import write as write_module
from support.images import (
    FixtureImage,
    Member,
    directory,
    dump,
    file,
    hardlink,
    make_image,
    make_tar,
    opaque,
    simple_image,
    symlink,
    whiteout,
    write_docker_archive,
    write_oci,
    write_oci_archive,
    xattr,
)

COMPRESSIONS: list[Compression] = ["none", "gzip", "zstd"]
SOURCES: dict[str, Callable[[Path, FixtureImage, Compression], str]] = {
    "docker-archive": lambda d, i, c: f"docker-archive:{write_docker_archive(d / 's.tar', i, 'demo:1', 'old', c)}",
    "docker-25": lambda d, i, c: f"docker-archive:{write_docker_archive(d / 's.tar', i, 'demo:1', '25', c)}",
    "oci-archive": lambda d, i, c: f"oci-archive:{write_oci_archive(d / 's.tar', i, 'demo:1', c)}",
    "oci": lambda d, i, c: f"oci:{write_oci(d / 's', i, 'demo:1', c)}",
}


def write(new: NewImage, destination: str | Path, choice: CompressionChoice = "keep", **more: Any) -> Written:
    return write_image(new, parse_destination(str(destination)), compression=choice, **more)


def new_image(*layers: bytes, chunk: int = 1000, compression: Compression = "none", tag: str | None = None) -> NewImage:
    """An image of new layers, whose streams come in small chunks."""

    def pieces(data: bytes) -> Callable[[], Iterator[bytes]]:
        return lambda: (data[i : i + chunk] for i in range(0, len(data), chunk))

    def config(diff_ids: list[str]) -> bytes:
        return dump({**make_image(*layers).config, "rootfs": {"type": "layers", "diff_ids": diff_ids}})

    outputs = tuple(OutputLayer(len(data), pieces(data), compression=compression) for data in layers)
    return NewImage(outputs, config, tag)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("to", ["docker-archive", "oci-archive", "oci"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_round_trip(tmp_path: Path, source: str, to: str, compression: Compression) -> None:
    fixture = simple_image()
    done: list[int] = []
    with open_image(SOURCES[source](tmp_path, fixture, compression)) as image:
        written = write(keep_image(image), f"{to}:{tmp_path / 'out'}", progress=done.append)
        blobs = [b"".join(layer.blob.chunks()) for layer in image.layers]
    assert done == sorted(done)
    assert done[-1] == sum(map(len, fixture.layers)) == sum(written.sizes)
    assert written.config_digest == fixture.config_digest
    assert list(written.diff_ids) == fixture.diff_ids
    with open_image(f"{to}:{tmp_path / 'out'}") as image:
        assert image.config_bytes == fixture.config_bytes
        assert image.tag == "demo:1"
        for layer, data, blob, stored in zip(image.layers, fixture.layers, blobs, written.stored_sizes, strict=True):
            layer.check()
            assert b"".join(layer.tar.chunks()) == data
            assert b"".join(layer.blob.chunks()) == (data if to == "docker-archive" else blob)
            assert layer.blob.size == stored
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name]


@pytest.mark.parametrize("to", ["docker-archive", "oci-archive", "oci"])
@pytest.mark.parametrize("choice", COMPRESSIONS)
def test_new_layers_and_determinism(tmp_path: Path, to: str, choice: Compression) -> None:
    layers = (make_tar(file("a", os.urandom(5000))), make_tar(), make_tar(file("b", b"b" * 3_000_000)))
    written = [
        write(new_image(*layers, chunk=chunk), f"{to}:{tmp_path / name}", choice)
        for name, chunk in (("one", 7), ("two", 2 << 20))
    ]
    with open_image(f"{to}:{tmp_path / 'one'}") as image:
        assert [layer.compression for layer in image.layers] == [choice] * 3
        assert [b"".join(layer.tar.chunks()) for layer in image.layers] == list(layers)
    assert written[0].diff_ids == written[1].diff_ids
    if to != "oci" and choice == "none":
        assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_new_layer_keeps_its_compression(tmp_path: Path) -> None:
    new = new_image(make_tar(file("a", b"a" * 9000)), compression="zstd")
    write(new, f"oci:{tmp_path / 'o'}")
    write(new, f"docker-archive:{tmp_path / 'd'}")
    with open_image(f"oci:{tmp_path / 'o'}") as oci, open_image(f"docker-archive:{tmp_path / 'd'}") as docker:
        assert oci.layers[0].compression == "zstd"
        assert docker.layers[0].compression == "none"


def test_an_untouched_blob_is_never_recompressed_in_a_layout(tmp_path: Path) -> None:
    fixture = simple_image()
    with open_image(f"oci:{write_oci(tmp_path / 's', fixture, 'v', 'zstd')}") as image:
        for choice in ("none", "gzip"):
            write(keep_image(image), f"oci:{tmp_path / choice}", choice)
            with open_image(f"oci:{tmp_path / choice}") as out:
                assert [a.digest for a in out.layers] == [a.digest for a in image.layers]
        write(keep_image(image), f"docker-archive:{tmp_path / 'gz.tar'}", "gzip")
    with open_image(f"docker-archive:{tmp_path / 'gz.tar'}") as image:
        assert [layer.compression for layer in image.layers] == ["gzip", "gzip"]
        assert image.config_digest == fixture.config_digest


def test_equal_layers_are_stored_once(tmp_path: Path) -> None:
    layer = make_tar(file("a", b"x" * 100_000))
    write(new_image(layer, make_tar(), layer, make_tar()), f"docker-archive:{tmp_path / 'a.tar'}")
    assert (tmp_path / "a.tar").stat().st_size < 2 * len(layer)
    with open_image(f"docker-archive:{tmp_path / 'a.tar'}") as image:
        assert [b"".join(a.tar.chunks()) for a in image.layers] == [layer, make_tar(), layer, make_tar()]
    write(new_image(), f"docker-archive:{tmp_path / 'none.tar'}")
    with open_image(f"docker-archive:{tmp_path / 'none.tar'}") as image:
        assert image.layers == ()


def test_a_layer_of_more_than_8_gib_has_a_header_that_tar_reads() -> None:
    from deadweight.image.transports.store import tar_header

    info = tarfile.TarInfo.frombuf(tar_header("blobs/sha256/" + "a" * 64, 9 << 30), "utf-8", "strict")
    assert (info.size, len(tar_header("x", 9 << 30))) == (9 << 30, 512)


@pytest.mark.parametrize(
    ("destination", "source_tag", "names", "repo_tags"),
    [
        ("docker-archive:x:a:1", "demo:1", ("docker.io/library/a:1", "1"), ["a:1"]),
        ("docker-archive:x", "demo:1", ("docker.io/library/demo:1", "1"), ["demo:1"]),
        ("docker-archive:x:h:5/a/b:c", None, ("h:5/a/b:c", "c"), ["h:5/a/b:c"]),
        ("docker-archive:x", "latest", (None, None), None),
        ("docker-archive:x", None, (None, None), None),
        ("oci-archive:x:v2", "demo:1", (None, "v2"), None),
        ("oci-archive:x", "demo:1", ("docker.io/library/demo:1", "1"), None),
        ("oci-archive:x", "v1", (None, "v1"), None),
    ],
)
def test_names(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    destination: str,
    source_tag: str | None,
    names: tuple[str | None, str | None],
    repo_tags: list[str] | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(new_image(make_tar(), tag=source_tag), destination)
    with tarfile.open("x") as archive:

        def load(name: str) -> Any:
            member = archive.extractfile(name)
            assert member is not None
            return json.loads(member.read())

        annotations = load("index.json")["manifests"][0].get("annotations", {})
        assert annotations.get("io.containerd.image.name") == names[0]
        assert annotations.get("org.opencontainers.image.ref.name") == names[1]
        if destination.startswith("docker"):
            assert load("manifest.json")[0]["RepoTags"] == repo_tags


def test_a_layout_gains_images(tmp_path: Path) -> None:
    one, two, three = (make_tar(file(name)) for name in ("one", "two", "three"))
    place = tmp_path / "layout"
    write(new_image(one), f"oci:{place}:one")
    write(new_image(one, two), f"oci:{place}:two")
    write(new_image(three), f"oci:{place}:one")
    for tag, layers in (("one", [three]), ("two", [one, two])):
        with open_image(f"oci:{place}:{tag}") as image:
            assert [b"".join(layer.tar.chunks()) for layer in image.layers] == layers
    with pytest.raises(UsageError, match="oci:DIR:TAG"):
        write(new_image(one), f"oci:{place}")
    before = snapshot(tmp_path)
    with pytest.raises(RuntimeError):
        write(failing(), f"oci:{place}:three")
    assert snapshot(tmp_path) == before


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def failing(error: BaseException | None = None) -> NewImage:
    """An image whose second layer breaks midway."""

    def broken() -> Iterator[bytes]:
        yield b"a" * 2_000_000
        raise error or RuntimeError("midway")

    first = new_image(make_tar(file("kept")))
    return NewImage((*first.layers, OutputLayer(4_000_000, broken)), first.make_config)


DESTINATIONS = ["docker-archive:out", "oci-archive:out", "oci:out", "rootfs:out"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_nothing_is_left_behind(here: Path, destination: str) -> None:
    cases: list[tuple[NewImage, type[BaseException], str]] = [
        (failing(), RuntimeError, "midway"),
        (failing(KeyboardInterrupt("stop")), KeyboardInterrupt, "stop"),
        (failing(BadInputError("the layer is bad")), BadInputError, "bad"),
        (failing(OSError(errno.ENOSPC, "No space left on device")), EnvironmentFailure, "free some"),
        (failing(OSError(errno.EDQUOT, "Disk quota exceeded")), EnvironmentFailure, "free some"),
        (failing(OSError(errno.EIO, "Input/output error")), EnvironmentFailure, "out"),
    ]
    for new, kind, says in cases:
        with pytest.raises(kind, match=says):
            write(new, destination)
        assert list(here.iterdir()) == []


@pytest.mark.parametrize("destination", DESTINATIONS)
@pytest.mark.parametrize("difference", [-1, 1, 512])
def test_a_wrong_prediction_is_loud(here: Path, destination: str, difference: int) -> None:
    data = make_tar(file("a", b"x" * 3_000_000))
    layer = OutputLayer(len(data) + difference, lambda: iter([data]))
    with pytest.raises(PredictionError, match=f"predicted {len(data) + difference:,} bytes, built"):
        write(NewImage((layer,), new_image(data).make_config), destination)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_a_configuration_of_other_layers_is_refused(here: Path, destination: str) -> None:
    new = new_image(make_tar())
    with pytest.raises(DeadweightError):
        write(NewImage(new.layers, lambda _: make_image().config_bytes), destination)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("destination", DESTINATIONS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_damaged_untouched_layer_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, destination: str, compression: Compression
) -> None:
    (tmp_path / "to").mkdir()
    monkeypatch.chdir(tmp_path / "to")
    folder = write_oci(tmp_path / "s", simple_image(), "v", compression)
    with open_image(f"oci:{folder}") as image:
        new = keep_image(image)
        path = folder / "blobs/sha256" / str(image.layers[0].digest)[7:]
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)  # in place: after it was opened, and unpacked where compressed
        if destination.partition(":")[0] in ("docker-archive", "rootfs") and compression != "none":
            write(new, destination)  # taken from what was unpacked and checked before
        else:
            with pytest.raises(DigestError, match="layer 1"):
                write(new, destination)
            assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("destination", DESTINATIONS)
def test_a_damaged_layer_without_a_blob_digest_is_not_copied(here: Path, destination: str) -> None:
    archive = write_docker_archive(here / "s.tar", simple_image())
    archive.write_bytes(archive.read_bytes().replace(b"echo tool", b"echo fool"))
    with open_image(f"docker-archive:{archive}") as image, pytest.raises(DigestError, match="layer 1"):
        write(keep_image(image), destination)
    assert list(here.iterdir()) == [archive]


def test_what_is_there_is_not_overwritten(here: Path) -> None:
    new = new_image(make_tar(file("a")))
    (here / "file").write_bytes(b"precious")
    (here / "dir").mkdir()
    (here / "dir/file").write_bytes(b"precious")
    (here / "link").symlink_to("file")
    before = snapshot(here)
    for destination in (
        "docker-archive:file", "oci-archive:file", "oci:file", "rootfs:file", "docker-archive:dir", "oci:dir",
        "rootfs:dir", "docker-archive:link", "docker-archive:absent/file", "oci:absent/dir", "rootfs:absent/dir",
    ):  # fmt: skip
        with pytest.raises(UsageError):
            write(new, destination)
        assert snapshot(here) == before
    with pytest.raises(UsageError):
        write(new, "docker-archive:dir", force=True)
    write(new, "docker-archive:file", force=True)
    (here / "empty").mkdir()
    write(new, "oci:empty")
    (here / "empty2").mkdir()
    write(new, "rootfs:empty2")
    with open_image("docker-archive:file") as image:
        write(keep_image(image), "docker-archive:file", force=True)
    with open_image("docker-archive:file") as image:
        assert len(image.layers) == 1


def test_modes_follow_the_umask(here: Path) -> None:
    old = os.umask(0o027)
    try:
        write(new_image(make_tar()), "oci:layout")
        write(new_image(make_tar()), "docker-archive:a.tar")
    finally:
        os.umask(old)
    modes = [stat.S_IMODE((here / name).stat().st_mode) for name in ("layout", "layout/index.json", "a.tar")]
    assert modes == [0o750, 0o640, 0o640]


def test_too_little_space_is_said_beforehand(here: Path) -> None:
    def never() -> Iterator[bytes]:
        raise AssertionError("nothing should have been read")
        yield b""

    for destination in DESTINATIONS:
        with pytest.raises(
            EnvironmentFailure, match=r"1,000,000,000,000,000,000 bytes are needed, [\d,]+ are available"
        ):
            write(NewImage((OutputLayer(10**18, never),), lambda _: b""), destination)
    assert list(here.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
@pytest.mark.parametrize("destination", DESTINATIONS)
@pytest.mark.parametrize("choice", ["keep", "zstd"])
def test_a_full_disk(tmp_path: Path, destination: str, choice: CompressionChoice, monkeypatch: Any) -> None:
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], check=True)
    try:
        monkeypatch.setattr(write_module, "need_space", lambda *_: None)
        monkeypatch.setattr("deadweight.image.transports.unpack.need_space", lambda *_: None)
        transport, _, name = destination.partition(":")
        data = make_tar(file("a", os.urandom(5_000_000)))
        with pytest.raises(EnvironmentFailure, match="free some"):
            write(new_image(data), f"{transport}:{place / name}", choice)
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_permission(tmp_path: Path) -> None:
    script = (
        "import os,sys\n"
        "from deadweight.image.output import NewImage; from deadweight.image.transports import write_image\n"
        "from deadweight.image.reference import parse_destination\n"
        "from deadweight.errors import EnvironmentFailure\n"
        "os.setuid(65534)  # once all is imported: the interpreter may lie in root's home\n"
        "try: write_image(NewImage((), lambda _: b'{}'), parse_destination(sys.argv[1]))\n"
        "except EnvironmentFailure as e: print(e)\n"
    )
    place = Path("/var/tmp") / f"deadweight-test-{os.getpid()}"
    place.mkdir(mode=0o755)
    try:
        for destination in DESTINATIONS:
            transport, _, name = destination.partition(":")
            done = subprocess.run(
                [sys.executable, "-c", script, f"{transport}:{place / name}"],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            assert "may not write" in done.stdout, done.stdout + done.stderr
        assert list(place.iterdir()) == []
    finally:
        shutil.rmtree(place)


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import sys,time; from deadweight.image.output import *\n"
        "from deadweight.image.transports import write_image\n"
        "from deadweight.image.reference import parse_destination\n"
        "def slow():\n"
        "    while True:\n"
        "        yield bytes(1<<20); print('x', flush=True); time.sleep(0.05)\n"
        "write_image(NewImage((OutputLayer(1<<30, slow),), lambda _: b'{}'), parse_destination(sys.argv[1]))\n"
    )
    for destination in DESTINATIONS:
        with subprocess.Popen(
            [sys.executable, "-c", script, destination], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert list(tmp_path.iterdir()) != []
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=20)
            assert b"KeyboardInterrupt" in error
        assert list(tmp_path.iterdir()) == []


RICH = [
    directory("etc", mode=0o750, mtime=1_500_000_000),
    file("etc/a", b"lower", mode=0o640, uid=10, gid=20, mtime=1_500_000_001),
    file("etc/gone", b"gone"),
    directory("opaque"),
    file("opaque/old", b"old"),
    file("bin/su", b"su", mode=0o4755, uid=3, pax=xattr("user.note", b"\xff\x00binary")),
    symlink("link", "/etc"),
    Member("pipe", tarfile.FIFOTYPE),
    directory("locked", mode=0o555),
    file("locked/x", b"x", mode=0o000),
    file("empty"),
]
UPPER = [
    whiteout("etc/gone"),
    opaque("opaque"),
    file("opaque/new", b"new"),
    hardlink("bin/su2", "bin/su"),
    hardlink("link2", "link"),
    file("etc/a", b"upper", mode=0o600, mtime=-5),
]


def tree(root: Path) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        content: Any = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        attributes = {n: os.getxattr(path, n, follow_symlinks=False) for n in os.listxattr(path, follow_symlinks=False)}
        owner = (status.st_uid, status.st_gid)
        found[str(path.relative_to(root))] = (status.st_mode, *owner, int(status.st_mtime), content, attributes)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")
def test_unpacking(tmp_path: Path) -> None:
    new = new_image(make_tar(*RICH), make_tar(*UPPER))
    written = write(new, f"rootfs:{tmp_path / 'root'}")
    root = tmp_path / "root"
    assert written.manifest_digest is None
    assert written.notes == ()
    found = tree(root)
    assert set(found) == {
        ".", "etc", "etc/a", "opaque", "opaque/new", "bin", "bin/su", "bin/su2", "link", "link2", "pipe", "locked",
        "locked/x", "empty",
    }  # fmt: skip
    assert found["etc/a"] == (stat.S_IFREG | 0o600, 0, 0, -5, b"upper", {})
    assert found["etc"] == (stat.S_IFDIR | 0o750, 0, 0, 1_500_000_000, None, {})
    assert found["bin/su"][0:3] == (stat.S_IFREG | 0o4755, 3, 0)
    assert found["bin/su"][5] == {"user.note": b"\xff\x00binary"}
    assert found["link"][4] == "/etc"
    assert (root / "bin/su").stat().st_ino == (root / "bin/su2").stat().st_ino
    assert (root / "link").lstat().st_ino == (root / "link2").lstat().st_ino
    assert stat.S_ISFIFO(found["pipe"][0])
    # and packed again it is the same merged view
    with open_image(f"rootfs:{root}") as image:
        write(keep_image(image), f"rootfs:{tmp_path / 'again'}")
    assert tree(tmp_path / "again") == found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_unpacking_as_a_normal_user(tmp_path: Path) -> None:
    place = Path("/var/tmp") / f"deadweight-user-{os.getpid()}"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    layer = make_tar(*RICH, Member("null", tarfile.CHRTYPE, device=(1, 3)))
    archive = write_docker_archive(place / "image.tar", make_image(layer))
    archive.chmod(0o644)
    script = (
        "import os,sys\n"
        "from deadweight.image.output import keep_image\n"
        "from deadweight.image.transports import open_image, write_image\n"
        "from deadweight.image.reference import parse_destination\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "w = write_image(keep_image(open_image(sys.argv[1])), parse_destination(sys.argv[2])); print(*w.notes)\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, str(archive), f"rootfs:{place / 'root'}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "owner of" in done.stdout
        assert "1 devices" in done.stdout
        assert (place / "root/etc/gone").read_bytes() == b"gone"
        assert not (place / "root/null").exists()
    finally:
        shutil.rmtree(place)


def test_sparse_files_are_expanded(tmp_path: Path) -> None:
    if shutil.which("tar") is None:
        pytest.skip("GNU tar makes the sparse entries")
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as out:
        out.seek(1 << 20)
        out.write(b"middle")
        out.seek(3 << 20)
        out.write(b"end")
        out.truncate(5 << 20)
    for form in ("gnu", "posix"):
        layer = subprocess.run(
            ["tar", "-S", "-c", f"--format={form}", "-C", source, "sparse"], check=True, capture_output=True
        ).stdout
        assert len(layer) < 100_000
        write(new_image(layer), f"rootfs:{tmp_path / form}")
        assert (tmp_path / form / "sparse").read_bytes() == (source / "sparse").read_bytes()


HOSTILE = {
    "through a link": ([symlink("d", "/tmp"), file("d/evil", b"x")], BadInputError),
    "link in a lower layer": ([symlink("d", "../../..")], [file("d/evil", b"x")], BadInputError),
    "climbing": ([file("../evil", b"x")], BadInputError),
    "absolute": ([file("/evil", b"x")], BadInputError),
    "hard link out": ([hardlink("x", "../../../etc/passwd")], BadInputError),
    "hard link through a link": ([symlink("d", "/etc"), hardlink("x", "d/passwd")], BadInputError),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    *layers, kind = HOSTILE[name]
    place = tmp_path / "a/b/c"
    place.mkdir(parents=True)
    with pytest.raises(kind):  # type: ignore[arg-type]
        write(new_image(*(make_tar(*members) for members in layers)), f"rootfs:{place / 'root'}")  # type: ignore[misc]
    assert [p for p in tmp_path.rglob("*") if not p.is_dir()] == []
    assert list(place.iterdir()) == []


def test_links_may_point_anywhere_but_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    outside.chmod(0o600)
    write(new_image(make_tar(symlink("x", str(outside), mtime=5), hardlink("y", "x"))), f"rootfs:{tmp_path / 'root'}")
    assert outside.read_bytes() == b"precious"
    assert outside.stat().st_mtime > 1_000_000
    assert (tmp_path / "root/y").is_symlink()
    with open_image(f"rootfs:{tmp_path / 'root'}") as image:
        assert Filesystem(image).nodes["x"].kind == "symlink"


def test_unpacked_images_of_every_transport_are_one(tmp_path: Path) -> None:
    fixture = simple_image()
    trees = []
    for i, (name, make) in enumerate(SOURCES.items()):
        (tmp_path / name).mkdir()
        with open_image(make(tmp_path / name, fixture, COMPRESSIONS[i % 3])) as image:
            write(keep_image(image), f"rootfs:{tmp_path / name / 'root'}")
        trees.append(tree(tmp_path / name / "root"))
    assert all(found == trees[0] for found in trees)


def test_memory_stays_small(tmp_path: Path) -> None:
    script = (
        "import sys,json; from deadweight.image.output import *\n"
        "from deadweight.image.transports import write_image\n"
        "from deadweight.image.reference import parse_destination\n"
        "cfg = lambda ids: json.dumps({'rootfs': {'diff_ids': ids}}).encode()\n"
        "new = NewImage((OutputLayer(400<<20, lambda: (bytes(1<<20) for _ in range(400))),), cfg)\n"
        "write_image(new, parse_destination(sys.argv[1]))\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"docker-archive:{tmp_path / 'a.tar'}"], check=True, capture_output=True
    )
    (tmp_path / "a.tar").unlink()
    assert int(done.stdout) < 100_000  # kB


def test_what_a_root_filesystem_left_is_removed_however_deep(here: Path) -> None:
    deep = file("a/" * 2040 + "x", pax={"path": "a/" * 2040 + "x"})
    write_docker_archive(here / "in.tar", make_image(make_tar(deep)), "a:b")
    destination = here / "folder"
    destination.mkdir()
    place = destination / ("n" * 100)  # with which the deepest names are too long
    with open_image(f"docker-archive:{here / 'in.tar'}") as image, pytest.raises(EnvironmentFailure, match="too long"):
        write_image(keep_image(image), parse_destination(f"rootfs:{place}"))
    assert list(destination.iterdir()) == []
