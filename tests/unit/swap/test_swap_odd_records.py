"""RECORDs that are written otherwise than pip does, files of several names or owners, and the proof of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from deadweight.errors import BadInputError
from deadweight.verify.proof.swaps import judge_swaps
from support.careless import untrue_records
from support.images import FixtureImage, Member, hardlink
from support.layers import Seen, merged_view
from support.swapping import (
    MTIME,
    NEW,
    NEW_INFO,
    OLD,
    SITE,
    cpu_wheel,
    gpu_image,
    installed,
    old_torch,
    saved,
    swapping,
    tars,
)

VERSION = "torch/__pycache__/version.cpython-311.pyc"
ONLY = "torch/__pycache__/cuda_only.cpython-311.pyc"


def judged(folder: Path, image: FixtureImage, wheel: Path) -> dict[str, Seen]:
    """The view after a swap that the proof finds nothing wrong with, whose RECORDs are true and list nothing twice."""
    with swapping(saved(folder, image), f"torch={wheel}") as swapped:
        assert judge_swaps(swapped).differences == []
        view = merged_view(tars(swapped))
    assert not untrue_records(view)
    names = [line.partition(",")[0] for line in view[f"{SITE}/{NEW_INFO}/RECORD"].content.decode().splitlines()]
    assert len(names) == len(set(names))
    return view


def edited(members: list[Member], ending: str, change: Callable[[Member], Member]) -> list[Member]:
    return [change(one) if one.name.endswith(ending) else one for one in members]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text + "\n",
        lambda text: text.replace("\n", "\r\n") + "\r\n",
        lambda text: text.replace("RECORD,,", "RECORD"),
        lambda text: text.replace("RECORD,,", "RECORD,sha256=abc,3"),
    ],
)
def test_a_wheels_record_that_pip_takes(edit: Callable[[str], str], tmp_path: Path) -> None:
    judged(tmp_path, gpu_image(), cpu_wheel(tmp_path / "w", edit_record=edit))


def test_lines_of_one_field_in_the_image(tmp_path: Path) -> None:
    def short(one: Member) -> Member:
        return dataclasses.replace(one, data=re.sub(rb"(bin/torchrun|same\.cpython-311\.pyc),[^\n]*", rb"\1", one.data))

    view = judged(tmp_path, gpu_image(torch=edited(old_torch(), "RECORD", short)), cpu_wheel(tmp_path / "w"))
    assert b"bin/torchrun\n" in view[f"{SITE}/{NEW_INFO}/RECORD"].content


def test_a_file_of_two_names_keeps_its_header_where_it_is_replaced(tmp_path: Path) -> None:
    def other(one: Member) -> Member:
        return dataclasses.replace(one, mtime=MTIME - 3, mode=0o640, pax={"SCHILY.xattr.user.of": "it"})

    torch = edited(old_torch(), "torch/version.py", other)
    linked = hardlink("opt/h.py", f"{SITE}/torch/version.py", mtime=MTIME - 3)
    view = judged(tmp_path, gpu_image(linked, torch=torch), cpu_wheel(tmp_path / "w"))
    new = view[f"{SITE}/torch/version.py"]
    assert (new.content, new.mtime, new.mode, new.uid) == (NEW["torch/version.py"], MTIME - 3, 0o640, 7)
    assert view["opt/h.py"].content == OLD["torch/version.py"]


def test_bytecode_that_another_distribution_lists_stays_with_its_module(tmp_path: Path) -> None:
    both = {"torch/cuda_only.py": OLD["torch/cuda_only.py"], ONLY: b"bytecode of " + OLD["torch/cuda_only.py"]}
    view = judged(tmp_path, gpu_image(*installed("shared", "1", both)), cpu_wheel(tmp_path / "w"))
    assert {f"{SITE}/{path}" for path in both} <= view.keys()


def test_bytecode_of_a_module_that_changes_and_another_distribution_lists_is_refused(tmp_path: Path) -> None:
    shared = installed("shared", "1", {VERSION: b"bytecode of " + OLD["torch/version.py"]})
    wheel = cpu_wheel(tmp_path / "w")
    with (
        pytest.raises(BadInputError, match="list its bytecode as theirs"),
        swapping(saved(tmp_path, gpu_image(*shared)), f"torch={wheel}"),
    ):
        pass


def test_the_proof_sees_what_another_distribution_lists_and_is_gone(tmp_path: Path) -> None:
    gone = f"{SITE}/torch/lib/libtorch_cuda.so"
    with swapping(saved(tmp_path, gpu_image()), f"torch={cpu_wheel(tmp_path / 'w')}") as swapped:
        dists = swapped.original.distributions
        dists[:] = [structs.replace(one, files=(gone,)) if one.name == "numpy" else one for one in dists]
        assert judge_swaps(swapped).differences == [(gone, "it is gone, and 'numpy' lists it as its own")]


def test_bytecode_that_a_wheel_brings(tmp_path: Path) -> None:
    view = judged(tmp_path, gpu_image(), cpu_wheel(tmp_path / "w", {**NEW, VERSION: b"its own"}))
    assert view[f"{SITE}/{VERSION}"].content == b"its own"


@pytest.mark.parametrize("name", ["INSTALLER", "REQUESTED"])
def test_who_installed_it_is_no_business_of_the_wheel(name: str, tmp_path: Path) -> None:
    view = judged(tmp_path, gpu_image(), cpu_wheel(tmp_path / "w", {**NEW, f"{NEW_INFO}/{name}": b"conda\n"}))
    assert view[f"{SITE}/{NEW_INFO}/{name}"].content == (b"pip\n" if name == "INSTALLER" else b"")
