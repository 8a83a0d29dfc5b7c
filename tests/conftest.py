"""No test finds what another one, or whoever runs them, has in the cache."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

VARIABLE = "DEADWEIGHT_CACHE_DIR"


def pytest_configure(config: pytest.Config) -> None:
    """Fixtures of modules and sessions share one, which goes with the session."""
    folder = tempfile.mkdtemp(prefix="deadweight-tests-")
    os.environ[VARIABLE] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, tempfile.mkdtemp(prefix="cache-", dir=tmp_path_factory.getbasetemp()))
