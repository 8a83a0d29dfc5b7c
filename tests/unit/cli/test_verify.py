"""`deadweight verify`, `check` and `slim --verify`: exit statuses, documents, and what they refuse."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from deadweight.cli import main
from support.damage import damaged
from support.images import file, whiteout
from support.mini import SITE, mini_image, site

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes as root; as others see test_sandbox")

Images = tuple[str, str, Path]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """An original with a build tool and a module, its honest slim image, and a folder."""
    folder = tmp_path_factory.mktemp("images")
    members = [
        *site({"hello": {"hello/__init__.py": b"import hello.deep\n", "hello/deep.py": b"x = 1\n"}}),
        *site({"pytest": {"pytest/__init__.py": b"import nothing_at_all\n"}}),
        file("app/main.py", b"print('hi')\n"),
    ]
    before = mini_image(folder, members, {"Cmd": ["python3", "/app/main.py"]})
    after = f"docker-archive:{folder / 'slim.tar'}"
    command = ["slim", before, "--to", after, "--plan-out", str(folder / "plan.json"), "--json", str(folder / "s.json")]
    assert main(command) == 0
    return before, after, folder


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What went to standard output, as one JSON document."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_an_honest_slim_image_is_the_same(images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    before, after, folder = images
    capsys.readouterr()
    assert main(["verify", before, after, "--plan", str(folder / "plan.json"), "--json", "-"]) == 0
    found = document(capsys)
    assert found["schema"] == "deadweight.verdict/1"
    assert found["verdict"]["same"] is True
    assert found["verdict"]["sandbox"] == "bubblewrap"
    names = [probe["name"] for probe in found["verdict"]["probes"]]
    assert names[:4] == ["every path", "configuration", "modules import", "libraries resolve"]


def test_a_module_that_is_gone_is_named(images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after, folder = images
    broken = damaged(after, tmp_path / "broken.tar", [whiteout(f"{SITE}/hello/deep.py")])
    assert main(["verify", before, broken, "--plan", str(folder / "plan.json")]) == 1
    text = capsys.readouterr().out
    assert "hello.deep" in text
    assert "The images do NOT behave the same" in text.splitlines()[-2] + text.splitlines()[-1]


def test_without_a_plan_what_is_gone_is_said_to_be_undeclared(
    images: Images, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after, folder = images
    assert main(["verify", before, after, "--static-only"]) == 1  # and no probe says that it does not matter
    text = capsys.readouterr().out
    assert "undeclared" in text
    assert "nothing was run" in " ".join(text.split())
    assert main(["verify", before, after]) == 0
    assert "undeclared" in capsys.readouterr().out
    assert main(["verify", before, after, "--static-only", "--plan", str(folder / "plan.json")]) == 0


def test_without_an_answer_there_is_no_verdict(
    images: Images, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, after, folder = images
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/no-such-socket")
    capsys.readouterr()
    command = ["verify", before, after, "--plan", str(folder / "plan.json"), "--sandbox", "docker", "--json", "-"]
    assert main(command) == 4
    verdict = document(capsys)["verdict"]
    assert verdict["same"] is None
    unanswered = [probe for probe in verdict["probes"] if probe["outcome"] == "no answer"]
    assert "modules import" in [probe["name"] for probe in unanswered]
    assert all("docker" in probe["details"][0].lower() for probe in unanswered)


def test_slim_verifies_what_it_made(images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, _, _ = images
    spec = tmp_path / "deadweight.toml"
    spec.write_text('[[probe]]\nname = "says hi"\nkind = "run"\ncommand = ["python3", "/app/main.py"]\nmust = true\n')
    to = f"oci:{tmp_path / 'layout'}:slim"
    capsys.readouterr()
    assert main(["slim", before, "--to", to, "--json", "-", f"--verify={spec}"]) == 0
    verdict = document(capsys)["verdict"]
    assert verdict["same"] is True
    assert [p["after"] for p in verdict["probes"] if p["name"] == "says hi"] == ["hi"]


def test_slim_fails_with_its_verdict_and_keeps_the_image(
    images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, _, _ = images
    spec = tmp_path / "deadweight.toml"
    spec.write_text('[[probe]]\nkind = "import"\nmodules = ["pytest"]\nmust = true\n')
    assert main(["slim", before, "--to", f"docker-archive:{tmp_path / 's.tar'}", "--verify", str(spec)]) == 1
    assert (tmp_path / "s.tar").exists()
    assert "import pytest" in capsys.readouterr().out


def test_slim_does_not_verify_a_root_filesystem(images: Images, tmp_path: Path) -> None:
    assert main(["slim", images[0], "--to", f"rootfs:{tmp_path / 'root'}", "--verify"]) == 2
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--max-size", "1GB"], 0, "as asked"),
        (["--max-size", "1MB"], 1, "NOT AS ASKED"),
        (["--no-command", "gcc"], 0, "as asked"),
        (["--no-command", "sh"], 1, "/bin/sh"),
        (["--import", "hello", "--no-module", "pytest"], 0, "as asked"),
        (["--import", "hallo"], 1, "No module named 'hallo'"),
        (["--no-module", "hello"], 1, "hello"),
        ([], 2, "nothing to check"),
    ],
)
def test_check(
    images: Images, arguments: list[str], status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["check", images[1], *arguments]) == status
    out = capsys.readouterr()
    assert text in out.out + out.err


def test_a_size_is_checked_without_a_sandbox(images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["check", images[1], "--max-size", "1GB", "--json", "-"]) == 0
    assert document(capsys)["verdict"]["sandbox"] == ""


def test_a_specification_is_found_where_one_works(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deadweight.toml").write_text('[image]\nmax_size = "1MB"\n')
    assert main(["check", images[1]]) == 1
    capsys.readouterr()
    (tmp_path / "deadweight.toml").write_text('[image]\nmax_size = "1XB"\n')
    assert main(["check", images[1]]) == 3
    assert "deadweight.toml:2: image.max_size" in capsys.readouterr().err


def test_a_plan_for_another_image_is_refused(images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    before, after, folder = images
    assert main(["verify", after, before, "--plan", str(folder / "plan.json")]) == 3
    assert "plan is for" in capsys.readouterr().err
