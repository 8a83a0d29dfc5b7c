"""The commands: what goes where, and the exit statuses."""

from __future__ import annotations

import json
import os
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from deadweight.cli import main
from support.images import write_oci
from support.service import HOSTILE, save, service, tables


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(tmp_path_factory.mktemp("image")))


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "COLUMNS", "DEADWEIGHT_DEBUG"):
        monkeypatch.delenv(name, raising=False)


class Run:
    """What a call gave."""

    def __init__(self, capfd: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = main(arguments)
        self.out, self.err = capfd.readouterr()

    @property
    def document(self) -> dict[str, object]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


def test_inspect_for_people_and_for_programs(image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    people = Run(capfd, "inspect", image, "--top", "2")
    assert (people.status, people.err) == (0, "")
    found = tables(people.out)
    assert all(sum(numbers[:-1]) == numbers[-1] for numbers in found.values())
    assert len(found["Owners"]) == 4  # two, the others, the total
    programs = Run(capfd, "inspect", image, "--json", "-")
    assert (programs.status, programs.err) == (0, "")
    assert programs.document["schema"] == "deadweight.inspect/1"
    assert programs.document["bytes"] == found["Owners"][-1]
    both = Run(capfd, "inspect", image, "--json", str(tmp_path / "report.json"))
    assert json.loads((tmp_path / "report.json").read_bytes()) == programs.document
    assert tables(both.out)["Owners"][-1] == programs.document["bytes"]


def test_plan_apply_and_slim_come_to_the_same(image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan, one, two, other = (tmp_path / name for name in ("plan.json", "one.tar", "two.tar", "other.json"))
    planned = Run(capfd, "plan", image, "-o", str(plan))
    assert (planned.status, planned.err) == (0, "")
    assert "Saved, by pass" in tables(planned.out)
    report = Run(capfd, "plan", image, "-o", str(plan), "--json", "-").document
    assert (report["schema"], report["after"]) == ("deadweight.report/1", None)
    piped = Run(capfd, "plan", image, "-o", "-")
    assert report["predicted_bytes"] == piped.document["predicted_bytes"]
    assert piped.document == json.loads(plan.read_bytes())
    applied = Run(capfd, "apply", str(plan), "--to", f"docker-archive:{one}", "--json", "-")
    assert (applied.status, applied.err) == (0, "")
    slimmed = Run(
        capfd,
        "slim",
        image,
        "--to",
        f"docker-archive:{two}",
        "--plan-out",
        str(other),
        "--json",
        "-",
        "--platform=linux/amd64",
    )
    assert (slimmed.status, slimmed.err) == (0, "")
    assert one.read_bytes() == two.read_bytes()
    assert plan.read_bytes() == other.read_bytes()
    first, second = applied.document, slimmed.document
    assert first["after_bytes"] == second["after_bytes"] == piped.document["predicted_bytes"]
    assert first["edited"] is second["edited"] is False
    compared = Run(capfd, "compare", image, str(one), "--target-size", "1GB", "--json", "-")
    lines = compared.document["images"]
    assert isinstance(lines, list)
    assert [line["bytes"] for line in lines] == [first["before_bytes"], first["after_bytes"]]
    assert all(line["gap"] == line["bytes"] - 10**9 for line in lines)


def test_several_documents_at_once_and_only_one_on_standard_output(
    image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "report.json", tmp_path / "report.md"
    both = Run(capfd, "inspect", image, "--json", str(one), "--markdown", str(two))
    assert (both.status, both.err) == (0, "")
    assert tables(both.out)["Owners"][-1] == json.loads(one.read_bytes())["bytes"]
    alone = Run(capfd, "inspect", image, "--json", str(one), "--markdown", "-")
    assert alone.out == two.read_text()
    assert alone.out.startswith("### ")
    refused = Run(capfd, "inspect", image, "--json", "-", "--markdown", "-")
    assert (refused.status, refused.out) == (2, "")
    for command in ("plan", "apply", "slim", "compare", "verify", "check"):
        assert "--markdown FILE|-" in Run(capfd, command, "--help").out


def test_a_saved_report_stands_for_its_image(image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    slim, saved = f"docker-archive:{tmp_path / 'slim.tar'}", tmp_path / "old.json"
    assert Run(capfd, "slim", image, "--to", slim).status == 0
    assert Run(capfd, "inspect", image, "--json", str(saved)).status == 0
    inspected = json.loads(saved.read_bytes())
    from_report = Run(capfd, "compare", str(saved), slim, "--json", "-")
    assert from_report.status == 0
    from_image = Run(capfd, "compare", image, slim, "--json", "-").document
    assert isinstance(from_image["changes"], list)
    (change,) = from_image["changes"]
    assert change["files"]["largest"]
    change["files"] = None  # which a report has none of
    assert from_report.document == from_image
    other = '{"schema": "deadweight.plan/1"}'
    for text, said in (("{}", "field `image`"), (other, "deadweight.plan/1"), ("[" * 100_000, "")):
        saved.write_text(text)
        refused = Run(capfd, "compare", str(saved), slim)
        assert (refused.status, refused.err.count("\n")) == (3, 1)
        assert "old.json' is no report of `deadweight inspect --json`" in refused.err
        assert said in refused.err
    changed: tuple[dict[str, object], ...] = ({"bytes": -5}, {"stored_bytes": 10**30}, {"bytes": 5}, {"owners": []})
    for fields in changed:
        saved.write_text(json.dumps({**inspected, **fields}))
        refused = Run(capfd, "compare", str(saved), slim)
        assert (refused.status, refused.out) == (3, "")
        assert "it was changed by hand" in refused.err
    page = Run(capfd, "compare", str(saved), slim, "--html", str(tmp_path / "page.html"))
    assert (page.status, (tmp_path / "page.html").exists()) == (2, False)


def test_an_edited_plan_is_said_to_be_edited(image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.json"
    Run(capfd, "plan", image, "-o", str(plan))
    document = json.loads(plan.read_bytes())
    document["cuts"] = [cut for cut in document["cuts"] if cut["pass"] == "caches"]
    plan.write_text(json.dumps(document))
    applied = Run(capfd, "apply", str(plan), "--to", f"oci:{tmp_path / 'out'}", "--json", "-")
    assert applied.status == 0
    assert applied.document["edited"] is True
    assert "edited by hand" in applied.err
    assert applied.document["after_bytes"] == applied.document["predicted_bytes"] != document["predicted_bytes"]


def test_options_reach_the_plan(image: str, capfd: pytest.CaptureFixture[str]) -> None:
    def passes(*arguments: str) -> set[str]:
        cuts = Run(capfd, "plan", image, "-o", "-", *arguments).document["cuts"]
        assert isinstance(cuts, list)
        return {cut["pass"] for cut in cuts if cut["pass"] != "metadata"}

    assert {"caches", "shadowed"} <= passes()
    assert "caches" not in passes("--risk", "lossless")
    assert "caches" not in passes("--skip", "caches")
    assert "caches" not in passes("--keep", "/var/lib/apt", "-k", "root/.cache/*")
    assert passes("--keep-layers", "3") == set()
    assert passes("--base", image) == set()
    document = Run(capfd, "plan", image, "-o", "-", "--root", "webapp", "--remove", "numlib", "--keep-compile").document
    options = document["options"]
    assert isinstance(options, dict)
    assert (options["roots"], options["remove"], options["keep_compile"]) == (["webapp"], ["numlib"], True)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["inspect", "no-such.tar"], 2, "no-such.tar"),
        (["inspect", "FOLDER/bad.tar"], 3, "deadweight: error: "),
        (["inspect", "oci:FOLDER/none"], 3, "deadweight: error: "),
        (["inspect", "IMAGE", "--platform", "linux/s390x"], 3, "s390x"),
        (["plan", "IMAGE", "--skip", "nothing"], 2, "caches"),
        (["plan", "IMAGE", "--risk", "wild"], 2, "lossless"),
        (["plan", "IMAGE", "--risk", "target", "--weights", "fp16"], 2, "--risk policy"),
        (["slim", "IMAGE", "--to", "oci:FOLDER/x", "--weights", "fp16", "--skip", "weights"], 2, "the pass weights"),
        (["slim", "IMAGE", "--to", "oci:FOLDER/x", "--max-accuracy-loss", "0.1"], 2, "--verify"),
        (["plan", "IMAGE", "-o", "IMAGE"], 2, "an input"),
        (["plan", "IMAGE", "-o", "FOLDER/a/b"], 2, "no directory"),
        (["plan", "IMAGE", "-o", "FOLDER"], 2, "is a directory"),
        (["slim", "IMAGE"], 2, "--to"),
        (["slim", "IMAGE", "--to", "FOLDER/x.tar"], 2, "transport"),
        (["slim", "IMAGE", "--to", "docker-archive:FOLDER/x", "--json", "-", "--plan-out", "-"], 2, "one document"),
        (["plan", "IMAGE", "-o", "-", "--json", "-"], 2, "one document"),
        (["slim", "IMAGE", "--to", "docker-archive:FOLDER/x", "--json", "FOLDER/x"], 2, "where the image goes"),
        (
            ["slim", "IMAGE", "--to", "oci:FOLDER/x", "--json", "FOLDER/j", "--plan-out", "FOLDER/j"],
            2,
            "another document",
        ),
        (["slim", "IMAGE", "--to", "docker-archive:FOLDER/bad.tar"], 2, "deadweight: error: "),
        (["slim", "IMAGE", "--to", "docker-archive:IMAGE", "--force"], 2, "never changes"),
        (["slim", "docker-archive:IMAGE", "--to", "oci-archive:IMAGE:slim", "--force"], 2, "never changes"),
        (["slim", "IMAGE", "--to", "docker-archive:/proc/x"], 4, "deadweight: error: "),
        (["apply", "FOLDER/none.json", "--to", "oci:FOLDER/x"], 3, "none.json"),
        (["apply", "FOLDER/bad.tar", "--to", "oci:FOLDER/x"], 3, "bad.tar': this is no plan"),
        (["compare"], 2, "IMAGE"),
        (["compare", "IMAGE", "--target-size", "small"], 2, "3GB"),
        (["completion", "tcsh"], 2, "bash"),
        (["no-such-command"], 2, "no-such-command"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_leaves_nothing(
    arguments: list[str], status: int, said: str, image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no image")
    before = sorted(tmp_path.rglob("*"))
    original = Path(image).read_bytes()
    run = Run(capfd, *(text.replace("IMAGE", image).replace("FOLDER", str(tmp_path)) for text in arguments))
    assert run.status == status, run.err
    assert run.out == ""
    assert said in run.err
    if run.err.startswith("deadweight"):
        assert run.err.count("\n") == 1
    assert "Traceback" not in run.err
    assert sorted(tmp_path.rglob("*")) == before
    assert Path(image).read_bytes() == original


def test_an_image_is_not_replaced_by_what_is_made_of_it(
    image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan, link, other = (tmp_path / name for name in ("plan.json", "link.tar", "other.tar"))
    link.symlink_to(image)
    other.write_bytes(b"something else")
    original = Path(image).read_bytes()
    Run(capfd, "plan", image, "-o", str(plan))
    for taken in (image, str(link), str(plan)):
        run = Run(capfd, "apply", str(plan), "--to", f"docker-archive:{taken}", "--force")
        assert (run.status, run.out) == (2, "")
        assert "never changes" in run.err
    assert Path(image).read_bytes() == original
    assert Run(capfd, "apply", str(plan), "--to", f"docker-archive:{other}", "--force").status == 0


def test_an_image_of_a_layout_keeps_its_tag(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    layout = write_oci(tmp_path / "layout", service(), tag="latest")
    before = (layout / "index.json").read_bytes()
    for name in (f"oci:{layout}", f"oci:{layout}:latest", str(layout)):
        run = Run(capfd, "slim", name, "--to", f"oci:{layout}:latest", "--force")
        assert (run.status, run.out) == (2, "")
        assert "never changes" in run.err
    assert (layout / "index.json").read_bytes() == before
    plan = tmp_path / "plan.json"
    assert Run(capfd, "plan", str(layout), "-o", str(plan)).status == 0
    assert Run(capfd, "apply", str(plan), "--to", f"oci:{layout}:latest").status == 2
    assert Run(capfd, "apply", str(plan), "--to", f"oci:{layout}:slim").status == 0
    assert Run(capfd, "inspect", f"oci:{layout}:latest").status == 0


def test_a_pattern_that_matches_nothing_is_said(image: str, capfd: pytest.CaptureFixture[str]) -> None:
    run = Run(capfd, "plan", image, "--keep", "model.bin", "--keep", "/app/model.bin", "-o", "-")
    assert run.status == 0
    assert run.document["schema"] == "deadweight.plan/1"
    assert run.err.startswith("deadweight: --keep 'model.bin' matches nothing")
    assert run.err.count("\n") == 1


def test_a_plan_for_another_image_is_refused(image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = save(tmp_path, service(commands=("a", "b", "c")), "other.tar")
    Run(capfd, "plan", image, "-o", str(tmp_path / "plan.json"))
    run = Run(
        capfd,
        "apply",
        str(tmp_path / "plan.json"),
        "--from",
        str(other),
        "--to",
        f"docker-archive:{tmp_path / 'x.tar'}",
    )
    assert run.status == 3
    assert "make a new plan" in run.err
    assert not (tmp_path / "x.tar").exists()


def test_a_compressed_image_is_unpacked_and_checked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    layout = write_oci(tmp_path / "layout", service(), "v1", "gzip")
    run = Run(capfd, "inspect", f"oci:{layout}:v1", "--json", "-")
    assert run.document["unchecked"] == []
    assert run.document["stored_bytes"] != run.document["bytes"]
    slim = Run(capfd, "slim", f"oci:{layout}:v1", "--to", f"oci:{layout}:slim", "--json", "-")
    assert slim.status == 0, slim.err
    stored, plain = slim.document["compressed_after_bytes"], slim.document["after_bytes"]
    assert isinstance(stored, int)
    assert isinstance(plain, int)
    assert stored < plain


def test_hostile_arguments_and_names_are_shown_safely(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = Run(capfd, "inspect", f"oci:{HOSTILE}")
    assert run.status == 3
    assert "\x1b" not in run.err
    assert run.err.count("\n") == 1
    hostile = save(tmp_path, service(f"x{HOSTILE}"))
    for arguments in (["inspect"], ["plan"]):
        run = Run(capfd, *arguments, str(hostile))
        assert run.status == 0
        assert all(line.isprintable() for line in (run.out + run.err).splitlines())


def test_passes_lists_all_of_them(capfd: pytest.CaptureFixture[str]) -> None:
    run = Run(capfd, "passes")
    assert run.status == 0
    for word in ("shadowed", "lossless", "symbols", "policy", "caches"):
        assert word in run.out
    passes = Run(capfd, "passes", "--json", "-").document["passes"]
    assert isinstance(passes, list)
    assert all(one["name"] in run.out for one in passes)
    assert [one["risk"] for one in passes if one["name"] == "caches"] == ["policy"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    run = Run(capfd, "completion", shell)
    assert run.status == 0
    assert "_DEADWEIGHT_COMPLETE" in run.out


@pytest.mark.parametrize("command", ["inspect", "plan", "apply", "slim", "compare", "passes", "completion"])
def test_every_command_has_help(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    run = Run(capfd, command, "--help")
    assert run.status == 0
    assert command == "passes" or "Examples:" in run.out
    assert all(len(line) <= 100 for line in run.out.splitlines())


@pytest.mark.parametrize("command", ["inspect", "plan", "apply", "slim", "compare", "completion"])
def test_help_has_examples_in_80_columns(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    text = Run(capfd, command, "--help").out
    assert "Examples:\n" in text
    if command != "completion":
        assert max(map(len, text.splitlines())) <= 80


def test_version_and_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert Run(capfd, "--version").out.startswith("deadweight ")
    assert Run(capfd, "-h").status == 0
    assert Run(capfd).status == 2


def test_a_defect_is_one_line_and_a_traceback_on_demand(
    image: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> object:
        raise RuntimeError("a\x1b[31m\nmess")

    monkeypatch.setattr("deadweight.report.inspect.inspect_report", broken)
    run = Run(capfd, "inspect", image)
    assert run.status == 70
    assert "This is a bug in deadweight" in run.err
    assert run.err.count("\n") == 1
    assert "\x1b" not in run.err
    assert "Traceback" in Run(capfd, "--debug", "inspect", image).err
    monkeypatch.setenv("DEADWEIGHT_DEBUG", "1")
    assert "Traceback" in Run(capfd, "inspect", image).err


@pytest.mark.parametrize(
    ("error", "status"), [(OSError(28, "No space left", "x"), 4), (MemoryError(), 4), (KeyboardInterrupt(), 130)]
)
def test_what_the_machine_does_has_its_status(
    error: BaseException, status: int, image: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> object:
        raise error

    monkeypatch.setattr("deadweight.report.inspect.inspect_report", fails)
    run = Run(capfd, "inspect", image)
    assert run.status == status
    assert run.err.strip().count("\n") == 0


def test_documents_go_through_links_and_to_devices_without_replacing_them(
    image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    link = tmp_path / "link.json"
    link.symlink_to("real.json")
    assert Run(capfd, "inspect", image, "--json", str(link)).status == 0
    assert link.is_symlink()
    assert json.loads((tmp_path / "real.json").read_bytes())["bytes"] > 0
    assert (tmp_path / "real.json").stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "real.json"]
    assert Run(capfd, "inspect", image, "--json", os.devnull).status == 0
    assert Path(os.devnull).is_char_device()


def test_a_document_keeps_the_mode_of_what_it_replaces(
    image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / ("\u5831" * 80 + ".json")  # 245 bytes: there is no room for more in a name
    file.touch(0o600)
    file.chmod(0o600)
    assert Run(capfd, "inspect", image, "--json", str(file)).status == 0
    assert json.loads(file.read_bytes())["bytes"] > 0
    assert file.stat().st_mode & 0o777 == 0o600


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_installation_that_is_older_than_its_code_is_said(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "older" not in Run(capfd, "gpus").err
    points = [one for one in entry_points(group="deadweight.passes") if one.name not in ("tests", "symbols")]
    monkeypatch.setattr("deadweight.passes.base.registered", lambda: points)
    run = Run(capfd, "gpus")
    assert run.status == 0
    assert run.err.count("\n") == 1
    assert "runs without passes (symbols, tests): install it again" in run.err
