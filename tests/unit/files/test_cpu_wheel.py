"""CPU builds are found where pip is told to look, and told from GPU builds by what is in them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from deadweight.errors import BadInputError, UsageError
from deadweight.files.cpu_wheel import CpuWheel, Runs, Sources, find_cpu_wheel, gpu_build, read_cpu_wheel
from support.wheels import make_wheel

RUNS = Runs("3.11", "x86_64", (2, 36))


@pytest.fixture(autouse=True)
def _pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip with no sources but those of a test."""
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def wheel(
    folder: Path,
    version: str = "2.9.0+cpu",
    *,
    name: str = "torch",
    requires: str = "",
    members: dict[str, bytes] | None = None,
    tag: str = "cp311-cp311-manylinux_2_28_x86_64",
) -> Path:
    folder.mkdir(exist_ok=True)
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    head += f"Requires-Dist: {requires}\n" if requires else ""
    code = {f"{name}/lib/libtorch_cpu.so": b"\x7fELF"} if name == "torch" else {}
    return make_wheel(
        folder,
        {**code, **(members or {})},
        name=f"{name}-{version}-{tag}.whl",
        info=f"{name}-{version}.dist-info",
        metadata=head + "\n",
    )


def find(folder: Path, sources: Sources, name: str = "torch", version: str = "2.9.0", runs: Runs = RUNS) -> CpuWheel:
    return find_cpu_wheel(name, version, runs, sources, folder / "into")


def test_a_folder_that_is_named(tmp_path: Path) -> None:
    path = wheel(tmp_path / "links")
    wheel(tmp_path / "links", "2.9.1+cpu")
    wheel(tmp_path / "links", tag="cp312-cp312-manylinux_2_28_x86_64")
    found = find(tmp_path, Sources((str(tmp_path / "links"),)))
    assert (found.path, found.version, found.name) == (path, "2.9.0+cpu", "torch")
    assert find(tmp_path, Sources((path.as_uri(),))).path == path


def test_the_gpu_build_beside_it_is_not_taken(tmp_path: Path) -> None:
    wheel(tmp_path / "links", "2.9.0+cu128", requires="nvidia-nccl-cu12==2.27")
    wheel(tmp_path / "links", "2.9.0", members={"torch/lib/libtorch_cuda.so": b""})
    path = wheel(tmp_path / "links")
    assert find(tmp_path, Sources((str(tmp_path / "links"),))).path == path


@pytest.mark.parametrize("how", ["damaged", "encrypted", "cut"])
def test_a_damaged_wheel_is_refused_and_named(how: str, tmp_path: Path) -> None:
    path = tmp_path / "links" / "torch-2.9.0+cpu-py3-none-any.whl"
    path.parent.mkdir()
    lines = "".join(f"X-{i}: {i * 7919}\n" for i in range(500))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("torch-2.9.0+cpu.dist-info/METADATA", f"Name: torch\nVersion: 2.9.0+cpu\n{lines}")
    data = bytearray(path.read_bytes())
    if how == "damaged":
        data[100:160] = bytes(60)
    elif how == "encrypted":
        data[6] |= 1
        data[data.find(b"PK\1\2") + 8] |= 1
    else:
        del data[60:]
    path.write_bytes(data)
    for attempt in (
        lambda: gpu_build(path, RUNS),
        lambda: read_cpu_wheel(path, "torch", "2.9.0", RUNS),
        lambda: find(tmp_path, Sources((str(tmp_path / "links"),))),
    ):
        with pytest.raises(BadInputError, match=r"torch-2\.9\.0\+cpu-py3-none-any\.whl' is no wheel that can be read"):
            attempt()


def test_where_pip_is_configured_to_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = wheel(tmp_path / "links")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PIP_USER", "1")
    assert find(tmp_path, Sources(), version="2.9.0+cu128").path == path
    assert not (tmp_path / "elsewhere").exists()


def test_a_build_without_a_label_is_judged_by_what_it_requires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    requires = 'nvidia-nccl-cu12==2.27; platform_system == "Linux" and platform_machine == "x86_64"'
    wheel(tmp_path / "links", "2.9.0", requires=requires)
    with pytest.raises(BadInputError, match=r"torch-2\.9\.0-.* GPU build \(it requires nvidia-nccl-cu12\).*find-links"):
        find(tmp_path, Sources())
    # On this machine alone: for another one there is no such requirement.
    arm = wheel(tmp_path / "links", "2.9.0", requires=requires, tag="cp311-cp311-manylinux_2_28_aarch64")
    assert find(tmp_path, Sources(), runs=Runs("3.11", "aarch64", (2, 36))).path == arm


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"no CPU build of torch 2\.9\.0 .*3\.11 on x86_64.*--find-links.*index"):
        find(tmp_path, Sources())
    with pytest.raises(UsageError, match="nowhere"):
        find(tmp_path, Sources((str(tmp_path / "nowhere"),)))
    wheel(tmp_path / "links", tag="cp311-cp311-manylinux_2_40_x86_64")
    with pytest.raises(BadInputError, match="glibc"):
        find(tmp_path, Sources((str(tmp_path / "links"),)))


def test_what_shows_a_gpu_build(tmp_path: Path) -> None:
    assert gpu_build(wheel(tmp_path)) is None
    labelled = gpu_build(wheel(tmp_path, "2.9.0+rocm6.4"))
    assert labelled is not None
    assert "version" in labelled
    for library in ("torch/lib/libc10_cuda.so", "torch.libs/libcudart.faf08d9a.so.13", "torch/lib/libtorch_hip.so"):
        why = gpu_build(wheel(tmp_path, "2.9.1", members={library: b""}))
        assert why is not None
        assert library in why
    linked = wheel(
        tmp_path, "0.24.0", name="torchvision", members={"torchvision/_C.so": b"x" * 999 + b"libc10_cuda.so"}
    )
    assert "torchvision/_C.so" in (gpu_build(linked) or "")
    plain = wheel(tmp_path, "0.24.1", name="torchvision", members={"torchvision/_C.so": b"x" * 999 + b"libc10.so"})
    assert gpu_build(plain) is None


def test_a_wheel_that_is_named_has_to_be_the_right_one(tmp_path: Path) -> None:
    path = wheel(tmp_path)
    assert read_cpu_wheel(path, "torch", "2.9.0", RUNS).sha256
    with pytest.raises(BadInputError, match=r"another version"):
        read_cpu_wheel(path, "torch", "2.9.1", RUNS)
    with pytest.raises(BadInputError, match="not of torchvision"):
        read_cpu_wheel(path, "torchvision", "2.9.0", RUNS)
    with pytest.raises(BadInputError, match=r"3\.12"):
        read_cpu_wheel(path, "torch", "2.9.0", Runs("3.12", "x86_64", (2, 36)))
    with pytest.raises(BadInputError, match="no CPU build"):
        read_cpu_wheel(wheel(tmp_path, "2.9.0+cu128"), "torch", "2.9.0", RUNS)
    damaged = tmp_path / "torch-2.9.0+cpu-cp311-cp311-linux_x86_64.whl"
    damaged.write_bytes(b"no zip")
    with pytest.raises(BadInputError, match="no wheel"):
        read_cpu_wheel(damaged, "torch", "2.9.0", RUNS)
