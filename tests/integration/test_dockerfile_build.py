"""A project's Dockerfile, built for real by BuildKit and run: on Debian's own Python, from Debian and PyPI.

The base is the demo's, which is built first where it is not there (40 s). deadweight comes from a wheel of this
repository, over HTTP.
"""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from deadweight.image.transports import open_image
from support.demo import demo_image
from support.engines import building_docker, needs, run
from support.recipes import project, pyproject

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
TRUSTED = "usr/local/share/authorities.crt"
SERVICE = """from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def health(request):
    return PlainTextResponse("version 1")

app = Starlette(routes=[Route("/health", health)])
"""

pytestmark = [pytest.mark.xdist_group("dockerfile"), needs("mmdebstrap", "dockerd", "runc")]


@pytest.fixture(scope="module")
def docker() -> Iterator[list[str]]:
    """The command line of an engine that has `debian:bookworm`, with this machine's certificate authorities."""
    with ExitStack() as stack:
        command = building_docker(stack)
        with open_image(f"docker-archive:{demo_image()}") as image:
            tar = image.layers[0].tar
            base = tar.read_at(0, tar.size).rstrip(b"\0")
        trust = [word for name in ("SSL_CERT_FILE", "PIP_CERT") for word in ("-c", f"ENV {name}=/{TRUSTED}")]
        subprocess.run(
            [*command, "import", *trust, "-", "debian:bookworm"],
            input=base + bytes(-len(base) % 512) + _additions(),
            check=True,
            capture_output=True,
        )
        yield command


def _additions() -> bytes:
    """A tar with this machine's certificate authorities, and what makes dpkg fast in Debian's own images."""
    added = {TRUSTED: AUTHORITIES.read_bytes(), "etc/dpkg/dpkg.cfg.d/docker-apt-speedup": b"force-unsafe-io\n"}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in added.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a wheel of this repository."""
    folder = tmp_path_factory.mktemp("wheels")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            name = next(folder.glob("*.whl")).name
            yield f"http://127.0.0.1:{server.server_address[1]}/{name}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with locks and its Dockerfile."""
    text = pyproject("hello-service", "starlette uvicorn", extras={"dev": "pytest"})
    files = {
        "pyproject.toml": text.replace(
            "[project]", '[tool.hatch.build.targets.wheel]\npackages = ["src/hello"]\n[project]'
        ),
        "src/hello/__init__.py": "",
        "src/hello/main.py": SERVICE,
        "static/greeting.txt": "hello\n",
        "requirements/.keep": "",
        "docker/.keep": "",
    }
    folder = project(tmp_path_factory.mktemp("service"), files)
    lock: list[str | Path] = [
        BIN / "uv",
        "pip",
        "compile",
        "-q",
        "--universal",
        "--python-version",
        "3.11",
        "--generate-hashes",
    ]
    lock += ["--no-emit-index-url", "pyproject.toml"]
    run(*lock, "-o", "requirements/core.txt", cwd=folder)
    run(*lock, "--extra", "dev", "-c", "requirements/core.txt", "-o", "requirements/dev.txt", cwd=folder)
    target = folder / "docker/api.Dockerfile"
    run(BIN / "deadweight", "dockerfile", folder, "-o", target, "--base", "debian:bookworm")
    # Others may read less than we do here: the image is to be readable all the same.
    (folder / "src/hello/main.py").chmod(0o600)
    (folder / "static/greeting.txt").chmod(0o600)
    return folder


def build(docker: list[str], service: Path, wheel: str, tag: str, *arguments: str) -> dict[str, Any]:
    """Builds the service; gives what the engine says of the image."""
    words: list[str | Path] = ["build", "--network", "host", "-q", "-f", service / "docker/api.Dockerfile", "-t", tag]
    words += ["--build-arg", f"DEADWEIGHT={wheel}", *arguments, service]
    run(*docker, *words, env={**os.environ, "DOCKER_BUILDKIT": "1"})
    found: dict[str, Any] = json.loads(run(*docker, "image", "inspect", tag))[0]
    return found


def test_it_builds_and_serves(docker: list[str], service: Path, wheel: str, tmp_path: Path) -> None:
    first = build(docker, service, wheel, "hello:1")
    config = first["Config"]
    assert config["User"] == "10001:10001"
    assert config["ExposedPorts"] == {"8000/tcp": {}}
    assert config["Cmd"] == ["uvicorn", "hello.main:app", "--host", "0.0.0.0", "--port", "8000"]

    main = service / "src/hello/main.py"
    main.write_text(main.read_text().replace("version 1", "version 2"))
    second = build(docker, service, wheel, "hello:2")
    layers = [found["RootFS"]["Layers"] for found in (first, second)]
    assert layers[0][:-1] == layers[1][:-1]
    assert layers[0][-1] != layers[1][-1]

    look = "id -u; cat static/greeting.txt; command -v python gcc cc make uv pip pytest; touch lib/x data"
    container = run(*docker, "run", "-d", "--network", "none", "hello:2").strip()
    try:
        answer = "until python -c '{}' 2>/dev/null; do sleep 0.5; done".format(
            'import urllib.request as r; print(r.urlopen("http://127.0.0.1:8000/health").read().decode())'
        )
        assert run(*docker, "exec", container, "timeout", "30", "sh", "-c", answer) == "version 2\n"
        run(*docker, "exec", container, *config["Healthcheck"]["Test"][1:])
        done = subprocess.run(
            [*docker, "exec", container, "sh", "-c", look], capture_output=True, text=True, check=False
        )
    finally:
        run(*docker, "rm", "-f", container)
    assert done.stdout.splitlines() == ["10001", "hello", "/opt/venv/bin/python"]
    assert "lib/x" in done.stderr
    assert "data" not in done.stderr

    archive = tmp_path / "hello.tar"
    run(*docker, "save", "hello:2", "-o", archive)
    (tmp_path / "deadweight.toml").write_text('[[probe]]\nkind = "http"\npath = "/health"\nstatus = 200\n')
    checked = run(
        *(BIN / "deadweight", "check", f"docker-archive:{archive}", "--spec", tmp_path / "deadweight.toml"),
        *("--no-command", "gcc", "--no-command", "uv", "--import", "starlette"),
    )
    assert "GET /health" in checked
    assert "The image is as asked" in checked

    build(docker, service, wheel, "hello:dev", "--build-arg", "INCLUDE_DEV=true")
    assert "pytest" in run(*docker, "run", "--rm", "--network", "none", "hello:dev", "pytest", "--version")
