"""Databases and clients for tests: each test has its own."""

import itertools
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
import servers
from fastapi.testclient import TestClient
from stub import StubInference
from truthgraph.inference.interface import Inference
from truthgraph.inference.nothing import NoInference
from truthgraph.main import create_app
from truthgraph.settings import Settings

MakeClient = Callable[..., TestClient]
_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs models where they are not installed."""
    if find_spec("torch") is not None:
        return
    for item in items:
        if item.get_closest_marker("ml"):
            item.add_marker(pytest.mark.skip(reason="torch is missing: install the extra `ml`"))


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting from outside, and a working directory of the test's own."""
    for name in list(os.environ):
        if name.startswith("TRUTHGRAPH_") or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def postgresql_folder() -> Iterator[Path]:
    """A running PostgreSQL, one for all tests of a process."""
    with servers.postgresql() as folder:
        yield folder


@pytest.fixture
def postgresql_url(postgresql_folder: Path) -> Iterator[str]:
    """An empty database of PostgreSQL."""
    name = f"test_{next(_numbers)}"
    with psycopg.connect(host=str(postgresql_folder), user="postgres", dbname="postgres", autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield f"postgresql://postgres@/{name}?host={postgresql_folder}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file of SQLite that is not there yet."""
    return f"sqlite:///{tmp_path}/test.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each test that takes this runs against both databases."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def inference() -> StubInference:
    """The tests' own inference."""
    return StubInference()


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    """Makes clients of the service, in this process; all are closed at the end."""
    opened: list[TestClient] = []

    def make(database_url: str, inference: Inference | None = None, **settings: Any) -> TestClient:
        app = create_app(
            Settings(database_url=database_url, **settings),
            inference or NoInference("the test has none"),
        )
        client = TestClient(app, raise_server_exceptions=False)
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__()


@pytest.fixture
def client(make_client: MakeClient, database_url: str, inference: StubInference) -> TestClient:
    """The service with the tests' inference, over each database."""
    return make_client(database_url, inference)


@pytest.fixture
def core(make_client: MakeClient, database_url: str) -> TestClient:
    """The service without inference, over each database."""
    return make_client(database_url)
