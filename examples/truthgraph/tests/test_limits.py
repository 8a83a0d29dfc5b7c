"""Limits of requests, and the one shape of errors."""

import threading
from collections.abc import Iterator, Sequence

import pytest
from conftest import MakeClient
from fastapi.testclient import TestClient
from stub import StubInference
from truthgraph.inference.interface import Embeddings


@pytest.fixture
def limited(make_client: MakeClient, sqlite_url: str) -> TestClient:
    """A service with small limits."""
    return make_client(sqlite_url, StubInference(), max_body_bytes=500, max_text_length=20, max_batch=3)


def test_a_body_that_says_it_is_too_large(limited: TestClient) -> None:
    answer = limited.post("/claims", content=b"x" * 501)
    assert answer.status_code == 413
    assert answer.json() == {"error": "too_large", "detail": "the body may have 500 bytes"}


def test_a_body_that_does_not_say_its_size(limited: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(10):
            yield b"x" * 100

    assert limited.post("/claims", content=parts()).status_code == 413


def test_a_body_in_parts_within_the_limit(limited: TestClient) -> None:
    parts = (part for part in (b'{"text": ', b'"It rains."', b"}"))
    answer = limited.post("/claims", content=parts, headers={"content-type": "application/json"})
    assert answer.status_code == 201
    assert answer.json()["text"] == "It rains."


def test_a_body_of_the_largest_size(limited: TestClient) -> None:
    body = b'{"text": "a"}'
    padded = body + b" " * (500 - len(body))
    answer = limited.post("/claims", content=padded, headers={"content-type": "application/json"})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/claims", {"text": "x" * 21}),
        ("/evidence", {"text": "x" * 21}),
        ("/search", {"query": "x" * 21}),
        ("/embed", {"texts": ["a", "x" * 21]}),
        ("/nli", {"pairs": [{"premise": "a", "hypothesis": "x" * 21}]}),
        ("/nli", {"pairs": [{"premise": "x" * 21, "hypothesis": "a"}]}),
    ],
)
def test_long_texts(limited: TestClient, path: str, body: object) -> None:
    answer = limited.post(path, json=body)
    assert answer.status_code == 422
    assert answer.json() == {"error": "bad_input", "detail": "a text has 21 characters, 20 are allowed"}


def test_the_longest_text(limited: TestClient) -> None:
    assert limited.post("/claims", json={"text": "x" * 20}).status_code == 201


@pytest.mark.parametrize(
    ("path", "body"),
    [("/embed", {"texts": ["a"] * 4}), ("/nli", {"pairs": [{"premise": "a", "hypothesis": "b"}] * 4})],
)
def test_large_batches(limited: TestClient, path: str, body: object) -> None:
    answer = limited.post(path, json=body)
    assert answer.status_code == 422
    assert answer.json() == {"error": "bad_input", "detail": "the request has 4 items, 3 are allowed"}


class Waiting(StubInference):
    """Works until it is told to stop."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Event()

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Wait."""
        self.begun.release()
        assert self.go_on.wait(30)
        return super().embed(texts)


def test_too_many_requests_at_once(make_client: MakeClient, sqlite_url: str) -> None:
    inference = Waiting()
    client = make_client(sqlite_url, inference, max_concurrency=2)
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(client.post("/embed", json={"texts": ["a"]}).status_code)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for _ in askers:
            assert inference.begun.acquire(timeout=30)
        refused = client.post("/embed", json={"texts": ["a"]})
        assert refused.status_code == 429
        assert refused.json() == {"error": "too_busy", "detail": "2 requests are at work: try again"}
        assert refused.headers["retry-after"] == "1"
        assert client.get("/health").status_code == 200
    finally:
        inference.go_on.set()
        for asker in askers:
            asker.join()
    assert statuses == [200, 200]
    assert client.post("/embed", json={"texts": ["a"]}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [("GET", "/nothing", 404, "not_found"), ("DELETE", "/claims", 405, "method_not_allowed")],
)
def test_errors_of_the_framework_have_our_shape(
    limited: TestClient, method: str, path: str, status: int, error: str
) -> None:
    answer = limited.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"] == error
    assert set(answer.json()) == {"error", "detail"}


def test_an_unforeseen_failure_says_nothing_about_its_inside(make_client: MakeClient, sqlite_url: str) -> None:
    class Broken(StubInference):
        def embed(self, texts: Sequence[str]) -> Embeddings:  # noqa: ARG002
            raise ZeroDivisionError("secret")

    answer = make_client(sqlite_url, Broken()).post("/embed", json={"texts": ["a"]})
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal", "detail": "the service failed; its log says why"}
