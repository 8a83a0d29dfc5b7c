"""`deadweight doctor`: what was slimmed for which GPUs, and the GPUs that are there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deadweight.cli import main
from deadweight.doctor import machine
from support.elf import gcc
from support.images import file, make_image, make_tar, symlink
from support.service import HOSTILE, save

# A stand-in for NVIDIA's driver, which needs a GPU: the functions that doctor calls, with the signatures and numbers of
# cuda.h. FAKE_GPUS lists the GPUs ("Tesla T4:75;..."), FAKE_CUDA says how it misbehaves.
LIBCUDA = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int started;
static char *is(const char *how) { char *set = getenv("FAKE_CUDA"); return set && strstr(set, how) ? set : 0; }
static int find(int device, char *name, int length) {
    char *at = getenv("FAKE_GPUS");
    while (at && *at && device--) { at = strchr(at, ';'); at += at != 0; }
    if (!at || !*at) return -1;
    char *colon = strchr(at, ':');
    if (name) snprintf(name, length, "%.*s", (int)(colon - at), at);
    return atoi(colon + 1);
}
int cuInit(unsigned flags) {
    if (is("crash")) abort();
    if (is("hang")) for (;;) pause();
    if (is("chatty")) printf("driver: hello\n");
    if (is("mismatch")) return 803;
    if (flags) return 1;
    started = 1;
    return find(0, 0, 0) < 0 ? 100 : 0;
}
int cuDeviceGetCount(int *count) {
    for (*count = 0; find(*count, 0, 0) >= 0; ++*count);
    return started ? 0 : 3;
}
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 40; return find(ordinal, 0, 0) < 0 ? 101 : 0; }
int cuDeviceGetName(char *name, int length, int device) {
    return is("nameless") || find(device - 40, name, length) < 0 ? 101 : 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int sm = find(device - 40, 0, 0);
    if (attribute != 75 && attribute != 76) return 1;
    *value = attribute == 75 ? sm / 10 : sm % 10;
    return sm < 0 ? 101 : 0;
}
"""
T4, H100, L4, B200 = "Tesla T4:75", "NVIDIA H100 80GB HBM3:90", "NVIDIA L4:89", "NVIDIA B200:100"
Fake = Callable[..., None]


class Run:
    """What a call gave."""

    def __init__(self, capfd: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = main(["doctor", *arguments])
        self.out, self.err = capfd.readouterr()

    @property
    def document(self) -> dict[str, Any]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "COLUMNS", "DEADWEIGHT_DEBUG", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gcc(tmp_path_factory.mktemp("driver"), "libcuda.so.1", LIBCUDA, "-shared", "-fPIC")


@pytest.fixture
def driver(library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Fake:
    """Sets the machine's GPUs: a driver with these (None: no driver), and perhaps an nvidia-smi."""
    programs, without = tmp_path_factory.mktemp("bin"), tmp_path_factory.mktemp("without")
    (without / "libcuda.so.1").touch()  # found before the real one, where there is one

    def fake(*gpus: str | None, how: str = "", smi: str | None = None) -> None:
        monkeypatch.setenv("LD_LIBRARY_PATH", str(without if None in gpus else library.parent))
        monkeypatch.setenv("FAKE_GPUS", ";".join(filter(None, gpus)))
        monkeypatch.setenv("FAKE_CUDA", how)
        monkeypatch.setenv("PATH", str(programs))
        if smi is not None:
            script = f"#!/bin/sh\n[ \"$*\" = '--query-gpu=name,compute_cap --format=csv,noheader' ] || exit 1\n{smi}\n"
            (programs / "nvidia-smi").write_text(script)
            (programs / "nvidia-smi").chmod(0o755)

    return fake


def target(*gpus: str, keep_ptx: bool = False, **more: object) -> bytes:
    document = {
        "schema": "deadweight.target/1",
        "gpus": gpus,
        "keep_ptx": keep_ptx,
        "raw_blobs": False,
        "deadweight": "0.1.0",
    }
    return json.dumps({**document, **more}).encode()


def root(folder: Path, *gpus: str, keep_ptx: bool = False) -> str:
    """A root file system with the document."""
    (folder / "usr/share/deadweight").mkdir(parents=True, exist_ok=True)
    (folder / "usr/share/deadweight/target.json").write_bytes(target(*gpus, keep_ptx=keep_ptx))
    return str(folder)


@pytest.mark.parametrize(
    ("slimmed_for", "ptx", "gpus", "status", "said"),
    [
        (["sm_90"], False, [H100], 0, "code for NVIDIA H100 80GB HBM3 (sm_90) stayed"),
        (["sm_75", "sm_90"], True, [H100, T4], 0, "code for Tesla T4 (sm_75) stayed"),
        (["sm_80", "sm_86"], False, [L4], 0, "NVIDIA L4 (sm_89) runs the code for sm_86 that stayed; code that only"),
        (["sm_90"], True, [B200], 0, "Libraries that carry PTX still work"),
        (["sm_90"], False, [B200], 1, "GPU code for NVIDIA B200 (sm_100) was removed. Add --gpu sm_100 and slim"),
        (["sm_90"], True, [T4], 1, "GPU code for Tesla T4 (sm_75) was removed. Add --gpu sm_75"),
        (["sm_90"], True, [T4], 1, "or run it on NVIDIA H20, NVIDIA H100, NVIDIA H200, "),
        (["sm_90"], True, [H100, T4], 1, "GPU code for Tesla T4 (sm_75) was removed"),
        (["sm_75", "sm_120"], True, [H100], 1, "GPU code for NVIDIA H100 80GB HBM3 (sm_90) was removed"),
        (["sm_89"], False, ["NVIDIA A10:86"], 1, "GPU code for NVIDIA A10 (sm_86) was removed"),
        (["sm_86"], False, ["Orin:87"], 1, "GPU code for Orin (sm_87) was removed"),
        ([], False, [T4], 1, "was slimmed for machines without a GPU: GPU code for Tesla T4 (sm_75) was removed"),
        ([], True, [T4], 1, "Add --gpu sm_75 and slim the original again\n"),
    ],
)
def test_verdicts(
    slimmed_for: list[str],
    ptx: bool,
    gpus: list[str],
    status: int,
    said: str,
    driver: Fake,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    driver(*gpus)
    where = root(tmp_path, *slimmed_for, keep_ptx=ptx)
    run = Run(capfd, "--root", where)
    assert (run.status, run.err) == (status, "")
    assert said in run.out
    assert len(run.out.splitlines()) == len(gpus), "one line each"
    assert all(line.startswith(f"{where} was slimmed for ") for line in run.out.splitlines())


def test_the_document_says_the_same(driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    driver(H100, B200, H100, T4)
    where = root(tmp_path, "sm_90", keep_ptx=True)
    run = Run(capfd, "--root", where, "--json", "-")
    assert (run.status, run.err) == (1, "")
    document = run.document
    assert document["schema"] == "deadweight.doctor/1"
    assert (document["verdict"], document["notes"]) == ("removed", [])
    found = [(one["gpu"], one["sm"], one["verdict"]) for one in document["findings"]]
    assert found == [
        ("NVIDIA H100 80GB HBM3", "sm_90", "fits"),
        ("NVIDIA B200", "sm_100", "ptx"),
        ("Tesla T4", "sm_75", "removed"),
    ]
    assert all(one["place"] == where and one["slimmed_for"] == ["sm_90"] for one in document["findings"])
    people = Run(capfd, "--root", where)
    assert people.out.splitlines() == [one["says"] for one in document["findings"]]


class TestWhereItLooks:
    def test_a_pruned_directory(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(T4)
        (tmp_path / "deadweight-target.json").write_bytes(target("sm_90"))
        run = Run(capfd, "--root", str(tmp_path))
        assert run.status == 1
        assert run.out.startswith(f"{tmp_path} was slimmed for sm_90: GPU code for Tesla T4")

    def test_what_python_imports_from(
        self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver(T4)
        site, venv = tmp_path / "site", tmp_path / "venv"
        for one, gpu in ((site, "sm_90"), (venv, "sm_75")):
            one.mkdir()
            (one / "deadweight-target.json").write_bytes(target(gpu))
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.setenv("VIRTUAL_ENV", str(venv))
        document = Run(capfd, "--json", "-").document
        found = {one["place"]: one["verdict"] for one in document["findings"]}
        assert (found[str(site)], found[str(venv)], document["verdict"]) == ("removed", "fits", "removed")

    def test_above_and_below(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(T4)
        site = tmp_path / "rootfs/usr/local/lib/python3.12/site-packages"
        (site / "torch").mkdir(parents=True)
        (site / "deadweight-target.json").write_bytes(target("sm_90"))
        for where in (tmp_path / "rootfs", site, site / "torch"):
            run = Run(capfd, "--root", str(where))
            assert (run.status, run.err) == (1, "")
            assert run.out.startswith(f"{site} was slimmed for sm_90: GPU code for Tesla T4")
            assert len(run.out.splitlines()) == 1

    def test_another_python_of_the_image(
        self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver(T4)
        site, programs = tmp_path / "lib/python3.12/site-packages", tmp_path / "bin"
        for folder in (site, programs):
            folder.mkdir(parents=True)
        (site / "deadweight-target.json").write_bytes(target("sm_90"))
        (programs / "python3").write_text("#!/bin/sh\n")
        (programs / "python3").chmod(0o755)
        monkeypatch.setenv("PATH", str(programs))
        assert str(site) in [one["place"] for one in Run(capfd, "--json", "-").document["findings"]]

    def test_nowhere(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(T4)
        run = Run(capfd, "--root", str(tmp_path))
        assert (run.status, run.err) == (4, "")
        assert run.out.startswith("there is no sign that deadweight slimmed anything here")
        assert Run(capfd, "--root", str(tmp_path), "--json", "-").document["verdict"] is None

    @pytest.mark.parametrize(
        ("document", "said"),
        [
            (b"{", "is no target document"),
            (b"[]", "is no target document"),
            (b'{"schema": "deadweight.target/1"}', "is no target document"),
            (b"\xff", "is no target document"),
            (target("sm_90", schema="deadweight.target/2"), "the schema deadweight.target/2 is not known here"),
            (target("h100"), "'h100' is no GPU"),
            (target(f"sm_90{HOSTILE}"), "is no GPU"),
            (b" " * (1 << 20) + target("sm_90"), "is no target document"),
        ],
    )
    def test_damage(
        self, document: bytes, said: str, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        driver(T4)
        (Path(root(tmp_path)) / "usr/share/deadweight/target.json").write_bytes(document)
        run = Run(capfd, "--root", str(tmp_path))
        assert (run.status, run.out) == (3, "")
        assert said in run.err
        assert run.err.count("\n") == 1
        assert run.err.strip().isprintable()


class TestTheMachine:
    def look(self, capfd: pytest.CaptureFixture[str], folder: Path) -> tuple[int, str]:
        run = Run(capfd, "--root", root(folder, "sm_90"))
        assert run.err == ""
        return run.status, run.out

    def test_no_driver(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(None)
        status, out = self.look(capfd, tmp_path)
        assert status == 4
        assert "was slimmed for sm_90: NVIDIA H20, " in out
        assert "no GPU can be seen: there is no CUDA driver (" in out
        assert "docker run --gpus all" in out

    def test_no_gpu(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(smi=f"echo '{T4.replace(':75', ', 7.5')}'")  # hidden by CUDA_VISIBLE_DEVICES, say
        status, out = self.look(capfd, tmp_path)
        assert status == 4
        assert "no GPU can be seen: the CUDA driver sees none" in out

    def test_no_gpu_and_none_needed(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(None)
        run = Run(capfd, "--root", root(tmp_path))
        assert run.status == 0
        assert run.out == f"{tmp_path} was slimmed for machines without a GPU\n"

    @pytest.mark.parametrize(
        ("how", "said"),
        [
            ("crash", "the CUDA driver crashed or gave no answer"),
            ("hang", "the CUDA driver crashed or gave no answer"),
            ("mismatch", "cuInit of the CUDA driver fails with error 803"),
            ("nameless", "cuDeviceGetName of the CUDA driver fails with error 101"),
        ],
    )
    def test_a_driver_that_fails(
        self,
        how: str,
        said: str,
        driver: Fake,
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        if how == "hang":
            monkeypatch.setattr(machine, "PATIENCE", 1)
        driver(T4, how=how)
        status, out = self.look(capfd, tmp_path)
        assert status == 4
        assert f"no GPU can be seen: {said}" in out
        driver(T4, how=how, smi="echo 'NVIDIA A10, 8.6'; echo 'NVIDIA, Inc., 9.0'; echo 'Old, [N/A]'; echo")
        status, out = self.look(capfd, tmp_path)
        assert status == 1
        assert "GPU code for NVIDIA A10 (sm_86) was removed" in out
        assert "code for NVIDIA, Inc. (sm_90) stayed" in out
        assert f"nvidia-smi sees GPUs that programs cannot use: {said}" in out

    def test_a_driver_that_talks(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(H100, how="chatty")
        status, out = self.look(capfd, tmp_path)
        assert status == 0
        assert "hello" not in out

    def test_another_library_of_that_name(
        self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "lib").mkdir()
        gcc(tmp_path / "lib", "libcuda.so.1", "int nothing;", "-shared", "-fPIC")
        driver(T4)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "lib"))
        assert "undefined symbol: cuInit" in self.look(capfd, tmp_path)[1]

    def test_an_nvidia_smi_that_fails(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(None, smi="echo 'NVIDIA A10, 8.6'; exit 9")
        assert self.look(capfd, tmp_path)[0] == 4

    def test_gpus_on_the_command_line(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(H100)
        where = root(tmp_path, "sm_90")
        run = Run(capfd, "--root", where, "--gpu", "t4,h200", "--gpu", "9.0")
        assert run.status == 1
        assert run.out.splitlines()[0].startswith(f"{where} was slimmed for sm_90: GPU code for sm_75 was removed")
        assert run.out.splitlines()[1] == f"{where} was slimmed for sm_90: code for sm_90 stayed"
        run = Run(capfd, "--root", where, "--gpu", "radeon")
        assert (run.status, run.out) == (2, "")
        assert "deadweight gpus" in run.err


class TestImages:
    PLACE = "usr/share/deadweight/target.json"

    def test_a_slimmed_image(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(T4)
        image = str(save(tmp_path, make_image(make_tar(file(self.PLACE, target("sm_90"))))))
        run = Run(capfd, image)
        assert (run.status, run.err) == (1, "")
        assert f"{image} was slimmed for sm_90: GPU code for Tesla T4 (sm_75) was removed" in run.out
        assert Run(capfd, image, "--gpu", "h100").status == 0
        assert Run(capfd, image, "--gpu", "none").status == 0

    def test_what_it_is_for_can_be_said_without_a_gpu(
        self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        driver(None)
        image = str(save(tmp_path, make_image(make_tar(file(self.PLACE, target("sm_90"))))))
        run = Run(capfd, image)
        assert run.status == 0
        assert "was slimmed for sm_90: NVIDIA H20, NVIDIA H100" in run.out
        assert Run(capfd, image, "--json", "-").document["verdict"] is None

    def test_the_label_alone(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(B200)
        labels = {"deadweight.gpus": "sm_80,sm_90", "deadweight.ptx": "kept"}
        image = str(save(tmp_path, make_image(make_tar(file("etc/motd")), run={"Labels": labels})))
        document = Run(capfd, image, "--json", "-").document
        assert document["verdict"] == "ptx"
        assert document["findings"][0]["slimmed_for"] == ["sm_80", "sm_90"]
        labels = {"deadweight.gpus": "none", "deadweight.ptx": "dropped"}
        image = str(save(tmp_path, make_image(make_tar(file("etc/motd")), run={"Labels": labels}), "none.tar"))
        assert "was slimmed for machines without a GPU" in Run(capfd, image).out

    def test_the_document_goes_before_the_label(
        self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        driver(T4)
        run = {"Labels": {"deadweight.gpus": "sm_90"}}
        image = make_image(make_tar(file("usr/share/deadweight/target.json", target("sm_75"))), run=run)
        assert Run(capfd, str(save(tmp_path, image))).status == 0

    def test_pruned_directories_inside(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(T4)
        venv = "opt/venv/lib/python3.12/site-packages"
        members = [file(f"{venv}/deadweight-target.json", target("sm_90")), symlink("deadweight-target.json", "none")]
        run = Run(capfd, str(save(tmp_path, make_image(make_tar(*members)))))
        assert run.status == 1
        assert run.out.startswith(f"/{venv} was slimmed for sm_90")

    @pytest.mark.parametrize(
        "labels", [None, {}, {"deadweight.gpus": 5}, ["deadweight.gpus"], {"deadweight.ptx": "kept"}, "deadweight.gpus"]
    )
    def test_an_image_that_was_not_slimmed(
        self, labels: object, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        driver(T4)
        image = save(tmp_path, make_image(make_tar(file("etc/motd")), run={"Labels": labels}))
        run = Run(capfd, str(image))
        assert run.status == 4
        assert "there is no sign that deadweight slimmed anything here" in run.out

    def test_hostile_images(self, driver: Fake, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        driver(T4)
        run = {"Labels": {"deadweight.gpus": HOSTILE}}
        for name, image in (
            ("label.tar", make_image(make_tar(file("etc/motd")), run=run)),
            ("large.tar", make_image(make_tar(file(self.PLACE, b" " * ((1 << 20) + 1))))),
            ("directory.tar", make_image(make_tar(file(f"{self.PLACE}/x")))),
        ):
            found = Run(capfd, str(save(tmp_path, image, name)))
            assert (found.status, found.out) == (3, ""), name
            assert found.err.strip().isprintable()
        odd = make_image(make_tar(file(f"{HOSTILE}/deadweight-target.json", target("sm_90"))))
        found = Run(capfd, str(save(tmp_path, odd, "odd.tar")))
        assert found.status == 1
        assert all(line.isprintable() for line in found.out.splitlines())


def test_usage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = str(save(tmp_path))
    for arguments, said in (
        ([image, "--root", str(tmp_path)], "leave one out"),
        (["--root", str(tmp_path / "none")], "does not exist"),
        ([image, "--json", image], "an input"),
    ):
        run = Run(capfd, *arguments)
        assert (run.status, run.out) == (2, "")
        assert said in run.err


def test_help_has_examples_in_80_columns(capfd: pytest.CaptureFixture[str]) -> None:
    run = Run(capfd, "--help")
    assert run.status == 0
    assert "Examples:\n" in run.out
    assert max(map(len, run.out.splitlines())) <= 80
