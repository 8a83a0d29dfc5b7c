#!/usr/bin/env python3
"""Builds the demo image from app/Dockerfile without a container engine, as an archive for `docker load` and skopeo.

    build_image.py --variant torch|small --work DIR --out FILE.tar

mmdebstrap makes the base (as root, or in a user namespace) and calls this script back inside it. There each instruction
runs by chroot, and what it changed becomes a layer, written straight into the archive: the image is on disk twice at
most, once as files and once as FILE.tar. Needs Python 3.11 and mmdebstrap, nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from layers import Archive, BuildError, Tree, scan, write_layer

HERE = Path(__file__).resolve().parent
APP = HERE / "app"
EXTRAS = {"torch": "ml", "small": "small"}
DISK_NEEDED = {"torch": 22 * 10**9, "small": 3 * 10**9}
BASE_PACKAGES = "ca-certificates,python3"
HOST_CA = Path("/etc/ssl/certs/ca-certificates.crt")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What a step needs and the image must not hold lies in the root's /dev, whose contents are in no layer.
STEP_ENV = {
    "HOME": "/root",
    "PATH": PATH,
    "DEBIAN_FRONTEND": "noninteractive",
    "APT_CONFIG": "/dev/demo-apt.conf",
    "SSL_CERT_FILE": "/dev/demo-ca.crt",
    "PIP_CERT": "/dev/demo-ca.crt",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "UV_NO_PROGRESS": "1",
}
PASSED_ON = re.compile(r"(https?|no)_proxy|PIP_INDEX_URL|UV_(DEFAULT_INDEX|INDEX_URL)", re.IGNORECASE)
HOST_APT = re.compile(r"Acquire::(https?::Proxy|Check-)")

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


# ---- The build: one Dockerfile instruction after the other --------------------------------------------------------


def encode(value: object) -> bytes:
    """JSON the way engines write it."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def now() -> str:
    """The present, as image configs write it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """The Dockerfile's instructions, comments dropped and continued lines joined."""
    kept = "\n".join(line for line in dockerfile.splitlines() if not line.startswith("#"))
    for line in re.sub(r"\\\n\s*", "", kept).splitlines():
        if line.strip():
            keyword, _, rest = line.partition(" ")
            yield keyword.upper(), rest.strip()


def pairs(text: str) -> dict[str, str]:
    """`A=1 B="two words"` as a dict."""
    return dict(word.split("=", 1) for word in shlex.split(text))


@dataclass
class Build:
    """An image on its way: the root that instructions change, and the archive that layers go into."""

    root: Path
    archive: Archive
    say: BinaryIO
    arguments: dict[str, str]
    workdir: str = "/"
    seen: Tree = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=lambda: {"Env": [f"PATH={PATH}"], "WorkingDir": "/"})

    def base(self) -> None:
        """The first layer: Debian as its official images have it, without package lists and logs."""
        for pattern in ("var/lib/apt/lists/*", "var/cache/apt/archives/*.deb", "var/cache/apt/*.bin", "var/log/*.log"):
            for path in self.root.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        policy = self.root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        shutil.copyfile(HOST_CA, self.root / "dev/demo-ca.crt")
        dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
        lines = [line for line in dump.splitlines() if HOST_APT.match(line)]
        lines.append('Acquire::https::CaInfo "/dev/demo-ca.crt";')
        (self.root / "dev/demo-apt.conf").write_text("\n".join(lines) + "\n")
        self.commit("ADD rootfs.tar / # debian bookworm by mmdebstrap", time.monotonic())

    def step(self, keyword: str, rest: str) -> None:
        """Carry out one instruction."""
        start = time.monotonic()
        made_by = f"{keyword} {rest}" + (" # buildkit" if keyword == "COPY" else "")
        handler = getattr(self, f"_{keyword.lower()}", None)
        if handler is None:
            raise BuildError(f"Dockerfile: {keyword} is not understood here: add it to build_image.py")
        handler(rest)
        if keyword == "RUN":
            given = " ".join(f"{name}={value}" for name, value in self.arguments.items())
            made_by = f"RUN |{len(self.arguments)} {given} /bin/sh -c {rest} # buildkit"
        if keyword in ("RUN", "COPY", "WORKDIR"):
            self.commit(made_by, start)
        elif keyword not in ("FROM", "ARG"):
            self.history.append({"created": now(), "created_by": made_by, "empty_layer": True})

    def commit(self, made_by: str, start: float) -> None:
        """Make a layer of what changed since the last one."""
        ran = time.monotonic()
        after = scan(self.root)
        with self.archive.blob() as writer:
            entries = write_layer(self.root, self.seen, after, writer)
        self.seen = after
        record: dict[str, Any] = {"created": now(), "created_by": made_by, "comment": "built without an engine"}
        if entries:
            self.layers.append({"mediaType": LAYER_TYPE, "digest": writer.digest, "size": writer.size})
        else:
            record["empty_layer"] = True
        self.history.append(record)
        times = f"{ran - start:5.1f} s to run, {time.monotonic() - ran:4.1f} s to write"
        line = f"demo image: {writer.size / 1e6:7.1f} MB, {entries:5d} entries, {times}: {made_by[:60]}\n"
        self.say.write(line.encode())

    def finish(self, tag: str) -> None:
        """The config, both kinds of manifest, and the end of the archive."""
        machine = os.uname().machine
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
            "os": "linux",
            "created": now(),
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in self.layers]},
            "history": self.history,
        }
        described = self.archive.add_blob(encode(config), CONFIG_TYPE)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": described, "layers": self.layers}
        top = self.archive.add_blob(encode(manifest), MANIFEST_TYPE)
        # podman names the image by the one, containerd by the other, older engines by RepoTags
        top["annotations"] = {
            "org.opencontainers.image.ref.name": tag,
            "io.containerd.image.name": f"docker.io/library/{tag}",
        }
        names = ["blobs/" + part["digest"].replace(":", "/") for part in (described, *self.layers)]
        docker = [{"Config": names[0], "RepoTags": [tag], "Layers": names[1:]}]
        self.archive.add("index.json", encode({"schemaVersion": 2, "manifests": [top]}))
        self.archive.add("manifest.json", encode(docker))
        self.archive.add("oci-layout", encode({"imageLayoutVersion": "1.0.0"}))
        self.archive.close()

    def _from(self, rest: str) -> None:
        if rest != "debian:bookworm":
            raise BuildError(f"Dockerfile: FROM {rest}: only debian:bookworm can be made here")

    def _arg(self, rest: str) -> None:
        for name, value in pairs(rest).items():
            self.arguments.setdefault(name, value)

    def _env(self, rest: str) -> None:
        self.config["Env"] += [f"{name}={value}" for name, value in pairs(rest).items()]

    def _workdir(self, rest: str) -> None:
        self.workdir = self.config["WorkingDir"] = rest
        (self.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _run(self, rest: str) -> None:
        env = dict(pair.split("=", 1) for pair in self.config["Env"]) | self.arguments | STEP_ENV
        env |= {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
        script = f"cd {shlex.quote(self.workdir)} && {rest}"
        code = subprocess.run(["chroot", self.root, "/bin/sh", "-c", script], env=env, check=False).returncode
        if code:
            raise BuildError(f"RUN {rest}: exit status {code}")

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        place = self.root / os.path.normpath(f"{self.workdir}/{target}").lstrip("/")
        for source in sources:
            for path in [APP / source, *sorted((APP / source).rglob("*"))]:
                below = path.relative_to(APP / source if (APP / source).is_dir() else APP)
                if path.name in ("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"):
                    continue
                if path.is_dir():
                    (place / below).mkdir(mode=0o755, parents=True, exist_ok=True)
                elif path.parent.name != "__pycache__":
                    shutil.copyfile(path, place / below)
                    (place / below).chmod(0o644)
                    os.utime(place / below, (path.stat().st_mtime,) * 2)

    def _label(self, rest: str) -> None:
        self.config["Labels"] = self.config.get("Labels", {}) | pairs(rest)

    def _expose(self, rest: str) -> None:
        self.config["ExposedPorts"] = {f"{port}/tcp": {} for port in rest.split()}

    def _healthcheck(self, rest: str) -> None:
        options, _, command = rest.partition(" CMD ")
        check: dict[str, Any] = {"Test": ["CMD-SHELL", command]}
        for name, value in pairs(options).items():
            seconds = value.endswith("s")
            check[name.lstrip("-").capitalize()] = int(value.rstrip("s")) * (10**9 if seconds else 1)
        self.config["Healthcheck"] = check

    def _cmd(self, rest: str) -> None:
        self.config["Cmd"] = json.loads(rest)


def inside(variant: str, out_fd: str, say_fd: str, root: str) -> None:
    """What mmdebstrap calls: the build proper, with the rights of root over `root`."""
    with open(int(out_fd), "r+b") as out, open(int(say_fd), "wb", buffering=0) as say:  # noqa: PTH123
        build = Build(Path(root), Archive(out), say, {"EXTRA": EXTRAS[variant]})
        build.base()
        for keyword, rest in instructions((APP / "Dockerfile").read_text()):
            build.step(keyword, rest)
        build.finish(f"factcheck-demo:{variant}")


# ---- Outside: set up, reuse, clean up -----------------------------------------------------------------------------


def stamp(variant: str) -> str:
    """A digest of all that goes into the image, as far as this repository says."""
    digest = hashlib.sha256(f"{variant} {os.uname().machine}\n".encode())
    files = (path for path in APP.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    for path in (HERE / "build_image.py", HERE / "layers.py", *sorted(files)):
        digest.update(f"{path.relative_to(HERE)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def check_host(variant: str, work: Path, out: Path) -> str:
    """Refuse early what would fail late; the mode for mmdebstrap comes back."""
    if shutil.which("mmdebstrap") is None:
        raise BuildError("mmdebstrap is missing: install it (scripts/setup.sh demo does)")
    if not HOST_CA.is_file():
        raise BuildError(f"{HOST_CA} is missing: install ca-certificates")
    for folder in (work, out.parent):
        free = shutil.disk_usage(folder).free
        if free < DISK_NEEDED[variant]:
            need = DISK_NEEDED[variant] / 1e9
            raise BuildError(f"{folder}: {free / 1e9:.1f} GB free, {need:.0f} GB needed: name another folder by --work")
    if os.geteuid() == 0:
        return "root"
    for folder in (HERE, *HERE.parents, work, *work.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            raise BuildError(f"{folder}: closed to a user namespace: chmod o+x it, name another by --work, or be root")
    work.chmod(0o777)  # in a user namespace, root is another user out here
    return "unshare"


def make(variant: str, work: Path, out: Path) -> None:
    """Build the image as `out`, all or nothing."""
    mode = check_host(variant, work, out)
    partial = out.with_name(f"{out.name}.partial-{os.getpid()}")
    log = work / "build.log"
    try:
        with partial.open("w+b") as archive, log.open("wb") as output:
            say = os.dup(2)
            call = [sys.executable, str(Path(__file__).resolve()), "inside", variant, str(archive.fileno()), str(say)]
            command = ["mmdebstrap", f"--mode={mode}", "--variant=apt", "--format=null", f"--include={BASE_PACKAGES}"]
            command += ["--skip=chroot/policy-rc.d,chroot/start-stop-daemon,cleanup"]
            command += [f'--customize-hook={shlex.join(call)} "$1"', "bookworm", "/dev/null"]
            environment = os.environ | {"TMPDIR": str(work), "PYTHONDONTWRITEBYTECODE": "1"}
            with subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, pass_fds=(archive.fileno(), say)
            ) as running:
                try:
                    code = running.wait()
                except BaseException:
                    running.terminate()  # mmdebstrap removes the root then
                    raise
            os.close(say)
        if code:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            raise BuildError(f"the build failed; {log} says why, at its end:\n{tail}")
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)


def main() -> int:
    """Read the command line, and build unless the image is there."""
    parser = argparse.ArgumentParser(description="Build the demo image without a container engine.")
    parser.add_argument("--variant", choices=sorted(EXTRAS), required=True)
    parser.add_argument("--work", type=Path, required=True, help="a folder with room for the image's files")
    parser.add_argument("--out", type=Path, required=True, help="the archive to write")
    options = parser.parse_args()
    work, out = options.work.absolute(), options.out.absolute()
    work.mkdir(parents=True, exist_ok=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    mark = out.with_name(out.name + ".stamp")
    wanted = stamp(options.variant)
    if out.is_file() and mark.is_file() and mark.read_text() == f"{wanted} {out.stat().st_size}\n":
        print(f"demo image: {out} is there and its inputs are unchanged: reused", file=sys.stderr)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    start = time.monotonic()
    print(f"demo image: building {out} ({options.variant}), log in {work / 'build.log'}", file=sys.stderr)
    mark.unlink(missing_ok=True)
    make(options.variant, work, out)
    mark.write_text(f"{wanted} {out.stat().st_size}\n")
    size = out.stat().st_size / 1e6
    print(f"demo image: {out}, {size:.1f} MB, in {time.monotonic() - start:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    try:
        if sys.argv[1:2] == ["inside"]:
            inside(*sys.argv[2:])
        else:
            sys.exit(main())
    except BuildError as error:
        sys.exit(f"demo image: {error}")
