"""caches: package managers' and build's leftovers leave; models, and what anything else needs, stay."""

from __future__ import annotations

from typing import Any

import pytest

from deadweight.image.edit import Edit, really_removed
from deadweight.passes.base import Options
from deadweight.passes.caches import PASS
from support.contexts import Dpkg, context, distribution, paths, proposals
from support.images import Member, directory, file, hardlink, symlink

PASSWD = file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/srv/ann:/bin/sh\nbad line\n")


@pytest.fixture(params=[1000, 0], autouse=True)
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """From how many paths on a cache leaves as one thing, where nothing in it stays: what leaves is always the same."""
    count: int = request.param
    monkeypatch.setattr("deadweight.passes.caches.MANY", count)
    return count


def left(*members: Member, **more: Any) -> list[str]:
    return sorted(paths(PASS, context([PASSWD, *members], **more)))


def trees(*members: Member, **more: Any) -> list[str]:
    """As `left`, with directories."""
    return sorted(p.path for p in proposals(PASS, context([PASSWD, *members], **more)))


def test_of_what_any_program_writes_to_files_leave_and_directories_and_links_stay() -> None:
    members = (
        directory("var/lib/apt/lists"),
        file("var/lib/apt/lists/a_Packages", b"x"),
        file("var/cache/apt/archives/gcc.deb", b"x"),
        directory("var/log"),
        file("var/log/dpkg.log", b"x"),
        symlink("var/log/access.log", "/dev/stdout"),
        directory("tmp", mode=0o1777),
        file("tmp/x", b"x"),
        file("root/.cache/pip/http/a", b"x"),
        file("srv/ann/.cache/uv/archive-v0/torch/torch/hub/model.pt", b"x"),
        file("root/.cache/other/x", b"x"),
        file("root/.bashrc", b"x"),
    )
    at = context([PASSWD, *members])
    found = {p.path: p.why for p in proposals(PASS, at)}
    assert found == {
        "root/.cache/pip/http/a": "pip's cache",
        "srv/ann/.cache/uv/archive-v0/torch/torch/hub/model.pt": "uv's cache",
        "tmp/x": "temporary files",
        "var/cache/apt/archives/gcc.deb": "apt's cache",
        "var/lib/apt/lists/a_Packages": "apt's package lists",
        "var/log/dpkg.log": "logs of the build",
    }
    assert at.notes == []


def test_the_environment_says_where_caches_are() -> None:
    members = (
        file("opt/uv/archive-v0/x", b"x"),
        file("opt/uv/mine", b"x"),
        file("xdg/pip/http/a", b"x"),
        file("home/me/.cache/uv/x", b"x"),
    )
    env = ["UV_CACHE_DIR=/opt/uv", "XDG_CACHE_HOME=/xdg", "HOME=/home/me"]
    assert left(*members, run={"Env": env}) == ["home/me/.cache/uv/x", "opt/uv/archive-v0/x", "xdg/pip/http/a"]
    assert left(*members) == []


@pytest.mark.parametrize(
    "path",
    [
        "tmp/huggingface/hub/models--x/blobs/1",
        "tmp/models/weights",
        "var/tmp/tiny.safetensors",
        "tmp/x/pytorch_model.bin",
        "root/.cache/huggingface/hub/x",
        "root/.cache/torch/hub/x",
    ],
)
def test_models_stay_by_their_names(path: str) -> None:
    at = context([PASSWD, file(path, b"x")])
    assert paths(PASS, at) == []
    assert at.notes == ([f"1 file of a cache stays: it may be a model (/{path})"] if "tmp" in path else [])


@pytest.mark.parametrize(
    "run",
    [
        {"Env": ["HF_HOME=/tmp/h"]},
        {"Env": ["HF_HOME=/tmp"]},
        {"Env": ["ANYTHING=x:/tmp/h"]},
        {"Cmd": ["serve", "--model=/tmp/h"]},
        {"Cmd": ["serve", "h"], "WorkingDir": "/tmp"},
        {"Entrypoint": ["/bin/sh", "-c", "serve '/tmp/h/file'"]},
        {"Healthcheck": {"Test": ["CMD-SHELL", "cat /tmp/h/file || exit 1"]}},
        {"WorkingDir": "/tmp/h"},
        {"Volumes": {"/tmp/h": {}}},
    ],
)
def test_what_the_configuration_names_stays(run: dict[str, Any]) -> None:
    found = left(directory("tmp", mode=0o1777), file("tmp/h/file", b"x"), file("tmp/else", b"x"), run=run)
    assert "tmp/h/file" not in found


def test_what_the_application_mentions_stays() -> None:
    at = context(
        [directory("tmp", mode=0o1777), file("tmp/h/file", b"x"), file("tmp/else", b"x")],
        [file("app/main.py", b"open('/tmp/h/' + name)\nTMP = '/tmp/'\n")],
    )
    assert paths(PASS, at) == ["tmp/else"]
    assert at.notes == ["1 file of a cache stays: /app/main.py mentions /tmp/h (/tmp/h/file)"]


def test_variables_that_name_places_for_anything_do_not_count() -> None:
    run = {"Env": ["TMPDIR=/tmp", "PIP_CACHE_DIR=/root/.cache/pip", "HOME=/root"], "WorkingDir": "/root"}
    assert left(file("tmp/x", b"x"), file("root/.cache/pip/http/y", b"x"), run=run) == [
        "root/.cache/pip/http/y",
        "tmp/x",
    ]


def test_what_uvs_links_lead_to_stays() -> None:
    store = "root/.cache/uv/archive-v0/abc"
    members = (
        file(f"{store}/pkg/mod.py", b"x"),
        file(f"{store}/other/data", b"x"),
        file("root/.cache/uv/wheels-v0/spare.py", b"x"),
        symlink("root/.cache/uv/wheels-v0/abc", "../archive-v0/gone"),
        symlink("opt/venv/pkg/mod.py", f"/{store}/pkg/mod.py"),
        symlink("opt/venv/other", f"/{store}/other"),
        symlink("root/tmp", "/tmp"),
        file("tmp/x", b"x"),
    )
    at = context([PASSWD, *members])
    assert paths(PASS, at) == ["root/.cache/uv/wheels-v0/abc", "root/.cache/uv/wheels-v0/spare.py", "tmp/x"]
    assert at.notes == [f"2 files of caches stay: a symbolic link from elsewhere leads there (/{store}/other/data)"]


def test_links_inside_a_cache_protect_nothing() -> None:
    members = (file("root/.cache/uv/archive-v0/a/x", b"x"), symlink("root/.cache/uv/wheels-v0/a", "../archive-v0/a"))
    assert left(*members) == ["root/.cache/uv/archive-v0/a/x", "root/.cache/uv/wheels-v0/a"]


def test_trees_of_one_tool_leave_whole() -> None:
    members = (
        directory("root/.cache"),
        directory("root/.cache/uv"),
        directory("root/.cache/uv/archive-v0"),
        file("root/.cache/uv/archive-v0/a/x", b"x"),
        directory("root/.cache/uv/wheels-v0"),
        symlink("root/.cache/uv/wheels-v0/a", "../archive-v0/a"),
        symlink("root/.cache/uv/wheels-v0/gone", "../archive-v0/gone"),
        directory("root/.cache/huggingface"),
        directory("root/.cache/torch"),
        symlink("root/.cache/pip", "/mnt/cache"),
        directory("root/.npm"),
        directory("root/.npm/_cacache"),
        directory("root/.npm/_cacache/index-v5"),
        directory("opt/conda/pkgs"),
        directory("opt/conda/pkgs/numpy"),
        directory("opt/uv"),
        directory("opt/uv/archive-v0"),
        directory("opt/uv/mine"),
        directory("tmp/x"),
        symlink("var/cache/apt/x", "y"),
        directory("var/lib/apt/lists/partial"),
    )
    assert trees(*members, run={"Env": ["UV_CACHE_DIR=/opt/uv"]}) == [
        "opt/conda/pkgs/numpy",
        "opt/uv/archive-v0",
        "root/.cache/uv",
        "root/.cache/uv/archive-v0",
        "root/.cache/uv/archive-v0/a/x",
        "root/.cache/uv/wheels-v0",
        "root/.cache/uv/wheels-v0/a",
        "root/.cache/uv/wheels-v0/gone",
        "root/.npm/_cacache/index-v5",
    ]


@pytest.mark.parametrize(
    ("run", "more", "stay"),
    [
        ({"Env": ["TMPDIR=/root/.cache/uv/tmp"]}, (), ["uv", "uv/tmp"]),
        ({"Env": ["UV_CACHE_DIR=/root/.cache/uv"]}, (), ["uv"]),
        ({"Env": ["OUT=/root/.cache/uv/tmp/later"]}, (), ["uv", "uv/tmp"]),
        ({"WorkingDir": "/root/.cache/uv"}, (), ["uv", "uv/link", "uv/real", "uv/real/bin", "uv/tmp"]),
        ({"Volumes": {"/root/.cache/uv/tmp": {}}}, (), ["uv", "uv/tmp"]),
        ({"Cmd": ["/root/.cache/uv/link/bin/run"]}, (), ["uv", "uv/link", "uv/real", "uv/real/bin"]),
        ({}, [symlink("srv/cache", "/root/.cache/uv")], ["uv"]),
        ({}, [symlink("srv/new", "/root/.cache/uv/tmp/new")], ["uv", "uv/tmp"]),
        ({}, [symlink("srv/bin", "/root/.cache/uv/link/bin")], ["uv", "uv/link", "uv/real", "uv/real/bin"]),
        ({}, [symlink("root/.cache/uv/sh", "/bin/sh"), symlink("srv/sh", "/root/.cache/uv/sh")], ["uv", "uv/sh"]),
        (
            {},
            [file("root/.cache/uv/tmp/x", b"x"), symlink("srv/x", "/root/.cache/uv/tmp/x")],
            ["uv", "uv/tmp", "uv/tmp/x"],
        ),
    ],
)
def test_what_something_leads_to_or_through_stays(run: dict[str, Any], more: list[Member], stay: list[str]) -> None:
    members = [
        directory("root/.cache/uv"),
        directory("root/.cache/uv/tmp"),
        directory("root/.cache/uv/real"),
        directory("root/.cache/uv/real/bin"),
        symlink("root/.cache/uv/link", "real"),
        directory("bin"),
        file("bin/sh", mode=0o755),
        *more,
    ]
    at = context([PASSWD, *members], run=run)
    removed = really_removed(at.ledger.fs, Edit([p.path for p in proposals(PASS, at)]))
    below = {path for path in at.ledger.fs.nodes if path.startswith("root/.cache/")}
    assert sorted(path.removeprefix("root/.cache/") for path in below - removed) == stay


def test_a_directory_that_its_user_could_not_make_again_stays() -> None:
    members = (
        directory("srv/ann"),
        directory("srv/ann/.cache", uid=1000),
        directory("srv/ann/.cache/uv", uid=1000),
        directory("root/.cache", mode=0o755),
        directory("root/.cache/pip", uid=1000),
        directory("root/.cache/pip/http", uid=1000),
        directory("root/.cache/npm", mode=0o777),
        directory("root/.cache/npm/a", mode=0o777),
        directory("root/.cache/yarn", mode=0o775),
        directory("root/.cache/mypy", mode=0o755),
    )
    assert trees(*members) == ["root/.cache/mypy", "root/.cache/npm/a", "root/.cache/pip/http", "srv/ann/.cache/uv"]


def test_hard_links_leave_as_names_of_their_own() -> None:
    members = (file("root/.cache/uv/archive-v0/x", b"x"), hardlink("usr/lib/x", "root/.cache/uv/archive-v0/x"))
    assert left(*members) == ["root/.cache/uv/archive-v0/x"]


def test_what_is_installed_or_owned_stays() -> None:
    dpkg = Dpkg()
    dpkg.add("tool", "var/cache/apt/owned", "var/log/tool.log")
    venv = "root/.cache/pypoetry/virtualenvs/app"
    members = (
        *dpkg.members(),
        *distribution("lib", "lib.py", site="tmp/lib/python3.11/site-packages"),
        file(f"{venv}/pyvenv.cfg", b"home = /usr/bin\nversion = 3.11.2\n"),
        file(f"{venv}/bin/activate", b"x"),
        *distribution("dep", "dep.py", site=f"{venv}/lib/python3.11/site-packages"),
    )
    assert left(*members) == []


def test_a_file_that_its_user_could_not_make_again_stays() -> None:
    members = (
        directory("var/log"),
        file("var/log/app.log", uid=1000),
        file("var/log/open.log", mode=0o666),
        directory("var/log/app", uid=1000),
        file("var/log/app/own.log", uid=1000),
        file("var/log/root.log", mode=0o664),
    )
    assert left(*members) == ["var/log/app/own.log", "var/log/root.log"]


def test_a_sparse_file_with_another_name_stays() -> None:
    sparse = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "tmp/sparse",
        "GNU.sparse.realsize": "9",
    }
    content = b"1\n0\n1\n".ljust(512, b"\0") + b"x"
    at = context([PASSWD, file("tmp/sparse", content, pax=sparse), hardlink("usr/kept", "tmp/sparse")])
    node = at.ledger.fs.nodes["tmp/sparse"].source
    assert node is not None
    assert node.sparse
    assert paths(PASS, at) == []
    alone = context([PASSWD, file("tmp/sparse", content, pax=sparse)])
    assert paths(PASS, alone) == ["tmp/sparse"]


def test_patterns_and_layers_that_stay() -> None:
    members = (PASSWD, file("tmp/x", b"x"), file("tmp/y", b"y"))
    assert paths(PASS, context(members, options=Options(keep=("tmp/x",)))) == ["tmp/y"]
    assert paths(PASS, context(members, [file("tmp/z", b"z")], keep_layers=[0])) == ["tmp/z"]


def test_a_cache_of_the_application_has_files_of_its_own_and_of_nobody() -> None:
    """Where distributions would be, nothing is the application's: the cache leaves path by path."""
    members = (
        directory("app/.cache/uv"),
        directory("app/.cache/uv/site-packages"),
        file("app/.cache/uv/a"),
        file("app/.cache/uv/site-packages/b"),
    )
    at = context([PASSWD, *members], run={"WorkingDir": "/app", "Env": ["HOME=/app"]})
    assert len({at.ledger.owner(one.name) for one in members if one.name.endswith(("/a", "/b"))}) == 2
    assert {p.below for p in PASS.propose(at)} == {0}


def test_a_directory_without_an_entry_in_a_cache_below_a_scratch_place() -> None:
    run = {"Env": ["HOME=/tmp"]}
    assert left(file("tmp/.cache/uv/x/f"), run=run) == ["tmp/.cache/uv/x/f"]
