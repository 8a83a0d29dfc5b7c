"""What tests of engines share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.fake_engine import Store, fake_engine


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dw-") as name:
        yield Path(name)


@pytest.fixture
def store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An engine with containerd's image store, which the environment names."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{folder}/engine.sock")
    with fake_engine(folder / "engine.sock") as found:
        yield found
