"""Plans with a swap: exact, reproducible, honest about what leaves and what stays, and proved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deadweight import Ledger, Options, Plan, apply_plan, make_plan, open_image, read_plan, write_plan
from deadweight.cli import main
from deadweight.errors import DigestError, PlanError
from deadweight.image.reference import parse_destination
from deadweight.passes.base import all_passes
from deadweight.plan import SWAP
from deadweight.planning import draw_up
from deadweight.swap.join import joined
from deadweight.swap.swapped import Swapped
from deadweight.verify.proof import Proof, prove
from deadweight.verify.proof.swaps import judge_swaps
from support.careless import untrue_records
from support.images import FixtureImage, Member, file, make_image, make_tar
from support.layers import merged_view
from support.swapping import (
    NEW,
    NEW_INFO,
    OLD,
    SITE,
    cpu_wheel,
    gpu_image,
    installed,
    library,
    old_torch,
    saved,
    swapping,
    tars,
)


@pytest.fixture
def image(tmp_path: Path) -> str:
    return saved(tmp_path, gpu_image())


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return cpu_wheel(tmp_path / "wheels")


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "COLUMNS", "DEADWEIGHT_DEBUG", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def planned(swapped: Swapped, *roots: str) -> Plan:
    options = Options(orphans=swapped.orphans, roots=roots)
    return joined(draw_up(swapped.ledger, options, new=swapped.changed), swapped).plan


def slim(folder: Path, image: str, *more: str, name: str = "slim.tar", status: int = 0) -> str:
    """Slims by the command line; gives the reference of the result."""
    to = f"docker-archive:{folder / name}"
    assert main(["slim", image, "--to", to, *more]) == status
    return to


def layers(reference: str) -> list[bytes]:
    with open_image(reference) as opened:
        for layer in opened.layers:
            layer.check()
        return [b"".join(layer.tar.chunks()) for layer in opened.layers]


def test_what_only_the_old_build_needed_leaves(image: str, wheel: Path, tmp_path: Path) -> None:
    plan_file, report = tmp_path / "plan.json", tmp_path / "report.json"
    to = slim(tmp_path, image, "--swap", f"torch={wheel}", "--plan-out", str(plan_file), "--json", str(report))
    view = merged_view(layers(to))
    assert not untrue_records(view)
    assert not any(path.startswith((f"{SITE}/nvidia", f"{SITE}/triton")) for path in view)
    assert {f"{SITE}/sympy/__init__.py", f"{SITE}/{NEW_INFO}/METADATA"} <= view.keys()
    plan = json.loads(plan_file.read_bytes())
    assert plan["swaps"] == [
        {
            "name": "torch",
            "before": "2.9.0",
            "after": "2.9.0+cpu",
            "wheel": wheel.name,
            "sha256": plan["swaps"][0]["sha256"],
            "source": str(wheel),
            "dropped": ["nvidia-cublas==13.0", "triton==3.5"],
        }
    ]
    saved_bytes = sum(cut["before_bytes"] - cut["after_bytes"] for cut in plan["cuts"])
    assert plan["before_bytes"] - saved_bytes == plan["predicted_bytes"] == sum(map(len, layers(to)))
    assert plan["before_bytes"] == sum(map(len, layers(image)))
    notes = " ".join(json.loads(report.read_bytes())["notes"])
    assert "lost: linear algebra on GPUs (nvidia-cublas 13.0)" in notes
    assert "Triton's kernels, and with them torch.compile for GPUs (triton 3.5)" in notes
    with open_image(to) as opened:
        assert opened.run_config["Labels"]["deadweight.swap"] == "torch 2.9.0 -> 2.9.0+cpu"


def test_a_saved_plan_gives_the_same_layers(image: str, wheel: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    one = slim(tmp_path, image, "--swap", f"torch={wheel}", "--plan-out", str(plan))
    assert main(["apply", str(plan), "--to", f"docker-archive:{tmp_path / 'again.tar'}"]) == 0
    with open_image(one) as a, open_image(f"docker-archive:{tmp_path / 'again.tar'}") as b:
        assert a.config_bytes == b.config_bytes
    moved = wheel.rename(tmp_path / wheel.name)
    assert main(["apply", str(plan), "--to", f"docker-archive:{tmp_path / 'third.tar'}"]) == 3
    links = ["--find-links", str(tmp_path)]
    assert main(["apply", str(plan), "--to", f"docker-archive:{tmp_path / 'third.tar'}", *links]) == 0
    moved.write_bytes(cpu_wheel(tmp_path / "other", {**NEW, "torch/same.py": b"x = 2\n"}).read_bytes())
    assert main(["apply", str(plan), "--to", f"docker-archive:{tmp_path / 'fourth.tar'}", *links]) == 3
    assert not (tmp_path / "fourth.tar").exists()


def test_where_the_wheel_lay_is_no_part_of_what_was_done(image: str, wheel: Path, tmp_path: Path) -> None:
    one = slim(tmp_path, image, "--swap", f"torch={wheel}")
    (tmp_path / "elsewhere").mkdir()
    moved = wheel.rename(tmp_path / "elsewhere" / wheel.name)
    two = slim(tmp_path, image, "--swap", f"torch={moved}", name="two.tar")
    with open_image(one) as a, open_image(two) as b:
        assert a.config_bytes == b.config_bytes


def test_a_swap_and_nothing_else(image: str, wheel: Path, tmp_path: Path) -> None:
    """A layer that no pass touches is the swapped one all the same."""
    skip = [word for one in all_passes() for word in ("--skip", one.name)]
    to = slim(tmp_path, image, "--swap", f"torch={wheel}", *skip)
    with swapping(image, f"torch={wheel}") as swapped:
        assert layers(to) == tars(swapped)


def test_a_plan_without_swaps_is_as_it_was(image: str) -> None:
    with open_image(image) as opened:
        plan = make_plan(Ledger(opened))
    written = json.loads(write_plan(plan))
    assert "swaps" not in written
    assert "orphans" not in written["options"]
    assert read_plan(write_plan(plan)) == plan


def test_a_plan_with_swaps_is_not_applied_without(image: str, wheel: Path, tmp_path: Path) -> None:
    with swapping(image, f"torch={wheel}") as swapped:
        plan = planned(swapped)
    with open_image(image) as opened, pytest.raises(PlanError, match="has to be done first"):
        apply_plan(plan, Ledger(opened), parse_destination(f"oci:{tmp_path / 'x'}"))
    assert not (tmp_path / "x").exists()


def test_cuts_that_are_taken_out_of_a_plan_stay_out(image: str, wheel: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert main(["plan", image, "--swap", f"torch={wheel}", "-o", str(plan)]) == 0
    data = json.loads(plan.read_bytes())
    data["cuts"] = [cut for cut in data["cuts"] if "/triton" not in cut["path"] and cut["pass"] != SWAP]
    plan.write_text(json.dumps(data))
    assert main(["apply", str(plan), "--to", f"docker-archive:{tmp_path / 'edited.tar'}"]) == 0
    view = merged_view(layers(f"docker-archive:{tmp_path / 'edited.tar'}"))
    assert f"{SITE}/triton/__init__.py" in view
    assert view[f"{SITE}/torch/version.py"].content == NEW["torch/version.py"]


@pytest.mark.parametrize(
    ("extra", "roots", "stays", "reason"),
    [
        (installed("bits", "1", {"bits/__init__.py": b""}, ("triton",)), (), "triton", "required by bits"),
        ([file("app/more.py", b"import triton\n")], (), "triton", "/app/more.py imports it"),
        ([], ("nvidia-nvrtc",), "nvidia-nvrtc", "--root names it"),
        (
            installed("custom", "1", {"custom/fast.so": library("fast.so", "libnvrtc.so.13")}),
            (),
            "nvidia-nvrtc",
            f"/{SITE}/custom/fast.so needs its libnvrtc.so.13",
        ),
    ],
    ids=["required", "imported", "root", "loaded"],
)
def test_what_something_else_needs_stays(
    extra: list[Member], roots: tuple[str, ...], stays: str, reason: str, wheel: Path, tmp_path: Path
) -> None:
    with swapping(saved(tmp_path, gpu_image(*extra)), f"torch={wheel}") as swapped:
        plan = planned(swapped, *roots)
    removed = {cut.path for cut in plan.cuts if cut.action == "remove"}
    assert not any(stays.replace("-", "_") in path for path in removed)
    assert any(stays in note and reason in note for note in plan.notes), plan.notes
    assert any("cublas" in path for path in removed)


# --- the proof -----------------------------------------------------------------------------------------


@pytest.fixture
def done(image: str, wheel: Path, tmp_path: Path) -> Iterator[tuple[Swapped, Plan, str]]:
    plan = tmp_path / "plan.json"
    to = slim(tmp_path, image, "--swap", f"torch={wheel}", "--plan-out", str(plan))
    with swapping(image, f"torch={wheel}") as swapped:
        yield swapped, read_plan(plan.read_bytes()), to


def proof_of(swapped: Swapped, plan: Plan, after: str) -> Proof:
    with open_image(after) as result:
        return prove(swapped.original, Ledger(result), plan, swapped=swapped)


def test_the_proof_understands_a_swap(done: tuple[Swapped, Plan, str]) -> None:
    proof = proof_of(*done)
    assert [result.outcome for result in proof.results] == ["same", "same"], proof.results
    assert any("2.9.0 -> 2.9.0+cpu: 2 files are as they were" in note for note in proof.results[0].notes)
    assert f"{SITE}/torch/lib/libtorch_cuda.so" in proof.declared
    assert f"{SITE}/torch/version.py" in proof.other
    assert f"{SITE}/torch/version.py" not in proof.equal.values()


def mixed(swapped: Swapped, other: Swapped) -> list[str]:
    """What the proof says of another image that is said to be this swap's."""
    forged = replace(swapped, ledger=other.ledger)
    return [f"{path}: {how}" for path, how in judge_swaps(forged).differences]


def test_a_build_that_is_not_the_wheels_is_found(done: tuple[Swapped, Plan, str], image: str, tmp_path: Path) -> None:
    """The proof holds the swapped image to the wheel itself, whatever was swapped in."""
    swapped, _, _ = done
    assert not mixed(swapped, swapped)
    other = cpu_wheel(tmp_path / "evil", {**NEW, "torch/same.py": b"x = 9\n", "torch/more.py": b""})
    with swapping(image, f"torch={other}") as wrong:
        found = mixed(swapped, wrong)
    assert f"{SITE}/torch/same.py: it is not what the wheel's RECORD says of it" in found
    assert f"{SITE}/torch/more.py: it is new, and no build has it" in found
    assert [line for line in found if "RECORD" in line and "torch/more.py" in line]


def test_what_is_neither_the_originals_nor_the_wheels_is_found(
    done: tuple[Swapped, Plan, str], wheel: Path, tmp_path: Path
) -> None:
    swapped, _, _ = done
    more = installed("triton", "3.5", {"triton/__init__.py": b"evil\n" * 2400})  # as many bytes as there were
    changed = gpu_image(file("etc/motd", b"hello"), *more, torch=[m for m in old_torch() if "torchrun" not in m.name])
    with swapping(saved(tmp_path, changed, "other.tar"), f"torch={wheel}") as wrong:
        found = mixed(swapped, wrong)
    assert "etc/motd: it is new, and no build has it" in found
    assert f"{SITE}/triton/__init__.py: its content differs, and it is no file of the build" in found
    less = gpu_image(torch=[member for member in old_torch() if not member.name.endswith("/INSTALLER")])
    with swapping(saved(tmp_path, less, "less.tar"), f"torch={wheel}") as wrong:
        assert f"{SITE}/{NEW_INFO}/INSTALLER: it is not as it was" in mixed(swapped, wrong)
    base = make_image(make_tar(), *gpu_image().layers[1:])
    with swapping(saved(tmp_path, base, "base.tar"), f"torch={wheel}") as wrong:
        found = mixed(swapped, wrong)
    assert "usr/lib/python3.11/os.py: it is gone, and did not belong to the build that left" in found


def test_a_flipped_byte_in_the_result_is_found(done: tuple[Swapped, Plan, str], tmp_path: Path) -> None:
    swapped, plan, after = done
    data = Path(after.removeprefix("docker-archive:")).read_bytes()
    content = NEW["torch/lib/libtorch_cpu.so"]
    assert data.count(content) == 1
    evil = tmp_path / "evil.tar"
    evil.write_bytes(data.replace(content, content[:-1] + b"!"))
    with open_image(f"docker-archive:{evil}") as result, pytest.raises(DigestError):
        prove(swapped.original, Ledger(result), plan, swapped=swapped)
    with open_image(after) as result:
        images = FixtureImage(tuple(b"".join(layer.tar.chunks()) for layer in result.layers), result.config)
    forged = make_image(
        *(layer.replace(content, content[:-1] + b"!") for layer in images.layers), run=result.run_config
    )
    details = proof_of(swapped, plan, saved(tmp_path, forged, "forged.tar")).results[0].details
    assert [line for line in details if "libtorch_cpu.so" in line and "its content differs" in line]


def test_verify_needs_the_wheel_again(image: str, wheel: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    to = slim(tmp_path, image, "--swap", f"torch={wheel}", "--plan-out", str(plan))
    words = ["verify", image, to, "--static-only", "--plan", str(plan)]
    assert main(words) == 0
    wheel.rename(tmp_path / wheel.name)
    assert main(words) == 3
    assert main([*words, "--find-links", str(tmp_path)]) == 0


# --- finding a CPU build -------------------------------------------------------------------------------


def test_pip_finds_a_cpu_build(image: str, tmp_path: Path) -> None:
    cpu_wheel(tmp_path / "links", {**NEW, "torch/lib/libtorch_cpu.so": NEW["torch/lib/libtorch_cpu.so"]})
    slim(tmp_path, image, "--swap", "torch=cpu", "--find-links", str(tmp_path / "links"))
    view = merged_view(layers(f"docker-archive:{tmp_path / 'slim.tar'}"))
    assert view[f"{SITE}/torch/version.py"].content == NEW["torch/version.py"]


def test_no_cpu_build_says_what_to_pass(image: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    slim(tmp_path, image, "--swap", "torch=cpu", status=3)
    said = capfd.readouterr().err
    assert "no CPU build of torch 2.9.0 was found for Python 3.11 on x86_64" in said
    assert "--find-links" in said
    assert "--index-url" in said


@pytest.mark.parametrize(
    "words", [["--find-links", "x"], ["--index-url", "x"], ["--swap", "torch=cpu", "--risk", "lossless"]]
)
def test_options_that_mean_nothing(words: list[str], image: str, tmp_path: Path) -> None:
    slim(tmp_path, image, *words, status=2)


def test_two_swaps_at_once(tmp_path: Path, wheel: Path) -> None:
    vision = installed("torchvision", "0.24", {"torchvision/a.py": b"old"}, ("torch==2.9.0",))
    other = cpu_wheel(
        tmp_path / "wheels", {"torchvision/a.py": b"new!"}, name="torchvision", version="0.24+cpu", requires=("torch",)
    )
    image = saved(tmp_path, gpu_image(*vision))
    to = slim(tmp_path, image, "--swap", f"torch={wheel}", "--swap", f"torchvision={other}")
    view = merged_view(layers(to))
    assert view[f"{SITE}/torchvision/a.py"].content == b"new!"
    assert not untrue_records(view)
    with open_image(to) as opened:
        said = opened.run_config["Labels"]["deadweight.swap"]
    assert said == "torch 2.9.0 -> 2.9.0+cpu, torchvision 0.24 -> 0.24+cpu"
    assert OLD["torch/version.py"] not in {seen.content for seen in view.values()}
