"""uv's own settings: those that would put what is installed elsewhere are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from deadweight.build.uv_settings import check_settings
from deadweight.errors import BadInputError
from support.recipes import project

PROJECT = "[project]\nname = 'a'\nversion = '1'\n"


@pytest.mark.parametrize(
    "files",
    [
        {"a/b/pyproject.toml": f"{PROJECT}[tool.uv.pip]\ntarget = 'x'\n"},
        {"a/b/pyproject.toml": PROJECT, "a/b/uv.toml": "[pip]\nprefix = 'x'\n"},
        {"a/b/pyproject.toml": PROJECT, "pyproject.toml": "[tool.uv.pip]\ntarget = 'x'\n"},
        {"a/b/pyproject.toml": f"{PROJECT}[tool.uv]\nmanaged = true\n", "config/uv/uv.toml": "[pip]\ntarget = 'x'\n"},
        {"a/b/pyproject.toml": PROJECT, "etc/uv/uv.toml": "[pip]\ntarget = 'x'\n"},
    ],
)
def test_another_place_is_refused(files: dict[str, str], tmp_path: Path) -> None:
    project(tmp_path, files)
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "XDG_CONFIG_DIRS": f"relative:{tmp_path / 'etc'}"}
    with pytest.raises(BadInputError, match="install elsewhere"):
        check_settings(tmp_path / "a/b", environment)


def test_a_file_that_is_named_is_the_only_one(tmp_path: Path) -> None:
    project(tmp_path, {"a/uv.toml": "[pip]\ntarget = 'x'\n", "own.toml": "[pip]\nno-deps = true\n"})
    check_settings(tmp_path / "a", {"UV_CONFIG_FILE": str(tmp_path / "own.toml")})
    check_settings(tmp_path / "a", {"UV_NO_CONFIG": "1"})
    (tmp_path / "own.toml").write_text("[pip]\ntarget = 'x'\n")
    with pytest.raises(BadInputError, match=r"own\.toml"):
        check_settings(tmp_path / "a", {"UV_CONFIG_FILE": str(tmp_path / "own.toml")})


def test_other_settings_are_uv_s_business(tmp_path: Path) -> None:
    files = {"a/pyproject.toml": f"{PROJECT}[[tool.uv.index]]\nurl = 'https://x'\n", "uv.toml": "[pip]\ntarget = 'x'\n"}
    project(tmp_path, files)
    check_settings(tmp_path / "a", {})  # uv reads the nearest alone
    (tmp_path / "a/pyproject.toml").write_text("no TOML")
    (tmp_path / "uv.toml").unlink()
    check_settings(tmp_path / "a", {})
