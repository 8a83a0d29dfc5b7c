"""What cannot be swapped is refused with its reason, and wheels are hostile."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from deadweight.errors import BadInputError, UsageError
from deadweight.swap.find import parse_swaps
from deadweight.verify.proof.swaps import judge_swaps
from support.images import FixtureImage, Member, file, make_image, make_tar, symlink, whiteout
from support.swapping import NEW, OLD, SITE, cpu_wheel, gpu_image, installed, old_torch, saved, swapping, tars


def refused(
    folder: Path,
    wheel: Path,
    image: FixtureImage | None = None,
    kind: type[Exception] = BadInputError,
    keep: frozenset[int] = frozenset(),
) -> str:
    reference = saved(folder, gpu_image() if image is None else image)
    with pytest.raises(kind) as error, swapping(reference, f"torch={wheel}", keep_layers=keep):
        pass
    return str(error.value)


def test_another_version_is_another_program(tmp_path: Path) -> None:
    assert "not the same version" in refused(tmp_path, cpu_wheel(tmp_path, version="2.9.1+cpu"))


def test_another_distribution(tmp_path: Path) -> None:
    assert "a wheel of touch, not of torch" in refused(tmp_path, cpu_wheel(tmp_path, name="touch"))


@pytest.mark.parametrize(
    "tag", ["cp312-cp312-linux_x86_64", "cp311-cp311-linux_aarch64", "cp311-cp311-macosx_14_0_arm64"]
)
def test_another_machine_or_python(tag: str, tmp_path: Path) -> None:
    assert "does not run in the image: it has to be for Python 3.11" in refused(tmp_path, cpu_wheel(tmp_path, tag=tag))


def test_a_newer_c_library(tmp_path: Path) -> None:
    """What is for a newer one than the image has is not taken; for its own or an older one is."""
    libc = file("usr/lib/x86_64-linux-gnu/libc.so.6", b"GNU C Library (Debian GLIBC) stable release version 2.36.\n")
    image = gpu_image(libc)
    wheel = cpu_wheel(tmp_path, tag="cp311-cp311-manylinux_2_39_x86_64")
    assert "glibc 2.36" in refused(tmp_path, wheel, image)
    older = cpu_wheel(tmp_path, tag="cp311-cp311-manylinux_2_28_x86_64")
    with swapping(saved(tmp_path, image), f"torch={older}") as swapped:
        assert swapped.swaps[0].after == "2.9.0+cpu"


def test_requirements_that_the_image_does_not_satisfy(tmp_path: Path) -> None:
    wheel = cpu_wheel(tmp_path, requires=("sympy>=1.15", "mpmath", "numpy; sys_platform == 'win32'"))
    said = refused(tmp_path, wheel)
    assert "torch requires 'mpmath', and nothing of the name is installed" in said
    assert "torch requires 'sympy>=1.15', and sympy 1.14 is installed" in said
    assert "numpy" not in said


def test_what_others_require_of_it(tmp_path: Path) -> None:
    vision = installed("torchvision", "0.24", {"torchvision/__init__.py": b""}, ("torch==2.9.0+cu130", "gone"))
    image = gpu_image(*vision, torch=[*installed("torch", "2.9.0+cu130", OLD)])
    assert "torchvision requires 'torch==2.9.0+cu130'" in refused(tmp_path, cpu_wheel(tmp_path), image)
    loose = installed("torchvision", "0.24", {"torchvision/__init__.py": b""}, ("torch==2.9.0", "gone"))
    with swapping(saved(tmp_path, gpu_image(*loose)), f"torch={cpu_wheel(tmp_path)}"):
        pass  # what did not hold before, as `gone`, is nothing new


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda r: r.replace("torch/same.py,sha256=", "torch/same.py,sha256=A"), "not what its RECORD says"),
        (lambda r: "".join(x for x in r.splitlines(True) if not x.startswith("torch/same.py")), "does not list"),
        (lambda r: r + "torch/more.py,sha256=AAAA,3\n", "which is not in it"),
        (lambda r: r.replace("torch/same.py,sha256=", "torch/same.py,md5="), "has no sha256 there"),
        (lambda r: r.replace(f",{len(NEW['torch/version.py'])}\n", ",1\n"), "or another size"),
    ],
)
def test_a_record_that_lies(edit: Callable[[str], str], said: str, tmp_path: Path) -> None:
    assert said in refused(tmp_path, cpu_wheel(tmp_path, edit_record=edit))


def test_a_changed_member_under_an_old_hash(tmp_path: Path) -> None:
    old = base64.urlsafe_b64encode(hashlib.sha256(NEW["torch/version.py"]).digest()).rstrip(b"=").decode()
    evil = NEW["torch/version.py"].replace(b"cpu", b"gpu")
    new = base64.urlsafe_b64encode(hashlib.sha256(evil).digest()).rstrip(b"=").decode()
    wheel = cpu_wheel(tmp_path, {**NEW, "torch/version.py": evil}, edit_record=lambda record: record.replace(new, old))
    assert "is not what its RECORD says" in refused(tmp_path, wheel)


@pytest.mark.parametrize("name", ["../../../../etc/passwd", "/etc/passwd", "torch/../../x", "torch//x", "C:/x", "a\\b"])
def test_names_that_lead_elsewhere(name: str, tmp_path: Path) -> None:
    assert "has a name that no wheel should have" in refused(tmp_path, cpu_wheel(tmp_path, {**NEW, name: b"x"}))


def test_what_goes_elsewhere_than_into_site_packages(tmp_path: Path) -> None:
    for kind in ("scripts", "data", "headers"):
        wheel = cpu_wheel(tmp_path, {**NEW, f"torch-2.9.0+cpu.data/{kind}/x": b"x"})
        assert "goes elsewhere than into site-packages" in refused(tmp_path, wheel)
    wheel = cpu_wheel(tmp_path, {**NEW, "torch-2.9.0+cpu.data/platlib/torch/x": b"x"})
    with swapping(saved(tmp_path, gpu_image()), f"torch={wheel}") as swapped:
        assert swapped.ledger.fs.read(f"{SITE}/torch/x") == b"x"


def test_files_of_others_are_not_overwritten(tmp_path: Path) -> None:
    wheel = cpu_wheel(tmp_path, {**NEW, "numpy/__init__.py": b"evil"})
    assert "which is numpy's in the image" in refused(tmp_path, wheel)
    beside = cpu_wheel(tmp_path, {**NEW, "numpy": b"evil"})
    assert "not overwritten" in refused(tmp_path, beside)


def test_files_that_others_list_as_well(tmp_path: Path) -> None:
    """What two distributions list is removed with neither, and changed by none."""
    shared = {"torch/same.py": OLD["torch/same.py"], "torch/cuda_only.py": OLD["torch/cuda_only.py"]}
    twice = {f"{SITE}/{path}" for path in shared}
    other = [member for member in installed("torch-extras", "1", shared) if member.name not in twice]
    with swapping(saved(tmp_path, gpu_image(*other)), f"torch={cpu_wheel(tmp_path)}") as swapped:
        assert twice <= swapped.ledger.fs.nodes.keys()
        assert not judge_swaps(swapped).differences
    wheel = cpu_wheel(tmp_path, {**NEW, "torch/same.py": b"x = 2\n"})
    assert "which other distributions list" in refused(tmp_path, wheel, gpu_image(*other))


@pytest.mark.parametrize("name", ["torch/.wh.same.py", ".wh.numpy", "torch/.wh..wh..opq", "torch/.wh.x/y"])
def test_names_that_delete_in_a_layer(name: str, tmp_path: Path) -> None:
    assert "such a name deletes" in refused(tmp_path, cpu_wheel(tmp_path, {**NEW, name: b""}))


def test_metadata_of_another_distribution(tmp_path: Path) -> None:
    hidden = "torch-2.9.0+cpu.data/purelib/numpy-9.dist-info/METADATA"
    assert "of another distribution" in refused(tmp_path, cpu_wheel(tmp_path, {**NEW, hidden: b"Name: numpy\n"}))


def test_nothing_goes_through_a_link(tmp_path: Path) -> None:
    wheel = cpu_wheel(tmp_path, {**NEW, "torch/etc/passwd": b"evil"})
    link = symlink(f"{SITE}/torch/etc", "/etc")
    assert "/torch/etc is a symlink in the image" in refused(tmp_path, wheel, gpu_image(link))


@pytest.mark.parametrize(
    "member",
    [whiteout(f"{SITE}/torch/bin"), file(f"{SITE}/torch/bin", b"a file where a folder goes")],
    ids=lambda member: member.name,
)
def test_later_layers_that_hide_what_would_be_new(member: Member, tmp_path: Path) -> None:
    image = gpu_image(layers=(make_tar(member),))
    said = refused(tmp_path, cpu_wheel(tmp_path), image)
    assert "layer 4 has" in said or "torch/bin is a file in the image" in said


def test_a_distribution_without_a_record(tmp_path: Path) -> None:
    torch = [member for member in old_torch() if not member.name.endswith("/RECORD")]
    assert "cannot be swapped: it has no RECORD" in refused(tmp_path, cpu_wheel(tmp_path), gpu_image(torch=torch))


def test_condas_and_debians(tmp_path: Path) -> None:
    conda = installed("torch", "2.9.0", OLD)
    conda = [m if not m.name.endswith("/INSTALLER") else file(m.name, b"conda\n") for m in conda]
    assert "conda" in refused(tmp_path, cpu_wheel(tmp_path), gpu_image(torch=conda))
    listed = f"/{SITE}/torch-2.9.0.dist-info/RECORD\n".encode()
    status = b"Package: python3-torch\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2\n"
    debian = gpu_image(file("var/lib/dpkg/info/python3-torch.list", listed), file("var/lib/dpkg/status", status))
    assert "Debian package" in refused(tmp_path, cpu_wheel(tmp_path), debian)


def test_layers_that_are_to_stay(tmp_path: Path) -> None:
    said = refused(tmp_path, cpu_wheel(tmp_path), None, UsageError, frozenset({0, 1}))
    assert "changes layer 2, which is to stay" in said


def test_the_same_build_again(tmp_path: Path) -> None:
    wheel = cpu_wheel(tmp_path)
    with swapping(saved(tmp_path, gpu_image()), f"torch={wheel}") as swapped:
        done = make_image(*tars(swapped))
    assert "has this build of torch already" in refused(tmp_path, wheel, done, UsageError)


def test_two_of_one_name(tmp_path: Path) -> None:
    second = [type(m)(m.name.replace("opt/venv", "opt/other"), data=m.data) for m in installed("torch", "2.9.0", OLD)]
    assert "installed 2 times" in refused(tmp_path, cpu_wheel(tmp_path), gpu_image(*second))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("torch", "say NAME=cpu or NAME=FILE.whl"),
        ("=cpu", "say NAME=cpu"),
        ("torch=", "say NAME=cpu"),
        ("torch=rocm", "neither cpu nor a wheel file"),
        ("torch=missing.whl", "there is no file 'missing.whl'"),
    ],
)
def test_what_cannot_be_meant(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_swaps([text])
    with pytest.raises(UsageError, match="twice"):
        parse_swaps(["torch=cpu", "Torch=cpu"])


def test_what_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean torch"), swapping(saved(tmp_path, gpu_image()), "torhc=cpu"):
        pass


def test_a_cpu_build_needs_no_cpu_build(tmp_path: Path) -> None:
    image = gpu_image(torch=installed("torch", "2.9.0+cpu", NEW))
    with pytest.raises(UsageError, match="CPU build already"), swapping(saved(tmp_path, image), "torch=cpu"):
        pass
