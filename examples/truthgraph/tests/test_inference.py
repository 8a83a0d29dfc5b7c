"""Inference: none, remote, and which one the settings choose."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import servers
from conftest import MakeClient
from fastapi.testclient import TestClient
from stub import StubInference
from truthgraph.errors import InferenceFailed, InferenceUnavailable
from truthgraph.inference import choose
from truthgraph.inference.interface import Inference, Pair
from truthgraph.inference.remote import RemoteInference
from truthgraph.settings import Settings

MakeRemote = Callable[..., RemoteInference]


@pytest.fixture
def make_remote() -> Iterator[MakeRemote]:
    """Makes remotes of a URL; all are closed at the end."""
    made: list[RemoteInference] = []

    def make(url: str, **settings: Any) -> RemoteInference:
        made.append(RemoteInference(Settings.model_validate({"ml_url": url, **settings})))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_the_core_answers_503_with_the_reason(core: TestClient) -> None:
    claim = core.post("/claims", json={"text": "It rains."}).json()["id"]
    for path, body in (
        ("/embed", {"texts": ["a"]}),
        ("/nli", {"pairs": [{"premise": "a", "hypothesis": "b"}]}),
        (f"/claims/{claim}/verify", None),
    ):
        answer = core.post(path, json=body)
        assert answer.status_code == 503
        assert answer.json() == {"error": "inference_unavailable", "detail": "the test has none"}


@pytest.mark.skipif(find_spec("torch") is not None, reason="torch is here")
def test_without_the_extra_there_is_none_and_it_says_what_to_install() -> None:
    inference = choose(Settings())
    assert inference.mode == "none"
    assert inference.reason is not None
    assert inference.reason.startswith("not installed: torch, ")
    assert "truthgraph[ml]" in inference.reason
    assert "TRUTHGRAPH_ML_URL" in inference.reason


def test_a_remote_is_chosen_over_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUTHGRAPH_ML_URL", "http://127.0.0.1:1")
    assert choose(Settings()).mode == "remote"


def test_embed_and_nli(client: TestClient) -> None:
    answer = client.post("/embed", json={"texts": ["a b", "c"]}).json()
    assert answer["model"] == "stub"
    assert answer["dimensions"] == 64
    assert [len(vector) for vector in answer["vectors"]] == [64, 64]
    answer = client.post("/nli", json={"pairs": [{"premise": "It is hot", "hypothesis": "It is not hot"}]}).json()
    assert answer["results"][0]["label"] == "contradiction"
    assert answer["results"][0]["probabilities"] == {"entailment": 0.05, "neutral": 0.05, "contradiction": 0.9}


def test_a_second_process_does_the_inference(
    make_remote: MakeRemote, make_client: MakeClient, database_url: str, tmp_path: Path
) -> None:
    texts = [f"The sky is blue {number}." for number in range(5)]
    pairs = [Pair(text, "The sky is not blue.") for text in texts]
    with servers.service("stub_app:app", tmp_path, {"TRUTHGRAPH_MAX_BATCH": "2"}) as url:
        remote = make_remote(url, max_batch=2)
        here = StubInference()
        there = remote.embed(texts)
        assert there.model == "stub"
        assert [row.tolist() for row in there.vectors] == [row.tolist() for row in here.embed(texts).vectors]
        assert remote.judge(pairs) == here.judge(pairs)

        client = make_client(database_url, remote)
        health = client.get("/health").json()
        assert health["inference"] == {"mode": "remote", "reason": None, "circuit": "closed"}
        for text in texts:
            client.post("/evidence", json={"text": text})
        claim = client.post("/claims", json={"text": "The sky is blue."}).json()["id"]
        assert client.post(f"/claims/{claim}/verify").json()["label"] == "supported"

        too_many = make_remote(url, max_batch=3)
        with pytest.raises(InferenceFailed, match="answered 422: the request has 3 items, 2 are allowed"):
            too_many.embed(texts)

    answer = client.post(f"/claims/{claim}/verify")
    assert answer.status_code == 503
    assert "cannot be reached" in answer.json()["detail"]
    assert client.post("/evidence", json={"text": "It rains."}).json()["embedding_model"] is None
    search = client.post("/search", json={"query": "rain"}).json()
    assert search["mode"] == "words"
    assert "cannot be reached" in search["reason"]
    assert [hit["text"] for hit in search["results"]] == ["It rains."]


def test_a_remote_core_says_so(
    make_remote: MakeRemote, tmp_path: Path, make_client: MakeClient, sqlite_url: str
) -> None:
    if find_spec("torch") is not None:
        pytest.skip("torch is here: a second process would load models")
    with servers.service("truthgraph.main:app", tmp_path, {}) as url:
        answer = make_client(sqlite_url, make_remote(url)).post("/embed", json={"texts": ["a"]})
    assert answer.status_code == 503
    assert "cannot now: not installed: torch" in answer.json()["detail"]


@contextmanager
def _answering(status: int, body: bytes, delay: float = 0) -> Iterator[str]:
    """A server with one answer to everything."""
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if delay:
                released.wait(delay)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://user:secret@127.0.0.1:{server.server_port}"
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _embedding(*vectors: list[float]) -> bytes:
    return json.dumps({"model": "m", "dimensions": 2, "vectors": vectors}).encode()


@pytest.mark.parametrize(
    ("status", "body", "error", "said"),
    [
        (200, b"not JSON", InferenceFailed, "gave no answer of /embed"),
        (200, b'{"model": "m"}', InferenceFailed, "gave no answer of /embed"),
        (200, b'{"model": "m", "vectors": [[NaN]]}', InferenceFailed, "gave no answer of /embed"),
        (200, _embedding([1, 0]), InferenceFailed, "answered 1 of 2 questions"),
        (200, _embedding([1, 0], [1]), InferenceFailed, "vectors of different widths"),
        (500, b"<html>", InferenceFailed, "answered 500: no reason given"),
        (404, b'{"detail": "Not Found"}', InferenceFailed, "answered 404: Not Found"),
        (302, b"", InferenceFailed, "answered 302"),
        (503, b'{"detail": "it has none"}', InferenceUnavailable, "cannot now: it has none"),
        (429, b'{"detail": "busy"}', InferenceUnavailable, "cannot now: busy"),
    ],
)
def test_a_bad_answer_is_told_from_none(
    make_remote: MakeRemote, status: int, body: bytes, error: type[Exception], said: str
) -> None:
    with _answering(status, body) as url, pytest.raises(error, match=said) as raised:
        make_remote(url).embed(["a", "b"])
    assert "secret" not in str(raised.value)


def test_nli_answers_are_checked_too(make_remote: MakeRemote) -> None:
    body = json.dumps({"model": "m", "results": [{"label": "neutral", "probabilities": {"neutral": 1}}]}).encode()
    with _answering(200, body) as url, pytest.raises(InferenceFailed, match="gave no answer of /nli"):
        make_remote(url).judge([Pair("a", "b")])


def test_a_slow_remote_is_given_up(make_remote: MakeRemote) -> None:
    with _answering(200, _embedding([1, 0]), delay=20) as url, pytest.raises(InferenceUnavailable, match="in time"):
        make_remote(url, ml_timeout=0.2).embed(["a"])


def test_a_bad_remote_is_502_to_clients(make_remote: MakeRemote, make_client: MakeClient, sqlite_url: str) -> None:
    with _answering(200, b"nonsense") as url:
        inference: Inference = make_remote(url)
        answer = make_client(sqlite_url, inference).post("/embed", json={"texts": ["a"]})
    assert answer.status_code == 502
    assert answer.json()["error"] == "inference_failed"
