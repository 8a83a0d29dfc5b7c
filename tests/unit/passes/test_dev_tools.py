"""dev-tools: known tools and what only they need leave whole, unless something runs or imports them."""

from __future__ import annotations

from typing import Any

import pytest

from deadweight.errors import UsageError
from deadweight.passes.base import Options
from deadweight.passes.dev_tools import PASS
from support.contexts import INTERPRETER, SITE, Dpkg, context, distribution, paths, proposals
from support.images import Member, file, hardlink, symlink

PYTEST = (
    *distribution(
        "pytest",
        "_pytest/main.py",
        file("usr/local/bin/pytest", b"#!/usr/bin/python3\n"),
        requires=["pluggy", "packaging"],
    ),
    *distribution("pluggy", "pluggy/core.py", file(f"{SITE}/pluggy/py.typed")),
    file(f"{SITE}/pluggy/__pycache__/core.cpython-311.pyc", b"x"),
    *distribution("packaging", "packaging/version.py"),
)
LIBRARY = distribution("lib", "lib/core.py", requires=["packaging"])
ALL = (*INTERPRETER, *PYTEST, *LIBRARY)


def dists_left(at_paths: list[str]) -> set[str]:
    """The distributions whose metadata leave."""
    return {p.rpartition("/")[0].rpartition("/")[2].partition("-")[0] for p in at_paths if p.endswith("/METADATA")}


def left(*members: Member, **more: Any) -> set[str]:
    return dists_left(paths(PASS, context([*ALL, *members], **more)))


def test_a_tool_leaves_whole_with_what_only_it_needs() -> None:
    at = context(ALL)
    found = {p.path: p for p in proposals(PASS, at)}
    kinds = at.ledger.fs.nodes
    assert {p for p in found if kinds[p].kind == "file"} == {
        f"{SITE}/_pytest/main.py",
        "usr/local/bin/pytest",
        f"{SITE}/pytest-1.dist-info/METADATA",
        f"{SITE}/pytest-1.dist-info/RECORD",
        f"{SITE}/pluggy/core.py",
        f"{SITE}/pluggy/py.typed",
        f"{SITE}/pluggy/__pycache__/core.cpython-311.pyc",
        f"{SITE}/pluggy-1.dist-info/METADATA",
        f"{SITE}/pluggy-1.dist-info/RECORD",
    }
    pluggy = found[f"{SITE}/pluggy/core.py"]
    assert (pluggy.why, pluggy.evidence) == ("only pytest needs it", "reachable from pytest only: pytest -> pluggy")
    assert found[f"{SITE}/_pytest/main.py"].why == "a development tool"
    assert at.notes == []


def test_directories_leave_too() -> None:
    members = [m for m in ALL if "pluggy" not in m.name]
    above = sorted({m.name.rpartition("/")[0] for m in members})
    at = context([*(Member(d, b"5", mode=0o755) for d in above), *members])
    directories = {p.path for p in proposals(PASS, at)} & set(above)
    assert directories == {f"{SITE}/_pytest", f"{SITE}/pytest-1.dist-info"}


@pytest.mark.parametrize(
    "run",
    [
        {"Cmd": ["pytest", "-q"]},
        {"Cmd": "pytest -q"},
        {"Entrypoint": ["/bin/sh", "-c", "cd /app && exec pytest --co"]},
        {"Entrypoint": ["python3", "-m", "_pytest.main"]},
        {"Entrypoint": ["gunicorn", "_pytest:app"]},
        {"Healthcheck": {"Test": ["CMD", "/usr/local/bin/pytest"]}},
        {"Healthcheck": {"Test": ["CMD-SHELL", "pytest || exit 1"]}},
        {"Entrypoint": ["/start.sh"]},
        {"Cmd": ["start"], "Env": ["PATH=/links"]},
        {"Cmd": ["/bin/sh", "-c", "gunicorn ${APP:-x}"], "Env": ["APP=_pytest.main:app"]},
    ],
)
def test_what_the_image_runs_stays(run: dict[str, Any]) -> None:
    script = file("start.sh", b'#!/bin/bash -e\n# pytest is for later\nFOO=1\nexec pytest "$@"\n', mode=0o755)
    at = context([*ALL, script, symlink("links/start", "/usr/local/bin/pytest")], run=run)
    assert paths(PASS, at) == []
    assert at.notes[0].startswith("pytest stays: the image runs ")


def test_a_comment_in_a_script_runs_nothing() -> None:
    script = file("start.sh", b"#!/bin/bash -e\n# pytest is for later\nexec python3\n", mode=0o755)
    assert left(script, run={"Entrypoint": ["/start.sh"]}) == {"pytest", "pluggy"}


@pytest.mark.parametrize("code", [b"import os\nfrom _pytest import main\n", b"def f():\n    import _pytest.x as y\n"])
@pytest.mark.parametrize("place", ["app/main.py", "srv/tool.py", f"{SITE}/loose.py", "opt/run"])
def test_what_the_application_imports_stays(code: bytes, place: str) -> None:
    run = {"WorkingDir": "/app", "Cmd": ["/opt/run"]}
    source = b"#!/usr/bin/env python3\n" + code
    assert left(file(place, source), run=run) == set()
    assert left(file("app/tests/test_main.py", code), file("app/conftest.py", code), run=run) == {"pytest", "pluggy"}


def test_what_an_application_that_is_installed_imports_stays() -> None:
    code = file(f"{SITE}/service/main.py", b"import pluggy, _pytest\n")
    assert left(*distribution("service", code, url="file:///app")) == set()
    assert left(*distribution("service", code)) == {"pytest"}  # a library: pytest is a tool to it, pluggy is not


def test_what_a_staying_module_imports_undeclared_stays() -> None:
    at = context(
        [
            *ALL,
            *distribution(
                "other", file(f"{SITE}/other.py", b"try:\n    import pluggy\nexcept ImportError:\n    pass\n")
            ),
        ]
    )
    assert dists_left(paths(PASS, at)) == {"pytest"}
    assert at.notes == [f"pluggy stays: /{SITE}/other.py imports it, undeclared"]


def test_an_import_in_a_docstring_or_a_test_is_none() -> None:
    members = (
        file(f"{SITE}/other.py", b'"""Use it so:\n\nimport pluggy\n"""\n'),
        file(f"{SITE}/other/tests/test_x.py", b"import pluggy\n"),
        file("root/.cache/uv/archive-v0/x/other.py", b"import pluggy\n"),
    )
    assert left(*distribution("other", *members)) == {"pytest", "pluggy"}


def test_what_is_required_or_named_as_a_root_stays() -> None:
    at = context([*ALL, *distribution("plugin", "plugin.py", requires=["pytest"])])
    assert paths(PASS, at) == []
    assert at.notes == ["pytest stays: required by plugin"]
    assert left(options=Options(roots=("pytest",))) == set()
    assert left(options=Options(roots=("pluggy",))) == {"pytest"}


def test_remove_names_more_and_complains_of_what_is_not_there() -> None:
    assert left(options=Options(remove=("Lib",))) == {"pytest", "pluggy", "packaging", "lib"}
    with pytest.raises(UsageError, match=r"'pakaging'.*did you mean packaging"):
        left(options=Options(remove=("pakaging",)))
    at = context(ALL, options=Options(remove=("packaging",)))
    assert dists_left(paths(PASS, at)) == {"pytest", "pluggy"}
    assert at.notes == ["packaging stays: required by lib"]


def test_a_cut_says_whether_a_list_or_the_user_named_it() -> None:
    found = {p.path: p for p in proposals(PASS, context(ALL, options=Options(remove=("lib",))))}
    mine = found[f"{SITE}/lib/core.py"]
    assert (mine.why, mine.evidence) == ("asked for", "--remove names lib, and nothing that stays requires it")
    assert found[f"{SITE}/_pytest/main.py"].why == "a development tool"


def test_a_subcommand_is_a_program() -> None:
    lab = distribution("jupyterlab", "jupyterlab/__init__.py", file("usr/local/bin/jupyter-lab", b"#!/x\n", mode=0o755))
    core = distribution("jupyter-core", "jupyter.py", file("usr/local/bin/jupyter", b"#!/x\n", mode=0o755))
    assert "jupyterlab" in left(*lab, *core, run={"Cmd": ["jupyter", "--version"]})
    assert "jupyterlab" not in left(*lab, *core, run={"Cmd": ["jupyter", "lab", "--ip=0.0.0.0"]})


@pytest.mark.parametrize("place", ["tmp/main.py", "app/tests/main.py", "app/test_all.py"])
def test_what_the_image_runs_is_read_wherever_it_lies(place: str) -> None:
    app = file(place, b"import _pytest\n")
    assert left(app) == {"pytest", "pluggy"}
    assert left(app, run={"Cmd": ["python3", f"/{place}"]}) == set()


def test_condas_own_are_condas() -> None:
    site = "opt/conda/lib/python3.11/site-packages"
    mine = distribution("ruff", "ruff.py", file(f"{site}/ruff-1.dist-info/INSTALLER", b"conda"), site=site)
    at = context([*INTERPRETER, *mine])
    assert paths(PASS, at) == []
    assert at.notes == ["ruff stays: it belongs to a conda package"]


def test_what_the_application_imports_leaves_only_when_the_user_says_so() -> None:
    app = file("app/main.py", b"import lib\n")
    assert "lib" in left(app, run={"WorkingDir": "/app"}, options=Options(remove=("lib",)))
    assert "lib" not in left(run={"Cmd": ["lib.core:app"]}, options=Options(remove=("lib",)))


def test_it_leaves_whole_or_not_at_all() -> None:
    at = context(ALL, options=Options(keep=(f"{SITE}/_pytest/main.py",)))
    assert paths(PASS, at) == []
    assert at.notes == [f"pytest stays: /{SITE}/_pytest/main.py is to stay"]
    assert left(options=Options(keep=(f"{SITE}/pluggy",))) == {"pytest"}
    assert paths(PASS, context(ALL, [file("x")], keep_layers=[0])) == []
    upper = context(ALL, [hardlink(f"{SITE}/pluggy/py.typed", f"{SITE}/pluggy/py.typed")], keep_layers=[1])
    assert dists_left(paths(PASS, upper)) == {"pytest"}


def test_what_two_distributions_list_stays_with_the_other() -> None:
    shared = file(f"{SITE}/shared/__init__.py", b"")
    members = (*distribution("mypy", shared), *distribution("stays", file(f"{SITE}/shared/__init__.py", b"")))
    found = paths(PASS, context([*INTERPRETER, *members]))
    assert dists_left(found) == {"mypy"}
    assert f"{SITE}/shared/__init__.py" not in found


def test_debians_own_are_debians() -> None:
    dpkg = Dpkg()
    site = "usr/lib/python3/dist-packages"
    members = distribution("mypy", "mypy/main.py", site=site)
    dpkg.add("python3-mypy", *members)
    assert paths(PASS, context(dpkg.members())) == []
    assert paths(PASS, context([*INTERPRETER, *distribution("mypy", "mypy/main.py", record=False)])) == []
