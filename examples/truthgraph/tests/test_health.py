"""Alive is not ready."""

import sqlite3
from pathlib import Path

import pytest
import servers
from conftest import MakeClient
from fastapi.testclient import TestClient
from stub import StubInference
from truthgraph.storage import database


def test_ready(client: TestClient, inference: StubInference) -> None:
    answer = client.get("/health")
    assert answer.status_code == 200
    health = answer.json()
    assert health["alive"] is True
    assert health["ready"] is True
    assert health["database"]["reason"] is None
    assert health["inference"] == {"mode": "local", "reason": None, "circuit": None}
    assert inference.embedded == []


def test_the_core_is_ready_and_says_why_it_has_no_inference(core: TestClient) -> None:
    answer = core.get("/health")
    assert answer.status_code == 200
    assert answer.json()["inference"] == {"mode": "none", "reason": "the test has none", "circuit": None}


def test_alive_without_postgresql(make_client: MakeClient) -> None:
    client = make_client(f"postgresql://user:secret@127.0.0.1:{servers.free_port()}/x")
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["alive"] is True
    assert answer.json()["ready"] is False
    assert answer.json()["database"]["reason"].startswith("PostgreSQL at 127.0.0.1 cannot be used: ")
    claims = client.get("/claims")
    assert claims.status_code == 503
    assert claims.json()["error"] == "database_unavailable"
    assert "retry-after" in claims.headers
    assert "secret" not in answer.text + claims.text


def test_alive_without_a_place_for_sqlite_and_ready_when_there_is_one(
    make_client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "RETRY", 0.0)
    file = tmp_path / "missing/truth.db"
    client = make_client(f"sqlite:///{file}")
    answer = client.get("/health")
    assert answer.status_code == 503
    reason = answer.json()["database"]["reason"]
    assert reason.startswith(f"the SQLite file {file} cannot be used: unable to open database file. ")
    assert "DATABASE_URL" in reason
    file.parent.mkdir()
    assert client.get("/health").status_code == 200


def test_after_a_failure_the_next_request_fails_at_once(make_client: MakeClient, tmp_path: Path) -> None:
    file = tmp_path / "missing/truth.db"
    client = make_client(f"sqlite:///{file}")
    file.parent.mkdir()
    assert client.get("/health").status_code == 503


def test_a_schema_of_another_version_is_not_ready(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(f"sqlite:///{tmp_path}/truth.db")
    with sqlite3.connect(tmp_path / "truth.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["database"]["reason"] == "the schema is at 9999, this version needs 0001"
