"""What the build context tells: .dockerignore, bytes of what is copied, pyproject.toml, scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from deadweight.application.dockerfile import parse_dockerfile
from deadweight.build.lint.context import Context, Ignore
from deadweight.build.lint.sniff import context_of
from deadweight.build.lint.steps import distribution
from support.linting import costs, found, lines, result_of

SLIM = "FROM python:3.12-slim\n"


def write(folder: Path, **files: str) -> Path:
    """Files by name; `__` stands for a slash and `_DOT_` for a dot."""
    for name, text in files.items():
        path = folder / name.replace("_DOT_", ".").replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("patterns", "path", "out"),
    [
        ("tests", "tests/a.py", True),
        ("/tests/", "tests/a.py", True),
        ("tests", "src/tests/a.py", False),
        ("**/tests", "src/tests/a.py", True),
        ("**/*.pyc", "a.pyc", True),
        ("*.pyc", "a/b.pyc", False),
        ("*\n!src", "src/a.py", False),
        ("*\n!src\nsrc/tests", "src/tests/a.py", True),
        ("!src\n*", "src/a.py", True),
        ("# tests\n\n./x", "x", True),
        ("a?b", "acb", True),
        ("a**z", "a/b/z", True),
        (".\n..", "x", False),
        ("a[", "a[", True),
    ],
)
def test_ignore_files(patterns: str, path: str, out: bool) -> None:
    assert Ignore.of(patterns.splitlines())(path) is out


def test_what_is_copied_is_measured(tmp_path: Path) -> None:
    write(tmp_path, tests__a_DOT_py="x" * 100, tests__b_DOT_py="x" * 11, src__m_DOT_py="y", scripts__x="z" * 7)
    (tmp_path / "tests" / "away").symlink_to("/etc/passwd")
    inside = 111 + len("/etc/passwd")
    assert costs(result_of(SLIM + "USER a\nCOPY tests scripts ./\n", tmp_path)) == {"tests-copied": inside + 7}
    whole = result_of(SLIM + "USER a\nCOPY . .\n", tmp_path).found[0].finding
    assert whole.bytes == inside + 7
    assert whole.what == "tests and scripts are copied along with all the rest, and there is no .dockerignore"
    assert costs(result_of(SLIM + "USER a\nCOPY t*s ./\n", tmp_path)) == {}  # what a pattern takes is not looked into
    write(tmp_path, _DOT_dockerignore="tests/a.py\nscripts\n")
    assert costs(result_of(SLIM + "USER a\nCOPY . .\n", tmp_path)) == {"tests-copied": inside - 100}
    # The Dockerfile's own ignore file comes first.
    write(tmp_path, Dockerfile_DOT_dockerignore="**\n!src\n")
    assert costs(result_of(SLIM + "USER a\nCOPY . .\n", tmp_path)) == {}


PYPROJECT = """[project]
name = "x"
dependencies = [
    "fastapi",
    "pytest-asyncio",  # used in one place
]
[project.optional-dependencies]
ml = ["torch"]
serve = [
    "gunicorn",
    "Black>=24",
]
[dependency-groups]
dev = ["mypy"]
other = ["httpx"]
"""


@pytest.mark.parametrize(
    ("command", "whats", "lines_of_project"),
    [
        ("pip install .", ["pip install installs the project, whose dependencies have pytest-asyncio"], [5]),
        ("pip install .[ml]", ["pip install installs the project, whose dependencies have pytest-asyncio"], [5]),
        (
            "uv pip install -e '.[ml,serve]'",
            [
                "uv pip install installs the project, whose dependencies have pytest-asyncio",
                "uv pip install installs the extra 'serve', which has black",
            ],
            [5, 11],
        ),
        (
            "uv sync",
            [
                "uv sync installs the project, whose dependencies have pytest-asyncio",
                "uv sync installs the group 'dev' unasked, which has mypy",
            ],
            [5, 14],
        ),
        ("uv sync --no-dev", ["uv sync installs the project, whose dependencies have pytest-asyncio"], [5]),
        ("pip install fastapi", [], []),
    ],
)
def test_what_a_pyproject_says(tmp_path: Path, command: str, whats: list[str], lines_of_project: list[int]) -> None:
    write(tmp_path, pyproject_DOT_toml=PYPROJECT)
    result = result_of(SLIM + f"RUN {command}\n", tmp_path)
    dev = [one.finding for one in result.found if one.rule.name == "dev-dependencies"]
    assert [one.what for one in dev] == whats
    assert [one.places[0].line for one in dev] == [2] * len(dev)
    assert [(Path(place.file).name, place.line) for one in dev for place in one.places[1:]] == [
        ("pyproject.toml", line) for line in lines_of_project
    ]


POETRY = """[tool.poetry.dependencies]
python = "^3.11"
[tool.poetry.group.dev.dependencies]
ruff = "*"
[tool.poetry.group.docs]
optional = true
[tool.poetry.group.docs.dependencies]
mkdocs = "*"
"""


def test_groups_of_poetry(tmp_path: Path) -> None:
    write(tmp_path, pyproject_DOT_toml=POETRY)
    assert lines("dev-dependencies", SLIM + "RUN poetry install\n", tmp_path) == [2]
    assert lines("dev-dependencies", SLIM + "RUN poetry install --only main\n", tmp_path) == []
    result = result_of(SLIM + "RUN poetry install --without dev --with docs\n", tmp_path)
    assert "the group 'docs', which has mkdocs" in next(o.finding.what for o in result.found if "dev-d" in o.rule.name)


def test_requirements_that_people_write(tmp_path: Path) -> None:
    write(tmp_path, requirements_DOT_txt="fastapi\npytest==8\n", lock_DOT_txt="pytest==8\n    # via x\n")
    result = result_of(SLIM + "COPY . .\nRUN pip install -r requirements.txt\n", tmp_path)
    finding = next(one.finding for one in result.found if one.rule.name == "dev-dependencies")
    assert finding.what == "'requirements.txt' has pytest"
    assert (finding.places[0].line, finding.places[1].line) == (3, 2)
    assert lines("dev-dependencies", SLIM + "RUN pip install -r lock.txt\n", tmp_path) == []


def test_a_script_that_reloads(tmp_path: Path) -> None:
    write(tmp_path, start_DOT_sh='#!/bin/sh\n# --reload\nif [ -n "$DEV" ]; then echo; fi\nexec uvicorn x:y --reload\n')
    result = result_of(SLIM + 'USER a\nCMD ["./start.sh"]\n', tmp_path)
    assert [(one.rule.name, one.finding.places[1].line) for one in result.found] == [("reload-in-production", 4)]
    write(tmp_path, start_DOT_sh="exec gosu app uvicorn x:y\n")
    assert found(SLIM + 'CMD ["./start.sh"]\n', tmp_path) == []


def test_a_context_that_cannot_be_trusted(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    write(tmp_path, secret="x")
    (tmp_path / "c" / "pyproject.toml").symlink_to(tmp_path / "secret")
    context = Context(tmp_path / "c")
    assert context.pyproject == {}
    assert context.read("../secret") is None
    assert context.read("\0") is None
    write(tmp_path / "c", deep_DOT_toml="x")
    (tmp_path / "c" / "pyproject.toml").unlink()
    write(tmp_path / "c", pyproject_DOT_toml="[" * 3000)
    assert Context(tmp_path / "c").pyproject == {}


def test_where_the_context_is(tmp_path: Path) -> None:
    write(tmp_path, app__src__m="", app__docker__Dockerfile="", app__docker__x="")
    path = str(tmp_path / "app" / "docker" / "Dockerfile")

    def where(text: str, folder: Path | None = None) -> Path | None:
        context = context_of(path, parse_dockerfile("FROM x\n" + text), folder)
        return None if context is None else context.folder

    assert where("COPY src x\n") == tmp_path / "app"
    assert where("COPY x x\n") == tmp_path / "app" / "docker"
    assert where("COPY none x\n") is None
    assert where("COPY . .\n") is None
    write(tmp_path, app__uv_DOT_lock="")
    assert where("COPY . .\n") == tmp_path / "app"
    write(tmp_path, app__docker__uv_DOT_lock="")
    assert where("COPY . .\n") == tmp_path / "app" / "docker"
    assert where("COPY none x\n", tmp_path) == tmp_path
    assert context_of("-", parse_dockerfile("FROM x\nCOPY . .\n"), None) is None


def test_what_python_does_not_read_is_passed_over(tmp_path: Path) -> None:
    assert Context(write(tmp_path, pyproject_DOT_toml=f"n = {'1' * 5000}\n")).pyproject == {}
    assert distribution(f"b; {'(' * 3000}os_name == 'x'{')' * 3000}") == "b"
