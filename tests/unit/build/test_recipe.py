"""The recipe of a project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deadweight.build.dockerfile import render
from deadweight.build.recipe import Lock, Recipe, read_recipe
from deadweight.errors import BadInputError
from support.recipes import BUILD_SYSTEM, FASTAPI, FLASK, project, pyproject, requirements

MAIN = {"src/service/__init__.py": "", "src/service/main.py": FASTAPI}
CORE = "fastapi uvicorn starlette anyio"


def recipe(folder: Path, files: dict[str, str], extras: tuple[str, ...] | None = None) -> Recipe:
    return read_recipe(project(folder, files), extras=extras)


def path(lock: Lock | None) -> str | None:
    return lock.path if lock is not None else None


def test_a_service_with_locks_for_core_ml_and_developers(tmp_path: Path) -> None:
    # setuptools is what developers want and torch brings along: it makes ml.txt no lock of theirs.
    extras = {"ml": "torch transformers", "dev": "pytest setuptools", "all": "service[ml,dev]"}
    found = recipe(
        tmp_path,
        MAIN
        | {
            "pyproject.toml": pyproject(extras=extras),
            "requirements/core.txt": requirements(CORE),
            "requirements/ml.txt": requirements(f"{CORE} torch transformers setuptools"),
            "requirements/dev.txt": requirements(f"{CORE} pytest setuptools pluggy"),
            "requirements/constraints.txt": requirements(CORE),
        },
    )
    assert (found.name, found.version, found.installable) == ("service", "1.2", True)
    assert (found.extras, found.dev_extras) == (("ml",), ("dev", "all"))
    assert found.core_lock == Lock("requirements", "requirements/core.txt", True, ("requirements/core.txt",))
    assert (path(found.lock), path(found.dev_lock)) == ("requirements/ml.txt", "requirements/dev.txt")
    assert found.command == ("uvicorn", "service.main:app", "--host", "0.0.0.0", "--port", "8000")
    assert (found.port, found.health) == (8000, "/health")
    assert (found.copied, found.python_path) == ((), ("/app/lib",))
    assert found.packages == ()
    assert set(found.build_packages) == {"gcc", "g++", "libc6-dev"}


def test_extras_that_are_named_and_such_that_are_not_there(tmp_path: Path) -> None:
    files = MAIN | {"pyproject.toml": pyproject(extras={"ml": "torch", "s3_store": "boto3", "test": "pytest"})}
    assert recipe(tmp_path, files, ("S3.store", "test")).extras == ("s3-store", "test")
    assert read_recipe(tmp_path, extras=("test",)).dev_extras == ()
    assert read_recipe(tmp_path, extras=()).extras == ()
    with pytest.raises(BadInputError, match=r"service has no extra 'gpu'; there are: ml, s3-store, test"):
        read_recipe(tmp_path, extras=("gpu",))


UV_LOCK = """
version = 1
requires-python = ">=3.11, <3.14"
[[package]]
name = "service"
source = { editable = "." }
dependencies = [
    { name = "fastapi" },
    { name = "psycopg2" },
    { name = "old", marker = "python_full_version < '3.12'" },
]
[package.optional-dependencies]
ml = [{ name = "native" }]
[[package]]
name = "fastapi"
wheels = [{ url = "https://x/fastapi-1.0-py3-none-any.whl" }]
[[package]]
name = "psycopg2"
sdist = { url = "https://x/psycopg2-1.0.tar.gz" }
[[package]]
name = "old"
wheels = [{ url = "https://x/old-1.0-cp311-cp311-manylinux_2_17_x86_64.whl" }]
[[package]]
name = "native"
wheels = [
    { url = "https://x/native-1.0-cp312-cp312-manylinux_2_17_x86_64.whl" },
    { url = "https://x/native-1.0-cp313-cp313t-manylinux_2_17_x86_64.whl" },
    { url = "https://x/native-1.0-cp313-cp313-win_amd64.whl" },
]
"""


def test_uv_lock_serves_all_and_its_wheels_choose_the_python(tmp_path: Path) -> None:
    files = MAIN | {"pyproject.toml": pyproject(extras={"ml": "native", "dev": "pytest"}), "uv.lock": UV_LOCK}
    found = recipe(tmp_path, files)
    uv = Lock("uv", "uv.lock", True, ("uv.lock", "pyproject.toml"))
    assert found.core_lock == found.lock == found.dev_lock == uv
    assert found.python == "3.12"
    assert any("no wheels of every distribution for a newer one" in note for note in found.notes)
    assert read_recipe(tmp_path, extras=()).python == "3.13"
    assert "libpq5" in found.packages
    assert "libpq-dev" in found.build_packages


@pytest.mark.parametrize(
    ("files", "requires", "expected"),
    [
        ({}, ">=3.11", "3.14"),
        ({}, ">=3.10,<3.13", "3.12"),
        ({}, "==3.11.*", "3.11"),
        ({".python-version": "3.12.4\n"}, ">=3.11", "3.12"),
        ({".python-version": "3.9\n"}, ">=3.11", "3.14"),
        (
            {"requirements.txt": requirements(CORE, head="#    uv pip compile pyproject.toml --python-version 3.12")},
            ">=3.11",
            "3.12",
        ),
        (
            {"requirements.txt": requirements(CORE, head="# uv pip compile x --universal --python-version 3.11")},
            ">=3.11",
            "3.14",
        ),
        ({"requirements.txt": requirements(CORE, head="# by pip-compile with Python 3.13")}, ">=3.11", "3.13"),
    ],
)
def test_the_newest_python_that_is_allowed(files: dict[str, str], requires: str, expected: str, tmp_path: Path) -> None:
    assert recipe(tmp_path, MAIN | {"pyproject.toml": pyproject(requires_python=requires)} | files).python == expected


def test_classifiers_name_what_was_tried(tmp_path: Path) -> None:
    text = pyproject().replace(
        "dependencies =", 'classifiers = ["Programming Language :: Python :: 3.12"]\ndependencies ='
    )
    assert recipe(tmp_path, MAIN | {"pyproject.toml": text}).python == "3.12"


def test_no_python_at_all(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"requires-python >=4 allows no Python"):
        recipe(tmp_path, {"pyproject.toml": pyproject(requires_python=">=4")})


def test_a_project_of_requirements_alone(tmp_path: Path) -> None:
    found = recipe(
        tmp_path,
        {
            "app.py": FLASK,
            "templates/index.html": "",
            "tests/test_app.py": "",
            ".env": "SECRET=1",
            "env/pyvenv.cfg": "",
            "requirements_of.py": "",
            "requirements.txt": requirements("flask gunicorn psycopg2-binary", hashes=False),
            "requirements-dev.txt": "-r requirements.txt\npytest==8.0\n",
            "README.md": "",
            "Dockerfile": 'FROM python:3.12\nCMD ["gunicorn", "app:app"]\n',
        },
    )
    assert not found.installable
    assert (found.copied, found.python_path) == (("app.py", "requirements_of.py", "templates"), ("/app",))
    assert path(found.lock) == path(found.core_lock) == "requirements.txt"
    assert found.lock is not None
    assert (found.lock.pinned, found.lock.hashes) == (True, False)
    assert found.dev_lock is not None
    assert found.dev_lock.files == ("requirements-dev.txt", "requirements.txt")
    assert found.command == ("gunicorn", "app:app", "--bind", "0.0.0.0:8000")
    assert found.health == "/healthz"
    assert found.packages == ()  # the wheel brings libpq


def test_a_lock_of_all_is_none_of_the_core(tmp_path: Path) -> None:
    files = {"pyproject.toml": pyproject(extras={"ml": "torch"}), "requirements.txt": requirements(f"{CORE} torch")}
    found = recipe(tmp_path, MAIN | files)
    assert (path(found.core_lock), path(found.lock)) == (None, "requirements.txt")
    assert any("takes its versions from requirements.txt" in note for note in found.notes)


def test_a_pylock_is_of_the_core_too_where_it_marks_extras(tmp_path: Path) -> None:
    lock = 'lock-version = "1.0"\n[[packages]]\nname = "torch"\nmarker = "\'ml\' in extras"\n'
    files = MAIN | {"pyproject.toml": pyproject(extras={"ml": "torch", "dev": "pytest"})}
    found = recipe(tmp_path, files | {"pylock.toml": lock})
    assert (path(found.core_lock), path(found.lock), path(found.dev_lock)) == (None, "pylock.toml", "pylock.toml")
    assert any("marks no extras" in note for note in found.notes)
    found = recipe(tmp_path, files | {"pylock.toml": f'extras = ["ml", "dev"]\n{lock}'})
    assert path(found.core_lock) == "pylock.toml"


def test_versions_that_are_open_are_said(tmp_path: Path) -> None:
    found = recipe(tmp_path, {"app.py": FLASK, "requirements.txt": "flask\ngunicorn>=20\n"})
    assert found.lock is not None
    assert not found.lock.pinned
    assert any("requirements.txt does not pin every version" in note for note in found.notes)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("-e .", "from a directory"),
        (".", "the project itself"),
        ("./libs/thing", "from a directory"),
        ("-r other.txt", "'other.txt', which is not in the project"),
        ("-r ../../etc/passwd", "which is not in the project"),
    ],
)
def test_requirements_that_cannot_be_installed_on_their_own(line: str, reason: str, tmp_path: Path) -> None:
    text = requirements(CORE) + line + "\n"
    found = recipe(tmp_path, MAIN | {"pyproject.toml": pyproject(), "requirements.txt": text})
    assert found.lock is None
    assert any("'requirements.txt' is not used" in note and reason in note for note in found.notes)


@pytest.mark.parametrize("name", ["a b.txt", "a$(id).txt", "a,b.txt", "a\nRUN id.txt", "a'b.txt"])
def test_locks_with_names_that_need_quoting_are_not_used(name: str, tmp_path: Path) -> None:
    found = recipe(tmp_path, MAIN | {"pyproject.toml": pyproject(), f"requirements/{name}": requirements(CORE)})
    assert found.lock is None
    assert any("is an unusual name for a lock: rename it" in note for note in found.notes)


def test_locks_of_other_tools_are_named(tmp_path: Path) -> None:
    found = recipe(tmp_path, MAIN | {"pyproject.toml": pyproject(), "poetry.lock": ""})
    assert found.lock is None
    assert any("poetry export" in note for note in found.notes)
    assert any("no lock was found" in note for note in found.notes)


def test_what_a_project_reads_beside_its_package(tmp_path: Path) -> None:
    found = recipe(
        tmp_path,
        MAIN
        | {
            "pyproject.toml": pyproject(),
            "alembic.ini": "[alembic]\nscript_location = %(here)s/db/versions\n",
            "db/versions/env.py": "",
            "migrations/notes.txt": "no environment of alembic's",
            "gunicorn.conf.py": "",
            "static/logo.svg": "",
        },
    )
    assert found.copied == ("alembic.ini", "gunicorn.conf.py", "static", "db/versions")


def test_a_module_beside_the_package_is_copied_too(tmp_path: Path) -> None:
    found = recipe(tmp_path, {"main.py": FASTAPI, "pyproject.toml": pyproject()})
    assert (found.copied, found.python_path) == (("main.py",), ("/app/lib", "/app"))


@pytest.mark.parametrize(
    ("source", "dependencies", "command"),
    [
        (FASTAPI, "fastapi hypercorn", ("hypercorn", "service.main:app", "--bind", "0.0.0.0:8000")),
        (FASTAPI, "fastapi[standard]", ("uvicorn", "service.main:app", "--host", "0.0.0.0", "--port", "8000")),
        (FASTAPI, "fastapi", ()),
        (FLASK, "flask waitress", ("waitress-serve", "--listen=0.0.0.0:5000", "service.main:app")),
        (
            "from fastapi import FastAPI\ndef create_app():\n    return FastAPI()\n",
            "fastapi uvicorn",
            ("uvicorn", "service.main:create_app", "--factory", "--host", "0.0.0.0", "--port", "8000"),
        ),
    ],
)
def test_the_server_is_one_that_the_project_requires(
    source: str, dependencies: str, command: tuple[str, ...], tmp_path: Path
) -> None:
    found = recipe(tmp_path, {"src/service/main.py": source, "pyproject.toml": pyproject(dependencies=dependencies)})
    assert found.command == command
    if not command:
        assert any("no server among the requirements: add uvicorn" in note for note in found.notes)


def test_a_tool_that_serves_nothing(tmp_path: Path) -> None:
    files = {
        "src/service/cli.py": "",
        "pyproject.toml": pyproject(more='[project.scripts]\nserve-it = "service.cli:x"\n'),
    }
    found = recipe(tmp_path, files)
    assert (found.command, found.port) == (("serve-it",), None)


def test_a_version_from_history(tmp_path: Path) -> None:
    text = pyproject(build=BUILD_SYSTEM.replace('"hatchling"', '"hatchling", "hatch-vcs"', 1))
    text = text.replace('version = "1.2"', 'dynamic = ["version"]')
    found = recipe(tmp_path, MAIN | {"pyproject.toml": text})
    assert found.scm_version
    assert not found.version


@pytest.mark.parametrize(
    ("files", "requires", "more", "variable"),
    [
        ({}, "uv-dynamic-versioning", "", "UV_DYNAMIC_VERSIONING_BYPASS"),
        ({}, "pdm-backend", "[tool.pdm.version]\nsource = 'scm'\n", "PDM_BUILD_SCM_VERSION"),
        ({}, "setuptools-git-versioning", "", ""),
        ({}, "versioneer[toml]", "", ""),
        ({"versioneer.py": ""}, "setuptools", "", ""),
        (
            {},
            "poetry-dynamic-versioning",
            "[tool.poetry]\nversion = '0.0.0'\n[tool.poetry-dynamic-versioning]\nenable = true\n",
            "POETRY_DYNAMIC_VERSIONING_BYPASS",
        ),
    ],
)
def test_tools_that_make_a_version_of_history(
    files: dict[str, str], requires: str, more: str, variable: str, tmp_path: Path
) -> None:
    text = f"[project]\nname = 'a'\ndynamic = ['version']\n[build-system]\nrequires = ['{requires}']\n{more}"
    found = recipe(tmp_path, files | {"pyproject.toml": text})
    assert (found.scm_version, found.version, found.version_variable) == (True, "", variable)
    printed = render(found)
    assert (f"ENV {variable}=${{VERSION}}" in printed) == ("ARG VERSION" in printed) == bool(variable)


def test_a_version_that_is_stated_is_not_of_history(tmp_path: Path) -> None:
    text = "[project]\nname = 'a'\nversion = '1'\n[build-system]\nrequires = ['versioneer']\n"
    assert not recipe(tmp_path, {"pyproject.toml": text}).scm_version


def test_what_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="there is no directory"):
        read_recipe(tmp_path / "missing")
    with pytest.raises(BadInputError, match="is no Python project"):
        recipe(tmp_path, {"notes.txt": ""})
    with pytest.raises(BadInputError, match="is no TOML"):
        recipe(tmp_path, {"pyproject.toml": "[project"})


HOSTILE = ["a b", "a\\nRUN rm", 'a\\"b', "a$(id)", "a;b", "a`id`", "-x", "../a", ""]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_no_project_can_have_are_refused(name: str, tmp_path: Path) -> None:
    for text in (
        f'[project]\nname = "{name or " "}"\n',
        f'[project]\nname = "x"\n[project.optional-dependencies]\n"{name}" = []\n',
        f'[project]\nname = "x"\n[dependency-groups]\n"{name}" = []\n',
    ):
        with pytest.raises(BadInputError, match="names are letters and digits"):
            recipe(tmp_path, {"pyproject.toml": text})


def test_links_out_of_the_project_are_not_followed(tmp_path: Path) -> None:
    outside = project(tmp_path / "outside", {"requirements.txt": requirements(CORE)})
    inside = project(tmp_path / "inside", MAIN | {"pyproject.toml": pyproject()})
    (inside / "requirements.txt").symlink_to(outside / "requirements.txt")
    assert read_recipe(inside).lock is None


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    project(tmp_path, {"requirements.txt": "flask==3.0\n", "app.py": FLASK})
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")).touch()
    with pytest.raises(BadInputError, match="rename it") as raised:
        read_recipe(tmp_path)
    assert str(raised.value).isprintable()


def test_a_number_that_python_does_not_read_is_no_toml(tmp_path: Path) -> None:
    text = f"[project]\nname = 'a'\nversion = '1'\n[tool.x]\nn = {'1' * 5000}\n"
    with pytest.raises(BadInputError, match="no TOML"):
        recipe(tmp_path, {"pyproject.toml": text})


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.txt"])
def test_a_requirement_too_deep_to_be_read_is_refused(name: str, tmp_path: Path) -> None:
    deep = f"b; {'(' * 3000}os_name == 'x'{')' * 3000}"
    toml = f'[project]\nname = "a"\nversion = "1"\ndependencies = ["{deep}"]\n'
    with pytest.raises(BadInputError, match="nests too deep"):
        recipe(tmp_path, {name: toml if name == "pyproject.toml" else f"{deep}\n"})


@pytest.mark.parametrize("odd", ["wheels = 3", "wheels = [3, ['x']]", "version = ['1']", "dependencies = 1"])
def test_a_lock_of_another_shape_says_less_and_breaks_nothing(odd: str, tmp_path: Path) -> None:
    version = ", version = ['1']" if "version" in odd else ""
    lock = f"""\
version = 1
[[package]]
name = 'a'
version = '1'
dependencies = [{{name = 'b'{version}}}]
[[package]]
name = 'b'
{odd}
"""
    found = recipe(tmp_path, {"pyproject.toml": "[project]\nname = 'a'\nversion = '1'\n", "uv.lock": lock})
    assert path(found.lock) == "uv.lock"
