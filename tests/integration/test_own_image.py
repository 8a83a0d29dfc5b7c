"""deadweight's own image, built by deadweight and used as people do: run, and in the build of another image.

Its base is made by mmdebstrap, which takes half a minute once and stays in build/.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from support import elf
from support.engines import building_docker, needs, run
from support.images import directory, file, make_image, make_tar, symlink, write_docker_archive, write_oci
from support.projects import CACHE, shared_cache
from support.registries import PASSWORD, USER, start_registry

ROOT = Path(__file__).parents[2]
MOST = 100_000_000
BUSYBOX = shutil.which("busybox")

pytestmark = [pytest.mark.xdist_group("build debian"), needs("mmdebstrap", "dockerd", "runc", "busybox")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "image.tar"
    with shared_cache() as cache:
        to = f"docker-archive:{path}:deadweight:latest"
        run(sys.executable, ROOT / "scripts/image/build.py", "--to", to, "--cache", cache)
    return path


@pytest.fixture(scope="module")
def docker(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The command line of an engine that has deadweight:latest, and busybox:latest: a shell and nothing else."""
    assert BUSYBOX is not None
    shell = make_tar(
        directory("bin"),
        file("bin/busybox", Path(BUSYBOX).read_bytes(), mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in ("sh", "readlink", "ln", "test")),
        directory("tmp", mode=0o1777),
    )
    small = write_docker_archive(
        tmp_path_factory.mktemp("shell") / "shell.tar",
        make_image(shell, run={"Env": ["PATH=/bin"]}),
        "busybox:latest",
    )
    with ExitStack() as stack:
        command = building_docker(stack)
        for one in (archive, small):
            run(*command, "load", "-q", "-i", one)
        yield command


def test_it_goes_to_a_registry_and_is_the_same_each_time(archive: Path) -> None:
    with ExitStack() as stack:
        registry = start_registry(stack)
        to = f"docker://{registry.host}/tools/deadweight:1"
        said = run(sys.executable, ROOT / "scripts/image/build.py", "--to", to, "--cache", CACHE)
        assert registry.tags("tools/deadweight") == {"1"}
        raw = json.loads(run("skopeo", "inspect", "--raw", "--tls-verify=false", to))
    assert said.splitlines()[1] == raw["config"]["digest"]
    assert said.endswith(f" {sum(layer['size'] for layer in raw['layers']):,} as stored\n")
    report = json.loads(run(sys.executable, "-m", "deadweight", "inspect", f"docker-archive:{archive}", "--json", "-"))
    assert report["image"]["digest"] == raw["config"]["digest"]


def docker_run(docker: list[str], *words: str | Path) -> str:
    return run(*docker, "run", "--rm", "--network", "none", *words)


def test_it_is_small(archive: Path) -> None:
    report = json.loads(run(sys.executable, "-m", "deadweight", "inspect", f"docker-archive:{archive}", "--json", "-"))
    assert report["bytes"] < MOST, f"{report['bytes']:,} bytes"


def test_docker_run_inspects_and_slims(docker: list[str], tmp_path: Path) -> None:
    careless = make_image(make_tar(file("root/.cache/pip/wheel", b"x" * 300_000), directory("tmp")))
    write_docker_archive(tmp_path / "service.tar", careless, "service:1")
    tmp_path.chmod(0o777)
    here = ["-v", f"{tmp_path}:/work", "deadweight"]
    report = json.loads(docker_run(docker, *here, "inspect", "docker-archive:service.tar", "--json", "-"))
    assert report["bytes"] > 300_000
    docker_run(docker, *here, "slim", "docker-archive:service.tar", "--to", "docker-archive:slim.tar", "--all-layers")
    assert (tmp_path / "slim.tar").stat().st_size < 20_000


def test_as_the_image_of_a_job_it_has_a_shell(docker: list[str]) -> None:
    assert docker_run(docker, "--entrypoint", "sh", "deadweight", "-c", "deadweight --version | cat").startswith("dead")


def test_the_jobs_of_gitlab_run_in_it(docker: list[str], tmp_path: Path) -> None:
    """Each job's lines in one shell, as GitLab's runner has it, in the image that the job names."""
    document = yaml.safe_load((ROOT / "examples/ci/gitlab.yml").read_text())
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY x /x\nUSER 10001\n")
    (tmp_path / "x").touch()
    image = make_image(make_tar(file("root/.cache/pip/wheel", b"x" * 6_000_000), file("x", b"x"), directory("tmp")))
    write_oci(tmp_path / "service", image, "1")
    tmp_path.chmod(0o777)  # as the runner leaves a checkout
    with ExitStack() as stack:
        registry = start_registry(stack, password=True)
        name = f"{registry.host}/team/service:0123abc"
        credentials = ["--dest-tls-verify=false", "--dest-creds", f"{USER}:{PASSWORD}"]
        run("skopeo", "copy", "-q", *credentials, f"oci:{tmp_path}/service:1", f"docker://{name}")
        given = {"CI_REGISTRY": registry.host, "CI_REGISTRY_USER": USER, "CI_REGISTRY_PASSWORD": PASSWORD}
        variables = [word for key, value in {**given, "IMAGE": name}.items() for word in ("-e", f"{key}={value}")]
        place = ["--network", "host", "-v", f"{tmp_path}:/builds", "-w", "/builds"]
        for job in ("lint", "slim"):
            assert document[job]["extends"] == ".deadweight"
            lines = [*document[job].get("before_script", []), *document[job]["script"]]
            script = "set -e\n" + "\n".join(lines)
            said = run(*docker, "run", "--rm", *place, *variables, "--entrypoint", "sh", "deadweight", "-c", script)
            assert PASSWORD not in said
        assert registry.tags("team/service") == {"0123abc", "0123abc-slim"}
    report = json.loads((tmp_path / "slim.json").read_text())
    assert report["after_bytes"] < report["before_bytes"] - 6_000_000


@pytest.mark.parametrize(
    "steps",
    [
        "RUN --mount=type=bind,from=deadweight,target=/dw /dw/bin/deadweight prune /site --json /report.json",
        "COPY --from=deadweight / /dw\nRUN ln -s /dw/bin/deadweight /bin/dw && dw prune /site --json /report.json",
    ],
    ids=["mounted", "copied"],
)
def test_it_runs_in_the_build_of_an_image_that_has_but_a_shell(docker: list[str], steps: str, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    elf.gcc(tmp_path, "one.so", elf.LIBRARY, "-shared", "-fPIC").rename(tmp_path / "site/one.so")
    before = (tmp_path / "site/one.so").stat().st_size
    (tmp_path / "Dockerfile").write_text(f"FROM busybox AS build\nCOPY site /site\n{steps}\n")
    words: list[str | Path] = ["build", "-q", "--network", "none", "-t", "pruned", tmp_path]
    run(*docker, *words, env={**os.environ, "DOCKER_BUILDKIT": "1"})
    report = json.loads(docker_run(docker, "pruned", "busybox", "cat", "/report.json"))
    size = int(docker_run(docker, "pruned", "busybox", "wc", "-c", "/site/one.so").split()[0])
    assert (report["before_bytes"], report["after_bytes"]) == (before, size)
    assert size < before
