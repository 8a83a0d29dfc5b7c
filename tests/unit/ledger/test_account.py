"""Every byte has one owner and one category, and they add up: over chosen images and over generated ones."""

from __future__ import annotations

import io
import struct
import tarfile
import weakref
from collections import Counter

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deadweight.binary.gpu_code import Breakdown
from deadweight.ledger import inside as insides
from deadweight.ledger.account import Account, AccountError, check, make_account
from deadweight.ledger.categories import CATEGORIES
from deadweight.ledger.ledger import FRAMING, HIDDEN, SYSTEM, Ledger, Owner
from support import fatbins
from support.layers import image_of, member, tar_of

SITE = "usr/local/lib/python3.11/site-packages"
STATUS = b"""Package: gcc-12
Status: install ok installed
Architecture: amd64
Version: 12.2

Package: zlib1g
Status: install ok installed
Architecture: amd64
Version: 1.2
"""


def elf_file(*sections: tuple[str, int, int, int]) -> bytes:
    """An ELF library with sections of (name, type, flags, size), and nothing in them."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name, *_ in sections) + b".shstrtab\0"
    out = bytearray(64)
    table = [bytes(64)]
    at = 1
    for name, kind, flags, size in sections:
        table.append(struct.pack("<IIQQQQIIQQ", at, kind, flags, 0, len(out), size, 0, 0, 1, 0))
        at += len(name) + 1
        out += bytes(size)
    table.append(struct.pack("<IIQQQQIIQQ", at, 3, 0, 0, len(out), len(names), 0, 0, 1, 0))
    out += names
    out[:64] = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0"),
        *(3, 62, 1, 0, 0, len(out), 0, 64, 56, 0, 64, len(table), len(table) - 1),
    )
    return bytes(out) + b"".join(table)


LIBRARY = elf_file((".text", 1, 6, 1000), (".nv_fatbin", 1, 2, 5000), (".symtab", 2, 0, 700), (".data", 1, 3, 300))


def dist(name: str, *files: str, version: str = "1.0") -> list[tuple[tarfile.TarInfo, bytes]]:
    """The metadata of a distribution that lists `files`."""
    info = f"{SITE}/{name}-{version}.dist-info"
    record = "".join(f"{path},,\n" for path in files)
    return [
        member(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()),
        member(f"{info}/RECORD", record.encode()),
    ]


def account_of(*tars: bytes, **run: object) -> tuple[Account, Ledger]:
    """The account of an image, checked against the tars themselves."""
    ledger = Ledger(image_of(list(tars), {"config": run}))
    weakref.finalize(ledger, ledger.image.close)
    found = make_account(ledger)
    by_layer: Counter[int] = Counter()
    for row in found.rows:
        assert row.bytes > 0
        assert row.category in CATEGORIES
        by_layer[row.layer] += row.bytes
    assert [by_layer[i] for i in range(len(tars))] == [len(tar) for tar in tars]
    assert sum(found.by_owner.values()) == sum(found.by_category.values()) == sum(map(len, tars))
    return found, ledger


def of_path(found: Account, path: str) -> dict[tuple[str, str], int]:
    """(owner, category) -> bytes of a path's content."""
    return {(row.owner.name, row.category): row.bytes for row in found.rows if row.path == path}


def test_a_wheel_in_uvs_cache_is_the_distributions_whose_files_link_to_it() -> None:
    cache = "root/.cache/uv/archive-v0/abc/big/core.py"
    name = f"{SITE}/big/core.py"
    found, _ = account_of(
        tar_of(
            [
                member(cache, b"x" * 3000),
                member(name, kind=tarfile.LNKTYPE, link=cache),
                *dist("big", "big/core.py"),
                member("root/.cache/uv/index", b"y" * 100),
            ]
        )
    )
    assert of_path(found, name) == {("big", "Python source"): 3000}
    assert of_path(found, cache) == {}
    assert of_path(found, "root/.cache/uv/index") == {(SYSTEM.name, "caches"): 100}
    assert found.by_owner[Owner("python", "big", "1.0")] >= 3000


def test_content_behind_a_deleted_name_belongs_to_the_names_that_are_left() -> None:
    found, _ = account_of(
        tar_of([member("a", b"1" * 600), member("b", kind=tarfile.LNKTYPE, link="a")]), tar_of([member(".wh.a")])
    )
    assert of_path(found, "b") == {(SYSTEM.name, "data"): 600}
    assert HIDDEN not in found.by_owner


def test_what_no_container_sees_is_hidden_with_its_headers_and_what_it_was_is_kept() -> None:
    found, _ = account_of(
        tar_of([member("secret", b"s" * 700), member("etc/conf", b"old"), member("var/lib/apt/lists/p", b"p" * 10)]),
        tar_of([member(".wh.secret"), member("etc/conf", b"newer"), member("var/lib/apt/lists/.wh.p")]),
    )
    hidden = {each.path: each for each in found.hidden}
    assert {path: each.bytes for path, each in hidden.items()} == {
        "secret": 512 + 1024,
        "etc/conf": 1024,
        "var/lib/apt/lists/p": 1024,
    }
    assert [hidden[path].overwritten for path in ("secret", "etc/conf")] == [False, True]
    assert hidden["var/lib/apt/lists/p"].category == "caches"
    assert found.by_owner[HIDDEN] == found.by_category["hidden"] == sum(each.bytes for each in found.hidden)
    assert found.hidden_by_layer == {0: 512 + 1024 + 1024 + 1024}


def test_a_library_splits_into_what_its_sections_are() -> None:
    path = f"{SITE}/big/lib.so"
    found, _ = account_of(tar_of([member(path, LIBRARY), *dist("big", "big/lib.so")]))
    split = of_path(found, path)
    assert split["big", "host code"] == 1000
    assert split["big", "GPU code"] == 5000
    assert split["big", "symbols"] == 700
    assert sum(split.values()) == len(LIBRARY)


def test_gpu_code_is_accounted_for_by_file_and_architecture() -> None:
    fatbin = fatbins.fatbin(fatbins.sm(90), fatbins.compute(80))
    ptx = fatbins.ptx("75")
    found, _ = account_of(
        tar_of(
            [
                member(f"{SITE}/big/lib.so", LIBRARY),
                member(f"{SITE}/big/kernels/one.cubin", fatbins.cubin(90)),
                member(f"{SITE}/big/kernels/two.hsaco", b"?" * 700),
                member(f"{SITE}/big/kernels/three.fatbin", fatbin),
                member(f"{SITE}/big/kernels/four.ptx", ptx),
                member(f"{SITE}/big/kernels/tiny.cubin", fatbins.cubin(90)[:60]),
                member(f"{SITE}/big/tests/four.ptx", ptx),
                member("deleted.ptx", ptx),
                *dist("big", "big/lib.so"),
            ]
        ),
        tar_of([member(".wh.deleted.ptx")]),
    )
    files = {file.path.rpartition("/")[2]: [code.label for code in file.code] for file in found.gpu_code}
    assert files == {
        "lib.so": ["headers"],
        "one.cubin": ["sm_90"],
        "two.hsaco": ["unread"],
        "three.fatbin": ["compute_80", "sm_90", "headers"],
        "four.ptx": ["compute_75"],
        "tiny.cubin": ["unread"],
    }
    counted = sum(code.bytes for file in found.gpu_code for code in file.code)
    assert counted == found.by_category["GPU code"]
    assert counted == 5000 + len(fatbins.cubin(90)) + 700 + len(fatbin) + len(ptx) + 60
    assert {file.path: file.owner.name for file in found.gpu_code}[f"{SITE}/big/lib.so"] == "big"


def test_a_damaged_library_is_data() -> None:
    damaged = LIBRARY[:40] + b"\xff" * 24 + LIBRARY[64:]
    found, _ = account_of(tar_of([member("lib.so", damaged)]))
    assert of_path(found, "lib.so") == {(SYSTEM.name, "data"): len(damaged)}


@pytest.mark.parametrize(
    ("path", "category"),
    [
        (f"{SITE}/pkg/mod.py", "Python source"),
        (f"{SITE}/pkg/mod.pyi", "Python source"),
        (f"{SITE}/pkg/__pycache__/mod.cpython-311.pyc", "bytecode"),
        (f"{SITE}/pkg/include/a.cuh", "headers"),
        ("usr/include/c++/12/vector", "headers"),
        (f"{SITE}/pkg/lib.a", "static libraries"),
        (f"{SITE}/pkg/kernel.PTX", "GPU code"),
        (f"{SITE}/pkg/tests/test_mod.py", "tests"),
        (f"{SITE}/pkg/tests/lib.so", "tests"),
        (f"{SITE}/pkg/testing/util.py", "Python source"),
        ("usr/share/pkg/tests/x", "data"),
        ("app/tests/test_app.py", "tests"),
        ("var/lib/apt/lists/x", "caches"),
        ("var/cache/apt/archives/x.deb", "caches"),
        ("root/.cache/pip/http/x", "caches"),
        ("home/me/.cache/uv/x", "caches"),
        ("root/.cache/huggingface/hub/model.bin", "data"),
        ("opt/models/torch.bin", "data"),
        ("tmp/hf/hub/models--a--b/blob", "data"),
        ("tmp/hf-home/x", "data"),
        ("tmp/leftover", "caches"),
        ("opt/pipcache/http-v2/a/b", "caches"),
        ("opt/pipcache/mine", "data"),
        ("tmp/model.safetensors", "data"),
        ("hf/home/.cache/uv/x", "data"),
        ("usr/local/bin/uv", "build tools"),
        ("opt/uv", "data"),
        ("usr/lib/gcc/cc1", "build tools"),
        ("usr/lib/gcc/tests/x.h", "build tools"),
        ("usr/lib/libz.so.1", "data"),
        ("etc/passwd", "data"),
        ("a.b/c", "data"),
    ],
)
def test_categories(path: str, category: str) -> None:
    members = [
        member("var/lib/dpkg/status", STATUS),
        member("var/lib/dpkg/info/gcc-12.list", b"/usr/lib/gcc/cc1\n/usr/lib/gcc/tests/x.h\n"),
        member("app/main.py", b"x"),
        member(path, LIBRARY if path.endswith("tests/lib.so") else b"content"),
    ]
    variables = ["PATH=/usr/local/bin:/usr/bin", "PIP_CACHE_DIR=/opt/pipcache", "HF_HOME=/tmp/hf-home"]
    found, _ = account_of(tar_of(members), WorkingDir="/app", Env=variables)
    assert [row.category for row in found.rows if row.path == path] == [category]


def test_pax_headers_gaps_and_trailing_blocks_are_framing() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "global"}) as archive:
        info = tarfile.TarInfo("n" * 300)
        info.size = 5
        archive.addfile(info, io.BytesIO(b"12345"))
    tar = out.getvalue() + bytes(4096)
    found, _ = account_of(tar)
    assert found.by_owner == {FRAMING: len(tar) - 5, SYSTEM: 5}
    assert found.by_category == {"tar framing": len(tar) - 5, "data": 5}


def test_an_empty_layer_and_an_empty_image_add_up() -> None:
    assert account_of(tar_of([]))[0].by_owner == {FRAMING: 10240}
    assert account_of()[0].rows == []


def test_the_account_checks_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    found, ledger = account_of(tar_of([member("a", b"1" * 600), member("b", LIBRARY)]))
    for spoilt in (
        msgspec.structs.replace(found, rows=found.rows[1:]),
        msgspec.structs.replace(found, rows=[*found.rows, found.rows[0]]),
        msgspec.structs.replace(found, sizes=(found.sizes[0] + 1,)),
    ):
        with pytest.raises(AccountError):
            check(spoilt)
    gpu = found.gpu_code[0]
    for wrong in (
        [],
        [gpu, msgspec.structs.replace(gpu, path="a")],
        [msgspec.structs.replace(gpu, path="a")],
        [msgspec.structs.replace(gpu, code=(msgspec.structs.replace(gpu.code[0], bytes=4999),))],
        [msgspec.structs.replace(gpu, code=(*gpu.code, msgspec.structs.replace(gpu.code[0], bytes=0)))],
    ):
        with pytest.raises(AccountError, match="GPU code"):
            check(msgspec.structs.replace(found, gpu_code=wrong))
    for parts in ({"data": len(LIBRARY) - 1}, {"data": len(LIBRARY) - 1, "gpu code": 1}):
        monkeypatch.setattr(insides, "breakdown", lambda read, size, parts=parts: Breakdown(parts, ()))
        with pytest.raises(AccountError) as error:
            make_account(Ledger(ledger.image))
        assert error.value.exit_status == 70


NAMES = ("a", "b", "d/a", "d/b", "d/e/a", "var/lib/apt/lists/x", f"{SITE}/p/m.py", f"{SITE}/p/tests/t.py", "l" * 150)


@st.composite
def layers(draw: st.DrawFn) -> list[bytes]:
    """Layers of files, links to files of the same layer, and deletions."""
    tars = []
    for _ in range(draw(st.integers(0, 4))):
        members = []
        files: list[str] = []
        for name in draw(st.lists(st.sampled_from(NAMES), max_size=6)):
            what = draw(st.integers(0, 4))
            parent, _, base = name.rpartition("/")
            if what == 0:
                members.append(member(f"{parent}/.wh.{base}".lstrip("/"), draw(st.sampled_from([b"", b"odd"]))))
            elif what == 1 and files:
                members.append(member(name, kind=tarfile.LNKTYPE, link=draw(st.sampled_from(files))))
            else:
                content = draw(st.sampled_from([b"", b"1", b"x" * 512, b"y" * 1300, LIBRARY]))
                members.append(member(name, content, mtime=draw(st.sampled_from([0, 1.5]))))
                files.append(name)
        tars.append(tar_of(members) + bytes(draw(st.sampled_from([0, 512, 10240]))))
    return tars


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(layers())
def test_owners_and_categories_add_up_for_generated_images(tars: list[bytes]) -> None:
    ledger = Ledger(image_of(tars))
    with ledger.image:
        found = make_account(ledger)
        assert list(found.sizes) == [len(tar) for tar in tars]
        for position, tar in enumerate(tars):
            assert sum(row.bytes for row in found.rows if row.layer == position) == len(tar)
        # An oracle of its own: what a container sees, each inode once, is what has an owner and is not framing.
        seen = {node.inode: node.source.stored for node in ledger.fs.nodes.values() if node.source is not None}
        owned = sum(size for owner, size in found.by_owner.items() if owner not in (FRAMING, HIDDEN))
        assert owned == sum(seen.values())
