"""What the tests of the cache share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder for the images of a test."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def small_layers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits of all layers are remembered, which are small here."""
    monkeypatch.setattr("deadweight.image.emitted.MANY", 0)
