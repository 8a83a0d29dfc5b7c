"""What tests of pages and of registries share: a browser, a registry, and that nobody is logged in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from support.browser import chromium
from support.registries import Server, no_logins, start_registry


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as one:
        yield one


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A real registry, empty at first."""
    with ExitStack() as stack:
        yield start_registry(stack)


@pytest.fixture
def without_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_logins(monkeypatch, tmp_path / "home")
