"""What is offered for CI, run: the action and GitHub's workflow, the hook for pre-commit, and their files' schemas.

GitHub's runner is stood in for (support/actions.py says in what way); engine, registry and pre-commit are real.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from support.actions import ROOT, Runner, StepFailed
from support.engines import docker_host, greeter
from support.images import file, make_image, make_tar, write_oci
from support.registries import PASSWORD, USER, Server, start_registry

EXAMPLES = ROOT / "examples/ci"
ORACLES = ROOT / ".venv-oracles/bin"
DOCKERFILE = """FROM scratch
COPY greet /bin/greet
COPY wheel /root/.cache/pip/wheel
USER 10001
CMD ["/bin/greet"]
"""

pytestmark = pytest.mark.xdist_group("ci examples")


def run(*command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None, status: int = 0) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == status, f"{command}: {done.stdout[-3000:]}"
    return done.stdout


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ("vendor.github-actions", ROOT / "action.yml"),
        ("vendor.github-workflows", EXAMPLES / "github.yml"),
        ("vendor.gitlab-ci", EXAMPLES / "gitlab.yml"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_files_are_as_their_schemas_ask(schema: str, path: Path) -> None:
    run(ORACLES / "check-jsonschema", "--builtin-schema", schema, path)


@pytest.fixture(scope="module")
def temp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runner's folder, where the action's installation stays from one test to the next."""
    return tmp_path_factory.mktemp("runner")


@pytest.fixture
def runner(temp: Path, tmp_path: Path) -> Runner:
    (temp / "summary").unlink(missing_ok=True)
    return Runner(tmp_path, temp, {"github": {}}, {"CI": "true"})


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An OCI layout with what leaves in it."""
    folder = tmp_path / "my images"
    made = make_image(make_tar(file("root/.cache/pip/wheel", b"x" * 300_000), file("bin/greet", greeter(), mode=0o755)))
    return write_oci(folder, made, "1")


def test_the_action_slims(runner: Runner, image: Path) -> None:
    arguments = "--to 'oci:my slim:1' --all-layers"
    outputs = runner.action({"command": "slim", "image": f"oci:{image}:1", "arguments": arguments})
    report = json.loads(Path(outputs["json"]).read_text())
    assert outputs["before-bytes"] == str(report["before_bytes"])
    assert int(outputs["bytes"]) == report["after_bytes"] < report["before_bytes"] - 300_000
    slim = json.loads((runner.workspace / "my slim/index.json").read_text())
    assert outputs["digest"] == slim["manifests"][0]["digest"]
    assert outputs["image-id"] == report["after"]["digest"]
    assert runner.summary.startswith("### deadweight slim\n")
    assert f"{report['after_bytes']:,}" in runner.summary


def test_the_action_fails_where_the_answer_is_no_and_says_why(runner: Runner, image: Path) -> None:
    with pytest.raises(StepFailed, match="status 1"):
        runner.action({"command": "check", "image": f"oci:{image}:1", "arguments": "--max-size 1kB"})
    assert "The image is NOT as asked: `at most 1000`" in runner.summary


def test_what_the_action_is_given_is_never_run(runner: Runner) -> None:
    for given in (
        {"command": "inspect; touch ran", "image": "x"},
        {"command": "inspect", "image": '"; touch ran; "'},
        {"command": "inspect", "image": "$(touch ran)", "arguments": "`touch ran` $(touch ran) ; touch ran"},
    ):
        with pytest.raises(StepFailed):
            runner.action(given)
    assert not (runner.workspace / "ran").exists()
    assert runner.summary == ""


def test_arguments_are_all_there_or_it_fails(runner: Runner, image: Path) -> None:
    given = {"command": "inspect", "image": f"oci:{image}:1"}
    for arguments in ("", "  ", "\n \n"):
        assert runner.action({**given, "arguments": arguments})["image-id"]
    for arguments in ("--top 3 'oops --top 4", '--top 3 "oops'):
        with pytest.raises(StepFailed, match=r"status 2\n(?s:.*)no words"):
            runner.action({**given, "arguments": arguments})


def test_nothing_of_the_workspace_is_run(tmp_path: Path, image: Path) -> None:
    """A service may well have a logging.py; and who sends a pull request is not to run code beside its secrets."""
    temp = tmp_path / "fresh"
    temp.mkdir()
    runner = Runner(tmp_path, temp, {"github": {}}, {"CI": "true", "PIP_LOG": str(temp / "pip.log")})
    for name in ("logging.py", "venv.py", "pip.py", "ensurepip.py", "json.py", "deadweight.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__)\nraise SystemExit(9)\n")
    assert runner.action({"command": "inspect", "image": f"oci:{image}:1"})["image-id"]
    assert not (tmp_path / "ran").exists()
    # What pip fetches to build something with is held to no hash.
    assert "Installing build dependencies" not in (temp / "pip.log").read_text()


@pytest.fixture
def registry() -> Iterator[Server]:
    with ExitStack() as stack:
        yield start_registry(stack, password=True)


def test_the_workflow_of_github_runs(temp: Path, registry: Server, tmp_path: Path) -> None:
    workflow = yaml.safe_load((EXAMPLES / "github.yml").read_text())
    workflow["env"]["IMAGE"] = f"{registry.host}/${{{{ github.repository }}}}"  # in the place of ghcr.io
    project = tmp_path / "project"
    project.mkdir()
    (project / "greet").write_bytes(greeter())
    (project / "greet").chmod(0o755)
    (project / "wheel").write_bytes(b"x" * 6_000_000)
    (project / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "docker").mkdir()
    with ExitStack() as stack:
        environment = {"DOCKER_HOST": docker_host(stack), "DOCKER_CONFIG": str(tmp_path / "docker"), "CI": "true"}
        github = {"repository": "Team/Service", "sha": "0123abc", "actor": USER, "ref": "refs/heads/main"}
        runner = Runner(project, temp, {"github": github, "secrets": {"GITHUB_TOKEN": PASSWORD}}, environment)
        (temp / "summary").unlink(missing_ok=True)
        steps = runner.job(workflow, "image", {"github.ref == 'refs/heads/main'": True})
        identity = run("docker", "image", "inspect", "service:slim", "--format", "{{.Id}}", env=environment).strip()
    assert steps["slim"]["image-id"] == identity
    assert int(steps["slim"]["bytes"]) < int(steps["slim"]["before-bytes"]) - 6_000_000
    assert registry.tags("team/service") == {"0123abc"}
    assert identity in registry.blobs()
    for heading in ("### deadweight lint", "### deadweight slim", "### deadweight verify", "### deadweight check"):
        assert heading in runner.summary
    assert PASSWORD not in "".join(runner.said) + runner.summary


def test_pre_commit_finds_what_is_wrong_with_a_dockerfile(tmp_path: Path) -> None:
    assert shutil.which("git"), "git is needed: scripts/setup.sh test"
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", "-c", "init.defaultBranch=main"]
    project, hooks = tmp_path / "project", tmp_path / "hooks"
    # A repository of this state, whatever is committed of it; git does not take one of another owner.
    names = run("git", "-c", "safe.directory=*", "ls-files", cwd=ROOT).splitlines()
    for name in names:
        if name.startswith(("src/", ".pre-commit")) or name in ("pyproject.toml", "README.md", "LICENSE"):
            (hooks / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, hooks / name)
    (project / "docker").mkdir(parents=True)
    (project / "Dockerfile").write_text("FROM python:3.12\nRUN pip install torch pytest\nCMD python -m x\n")
    (project / "docker/api.Dockerfile").write_text(DOCKERFILE)
    (project / "Dockerfile.dockerignore").write_text("*\n")
    for folder in (hooks, project):
        run(*git, "init", "-q", cwd=folder)
        run(*git, "add", ".", cwd=folder)
        run(*git, "commit", "-q", "-m", "all", cwd=folder)
    words: list[str | Path] = [ORACLES / "pre-commit", "try-repo", hooks, "deadweight-lint", "--all-files"]
    home = {"PRE_COMMIT_HOME": str(tmp_path / "home")}
    said = run(*words, cwd=project, status=1, env=home)
    assert "Dockerfile:2: " in said
    assert "docker/api.Dockerfile: nothing found" in said
    assert "dockerignore" not in said
    (project / "Dockerfile").write_text(DOCKERFILE)
    run(*git, "add", ".", cwd=project)
    run(*words, cwd=project, env=home)
