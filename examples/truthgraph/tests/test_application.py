"""The application as such: its routes, and what importing it does."""

import subprocess
import sys
from pathlib import Path

import httpx2
import servers
from fastapi.testclient import TestClient
from starlette.routing import Route
from truthgraph.main import app

ROUTES = {
    ("GET", "/"),
    ("GET", "/health"),
    ("POST", "/claims"),
    ("GET", "/claims"),
    ("GET", "/claims/{claim_id}"),
    ("POST", "/claims/{claim_id}/verify"),
    ("GET", "/claims/{claim_id}/verdict"),
    ("POST", "/evidence"),
    ("POST", "/embed"),
    ("POST", "/search"),
    ("POST", "/nli"),
}


def test_there_are_fifteen_routes_with_fastapis_own_four() -> None:
    assert len(app.routes) == 15
    listed = [
        (method, route.path) for route in app.routes if isinstance(route, Route) for method in route.methods or ()
    ]
    assert set(listed) >= ROUTES
    assert len(ROUTES) == 15 - 4


def test_importing_loads_no_model_and_touches_no_file(tmp_path: Path) -> None:
    code = "import sys, truthgraph.main; print({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
    assert list(tmp_path.iterdir()) == []


def test_a_real_process_serves_without_any_setting(tmp_path: Path) -> None:
    with servers.service("truthgraph.main:app", tmp_path, {}) as url:
        assert httpx2.get(f"{url}/health").json()["ready"] is True
        # With the extra `ml` the first text loads the model.
        assert httpx2.post(f"{url}/claims", json={"text": "It rains."}, timeout=300).status_code == 201
        assert httpx2.get(f"{url}/openapi.json").json()["info"]["title"] == "truthgraph"
    assert (tmp_path / "truthgraph.db").exists()


def test_root_says_what_this_is(core: TestClient) -> None:
    assert core.get("/").json()["name"] == "truthgraph"


def test_answers_carry_a_request_id(core: TestClient) -> None:
    ids = {core.get("/").headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
