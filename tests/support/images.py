"""Fixture images, built by code: members -> layer tars -> an image in any of the formats that tools write.

    image = make_image(make_tar(directory("etc"), file("etc/motd", b"hello\\n")), make_tar(whiteout("etc/motd")))
    write_oci(tmp_path / "layout", image, tag="latest", compression="gzip")
    write_docker_archive(tmp_path / "image.tar", image, "demo:latest", style="old")

Deliberately independent of deadweight's own writers: it uses only the standard library and the zstd binding.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Json = dict[str, Any]
Compression = Literal["none", "gzip", "zstd"]
Style = Literal["old", "skopeo", "25", "ggcr"]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
SUFFIX: dict[Compression, str] = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}


@dataclass(frozen=True)
class Member:
    """One tar entry."""

    name: str
    type: bytes = tarfile.REGTYPE
    data: bytes = b""
    linkname: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_700_000_000
    device: tuple[int, int] = (0, 0)
    pax: dict[str, str] = field(default_factory=dict)


def file(name: str, data: bytes = b"", **more: Any) -> Member:
    """A regular file. `more` are fields of Member: mode, uid, gid, mtime, pax."""
    return Member(name, data=data, **more)


def directory(name: str, mode: int = 0o755, **more: Any) -> Member:
    return Member(name, tarfile.DIRTYPE, mode=mode, **more)


def symlink(name: str, target: str, **more: Any) -> Member:
    return Member(name, tarfile.SYMTYPE, linkname=target, mode=0o777, **more)


def hardlink(name: str, target: str, **more: Any) -> Member:
    """Give it the mode of its target: engines set what the link's own header says."""
    return Member(name, tarfile.LNKTYPE, linkname=target, **more)


def whiteout(path: str) -> Member:
    """Deletes `path` of lower layers."""
    parent, _, base = path.rpartition("/")
    return Member(f"{parent}/.wh.{base}" if parent else f".wh.{base}", mode=0)


def opaque(path: str) -> Member:
    """Hides all that lower layers have in the directory `path`."""
    return Member(f"{path}/.wh..wh..opq" if path else ".wh..wh..opq", mode=0)


def xattr(name: str, value: bytes) -> dict[str, str]:
    """`pax=` of a member with an extended attribute."""
    return {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")}


def make_tar(*members: Member, tar_format: Literal[0, 1, 2] = tarfile.PAX_FORMAT) -> bytes:
    """A layer's tar, ending in two zero blocks and nothing more."""
    parts = []
    for member in members:
        info = tarfile.TarInfo(member.name)
        info.type, info.linkname, info.mode = member.type, member.linkname, member.mode
        info.uid, info.gid, info.mtime = member.uid, member.gid, member.mtime
        info.size, info.pax_headers = len(member.data), dict(member.pax)
        info.devmajor, info.devminor = member.device
        parts += [info.tobuf(tar_format, "utf-8", "surrogateescape"), member.data, bytes(-len(member.data) % 512)]
    return b"".join([*parts, bytes(1024)])


@dataclass(frozen=True)
class FixtureImage:
    """Uncompressed layers and the configuration that fits them."""

    layers: tuple[bytes, ...]
    config: Json

    @property
    def config_bytes(self) -> bytes:
        return dump(self.config)

    @property
    def config_digest(self) -> str:
        return digest(self.config_bytes)

    @property
    def diff_ids(self) -> list[str]:
        return [digest(layer) for layer in self.layers]


def make_image(
    *layers: bytes,
    run: Json | None = None,
    commands: Sequence[str] = (),
    architecture: str = "amd64",
    os: str = "linux",
    **more: Any,
) -> FixtureImage:
    """An image of `layers`. `run` is the configuration's `config` (Env, Cmd, ...), `commands` the history."""
    config = {
        "architecture": architecture,
        "os": os,
        **more,
        "config": run or {},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        "history": [
            {"created": "2024-01-01T00:00:00Z", "created_by": commands[i] if i < len(commands) else f"step {i + 1}"}
            for i in range(len(layers))
        ],
    }
    return FixtureImage(layers, config)


def simple_image(**more: Any) -> FixtureImage:
    """Two layers: some files and links, then a change, a deletion and an addition."""
    return make_image(
        make_tar(
            directory("etc"),
            file("etc/motd", b"hello\n"),
            file("etc/secret", b"x" * 1000),
            directory("usr/bin"),
            file("usr/bin/tool", b"#!/bin/sh\necho tool\n", mode=0o755),
            hardlink("usr/bin/same-tool", "usr/bin/tool", mode=0o755),
            symlink("bin", "usr/bin"),
        ),
        make_tar(file("etc/motd", b"changed\n"), whiteout("etc/secret"), file("app/main.py", b"print('hi')\n")),
        **more,
    )


def digest(data: bytes) -> str:
    """As `sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def compress(data: bytes, compression: Compression) -> bytes:
    if compression == "gzip":
        return gzip.compress(data, mtime=0)
    return zstd.compress(data) if compression == "zstd" else data


def descriptor(media_type: str, data: bytes, **more: Any) -> Json:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def put_blob(files: dict[str, bytes], media_type: str, data: bytes, **more: Any) -> Json:
    """Adds a blob to a layout's files; gives its descriptor."""
    files["blobs/sha256/" + digest(data)[7:]] = data
    return descriptor(media_type, data, **more)


def put_manifest(files: dict[str, bytes], image: FixtureImage, compression: Compression = "none", **more: Any) -> Json:
    """Adds an image's layers, config and manifest; gives the manifest's descriptor."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": put_blob(files, OCI_CONFIG, image.config_bytes),
        "layers": [
            put_blob(files, OCI_LAYER + SUFFIX[compression], compress(layer, compression)) for layer in image.layers
        ],
    }
    return put_blob(files, OCI_MANIFEST, dump(manifest), **more)


def layout_files(manifests: Iterable[Json], files: dict[str, bytes] | None = None) -> dict[str, bytes]:
    """An OCI layout's files by name; `files` are its blobs."""
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}
    return {"oci-layout": dump({"imageLayoutVersion": "1.0.0"}), "index.json": dump(index), **(files or {})}


def oci_files(image: FixtureImage, tag: str | None = None, compression: Compression = "none") -> dict[str, bytes]:
    """An OCI layout of one image, as files by name."""
    blobs: dict[str, bytes] = {}
    more = {} if tag is None else {"annotations": {"org.opencontainers.image.ref.name": tag}}
    return layout_files([put_manifest(blobs, image, compression, **more)], blobs)


def docker_archive_members(
    image: FixtureImage, tag: str | None = None, style: Style = "old", compression: Compression = "none"
) -> list[Member]:
    """The members of what `docker save` before 25 (`old`), from 25 on (`25`), skopeo, or crane (`ggcr`) write."""
    config_name = image.config_digest[7:] + ".json"
    members: list[Member] = []
    names: list[str] = []
    if style == "25":
        blobs: dict[str, bytes] = {}
        described = put_manifest(blobs, image, compression)
        members = [file(name, data) for name, data in layout_files([described], blobs).items()]
        manifest = json.loads(blobs["blobs/sha256/" + described["digest"][7:]])
        names = ["blobs/sha256/" + layer["digest"][7:] for layer in manifest["layers"]]
        config_name = "blobs/sha256/" + image.config_digest[7:]
    else:
        first: dict[bytes, str] = {}
        for i, layer in enumerate(image.layers):
            folder = hashlib.sha256(b"%d" % i + layer).hexdigest()
            blob = compress(layer, compression)
            if style == "ggcr":
                config_name = image.config_digest
                names.append(digest(blob)[7:] + ".tar.gz")
                members += [file(names[-1], blob)] * (layer not in first)
            elif style == "skopeo":
                names.append(digest(layer)[7:] + ".tar")
                members += [file(names[-1], blob)] * (layer not in first)
                members += [directory(folder), symlink(f"{folder}/layer.tar", f"../{names[-1]}")]
            else:
                names.append(f"{folder}/layer.tar")
                members += [directory(folder), file(f"{folder}/VERSION", b"1.0"), file(f"{folder}/json", b"{}")]
                members.append(symlink(names[-1], f"../{first[layer]}") if layer in first else file(names[-1], blob))
            first.setdefault(layer, names[-1])
        members.append(file(config_name, image.config_bytes))
    entry = {"Config": config_name, "RepoTags": [tag] if tag else None, "Layers": names}
    return [*members, file("manifest.json", dump([entry]))]


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Writes files by name below `folder`."""
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_oci(folder: Path, image: FixtureImage, tag: str | None = None, compression: Compression = "none") -> Path:
    """An OCI layout directory."""
    return write_files(folder, oci_files(image, tag, compression))


def write_oci_archive(
    path: Path, image: FixtureImage, tag: str | None = None, compression: Compression = "none"
) -> Path:
    """A tar of an OCI layout."""
    path.write_bytes(make_tar(*(file(name, data) for name, data in oci_files(image, tag, compression).items())))
    return path


def write_docker_archive(
    path: Path,
    image: FixtureImage,
    tag: str | None = None,
    style: Style = "old",
    compression: Compression = "none",
    outer: Compression = "none",
) -> Path:
    """What `docker save` writes; `compression` is the layers', `outer` the whole file's."""
    path.write_bytes(compress(make_tar(*docker_archive_members(image, tag, style, compression)), outer))
    return path


def read_tar(data: bytes) -> list[tuple[str, bytes]]:
    """Names and contents of a tar, read by the standard library."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = []
        for info in archive:
            content = archive.extractfile(info) if info.isreg() else None
            found.append((info.name, content.read() if content else b""))
        return found
