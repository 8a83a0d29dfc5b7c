"""Probes in an original and in its slim image with a swap: what a build says of itself may differ, nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deadweight import Ledger, Options, apply_plan, open_image
from deadweight.image.reference import parse_destination
from deadweight.planning import draw_up
from deadweight.swap.join import joined
from deadweight.swap.versions import said
from deadweight.verify.model import Observation, Verdict
from deadweight.verify.probes.libraries import NOT_FOUND, _Resolved, differences, less_what_left
from deadweight.verify.probes.run import Done, with_words
from deadweight.verify.spec import LibrariesProbe, Probe, RunProbe, Spec
from deadweight.verify.verification import Setting, verify
from support import mini
from support.images import Member
from support.swapping import NEW, OLD, OLD_INFO, cpu_wheel, gpu_image, installed, saved, swapping

CODE = """
import torch, torch.version
print(torch.__version__, torch.version.cuda)
print('batch 13.0 of', torch.same)
"""
TORCH = {**OLD, "torch/__init__.py": b"from torch.version import __version__\nsame = 13.0\n"}
CPU = {**NEW, "torch/__init__.py": TORCH["torch/__init__.py"]}


def on_mini(members: list[Member]) -> list[Member]:
    """Members of the small fixtures, where the image that runs has its site-packages."""
    return [type(m)(m.name.replace("opt/venv/lib/python3.11/site-packages", mini.SITE), data=m.data) for m in members]


def verified(folder: Path, probes: list[Probe], cpu: dict[str, bytes], tolerance: float = 0.0) -> Verdict:
    old = on_mini(
        installed("torch", "2.9.0", TORCH, ("triton",), info=OLD_INFO)
        + installed("triton", "3.5", {"triton/__init__.py": b"y = 2\n" * 2000})
    )
    before, to = mini.mini_image(folder, old), f"docker-archive:{folder / 'after.tar'}"
    wheel = cpu_wheel(folder / "wheels", cpu, requires=(), entry_points=b"")
    with swapping(before, f"torch={wheel}") as swapped:
        worked = joined(draw_up(swapped.ledger, Options(orphans=swapped.orphans), new=swapped.changed), swapped)
        plan = apply_plan(worked.plan, swapped.original, parse_destination(to), swapped=swapped).plan
        with open_image(to) as after:
            spec = Spec(defaults=False, probe=probes)
            setting = Setting(tolerance=tolerance)
            return verify(swapped.original, Ledger(after), spec, plan=plan, setting=setting, swapped=swapped)


def test_versions_are_no_difference_and_all_else_is(tmp_path: Path) -> None:
    probes: list[Probe] = [RunProbe(name="torch", code=CODE), RunProbe(name="numbers", code="print(0.5)")]
    verdict = verified(tmp_path, probes, CPU)
    assert verdict.same, verdict.probes
    torch = next(probe for probe in verdict.probes if probe.name == "torch")
    assert torch.notes == ["what the swap declares differs: 2.9.0+cu130 -> 2.9.0+cpu, 13.0 -> None"]


def test_tolerance_holds_for_every_probe_and_is_shown(tmp_path: Path) -> None:
    near = {**CPU, "torch/__init__.py": b"from torch.version import __version__\nsame = 13.00001\n"}
    probe: Probe = RunProbe(name="near", code="import torch; print(torch.same)")
    (tmp_path / "a").mkdir()
    assert verified(tmp_path / "a", [probe], near).same is False
    (tmp_path / "b").mkdir()
    verdict = verified(tmp_path / "b", [probe], near, tolerance=1e-5)
    assert verdict.same, verdict.probes
    assert "1e-05 apart (--tolerance)" in " ".join(verdict.notes)


def test_what_two_builds_say_of_themselves(tmp_path: Path) -> None:
    with swapping(saved(tmp_path, gpu_image()), f"torch={cpu_wheel(tmp_path)}") as swapped:
        found = {(each.name, each.before, each.after) for each in said(swapped)}
    assert found == {
        ("version", "2.9.0", "2.9.0+cpu"),
        ("__version__", "2.9.0+cu130", "2.9.0+cpu"),
        ("cuda", "13.0", "None"),
    }


def seen(stdout: str) -> Observation:
    return Observation("", data=Done(0, stdout, {}, []))


@pytest.mark.parametrize(
    ("before", "after", "becomes"),
    [
        ("v 2.9.0+cu130\n", "v 2.9.0+cpu\n", "v 2.9.0+cpu\n"),
        ("2.9.0+cu130 x\n", "2.9.0+cpu y\n", "2.9.0+cu130 x\n"),  # something else differs as well
        ("12.9.0+cu130\n", "12.9.0+cpu\n", "12.9.0+cu130\n"),  # part of another word
        ("13.0\n2.9.0+cu130\n", "13.0\n2.9.0+cpu\n", "13.0\n2.9.0+cpu\n"),  # what is the same stays
        ("13.0\n", "14.0\n", "13.0\n"),
    ],
)
def test_only_lines_that_are_the_same_then(before: str, after: str, becomes: str) -> None:
    words = {"2.9.0+cu130": "2.9.0+cpu", "13.0": "None"}
    assert with_words(seen(before), seen(after), words).data.stdout == becomes


def resolved(**libraries: str) -> Any:
    return _Resolved({name.replace("_", "."): place for name, place in libraries.items()})


def test_libraries_that_left_are_not_missed_and_missing_ones_are() -> None:
    gone, other = {"site/libcuda.so"}, {"site/libcpu.so"}
    probe = LibrariesProbe()

    def told(path: str, one: Any, two: Any) -> list[str]:
        before, after = Observation("", data={path: one}), Observation("", data={path: two})
        return differences(probe, less_what_left(before, after, gone, other), after)

    cuda = {"libcuda_so": "/site/libcuda.so"}
    assert not told("/site/ext.so", resolved(libc_so="/libc.so", rt_so="/rt.so", **cuda), resolved(libc_so="/libc.so"))
    assert not told("/site/libcpu.so", resolved(rt_so="/rt.so"), resolved(gomp_so="/site/gomp.so"))
    assert told("/site/ext.so", resolved(rt_so="/rt.so"), resolved())  # nothing that it has to do with was swapped
    assert told("/site/ext.so", resolved(rt_so="/rt.so", **cuda), resolved(rt_so=NOT_FOUND))
    assert told("/site/ext.so", resolved(rt_so="/rt.so", **cuda), resolved(rt_so="/other/rt.so"))
    assert told("/site/libcpu.so", resolved(), resolved(new_so=NOT_FOUND))
    assert told("/site/libcpu.so", resolved(), _Resolved({}, ["undefined"]))
    assert told("/site/libcpu.so", resolved(), _Resolved({}, [], ["cannot be loaded"]))
