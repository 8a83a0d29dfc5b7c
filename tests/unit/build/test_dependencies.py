"""The layer with the dependencies, of wheels that lie here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from deadweight.build.base import Base, Python
from deadweight.build.dependencies import Host, Options, dependencies_layer
from deadweight.build.recipe import read_recipe
from deadweight.build.uv import find_uv
from deadweight.cache.layers import Cache, Cached
from deadweight.errors import BadInputError
from support.recipes import project
from support.weights import weights as made_weights
from support.wheels import make_wheel

WEIGHTS = made_weights(rows=4096)
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
BASE = Base(Python(MINOR, f"{MINOR}.0", f"/usr/bin/python{MINOR}", "x86_64", False, (2, 36)), "/usr/bin", {}, (1,), ())


def layer(
    tmp_path: Path,
    settings: str,
    requires: str = "",
    files: Mapping[str, bytes] | None = None,
    weights: str | None = None,
) -> Cached:
    """The layer of a project that needs the wheel `needs`, with these settings of uv."""
    metadata = f"Metadata-Version: 2.1\nName: needs\nVersion: 1.0\n{requires}\n"
    wheels, work = tmp_path / "wheels", tmp_path / "work"
    wheels.mkdir(parents=True)
    work.mkdir()
    wheel = make_wheel(
        wheels,
        {"needs/__init__.py": b"", **(files or {})},
        name="needs-1.0-py3-none-any.whl",
        info="needs-1.0.dist-info",
        metadata=metadata,
    )
    texts = {
        "pyproject.toml": f"[project]\nname = 'a'\nversion = '1'\ndependencies = ['needs']\n{settings}",
        "requirements.txt": f"--no-index\n--find-links {wheel.parent}\nneeds==1.0\n",
    }
    with ExitStack() as resources:
        return dependencies_layer(
            read_recipe(project(tmp_path / "project", texts)),
            BASE,
            find_uv(),
            lambda: Host(sys.executable, True),
            Options(symbols=False, weights=weights),
            Cache(tmp_path / "cache"),
            work,
            0,
            resources,
            None,
        )[1]


def test_what_is_installed_elsewhere_is_missed(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="elsewhere"):
        layer(tmp_path, f"[tool.uv.pip]\ntarget = '{tmp_path / 'other'}'\n")


def test_models_get_smaller_while_building(tmp_path: Path) -> None:
    model = {
        "needs/model/config.json": b'{"model_type": "bert"}',
        "needs/model/model.safetensors": WEIGHTS,
        "needs/vendored/transformers-5.0.dist-info/RECORD": b"",
    }
    plain = layer(tmp_path / "a", "", files=model).record
    half = layer(tmp_path / "b", "", files=model, weights="fp16").record
    assert half.about["weights_bytes"] > 0
    assert half.bytes < plain.bytes
    assert half.diff_id == layer(tmp_path / "c", "", files=model, weights="fp16").record.diff_id
    del model["needs/model/config.json"]
    assert "weights stay in" in layer(tmp_path / "d", "", files=model, weights="fp16").record.notes[-1]


def test_files_are_files_whatever_the_settings_say_of_links(tmp_path: Path) -> None:
    plain = layer(tmp_path / "a", "").record.diff_id
    assert layer(tmp_path / "b", "[tool.uv.pip]\nlink-mode = 'symlink'\n").record.diff_id == plain


TORCH = "Requires-Dist: torch>=2"


def test_a_lock_that_leaves_something_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="leaves out"):
        layer(tmp_path, "[tool.uv]\noverride-dependencies = ['other==1']\n", TORCH)


@pytest.mark.parametrize(
    "setting", ["override-dependencies = [\"Torch; python_version < '3'\"]", "exclude-dependencies = ['torch']"]
)
def test_what_is_left_out_on_purpose_is_a_note(setting: str, tmp_path: Path) -> None:
    made = layer(tmp_path, f"[tool.uv]\n{setting}\n", TORCH)
    assert any("torch" in note and "not installed" in note for note in made.record.notes)
