"""Remote inference and a service that does not do as it should: attempts, pauses, deadlines, the circuit."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import servers
from conftest import MakeClient
from scripted import Step, drops, drops_in_the_middle, says, says_nothing, scripted, trickles
from truthgraph.errors import InferenceFailed, InferenceUnavailable
from truthgraph.inference import exchange
from truthgraph.inference.exchange import retry_after
from truthgraph.inference.interface import Pair
from truthgraph.inference.remote import RemoteInference
from truthgraph.settings import Settings

GOOD = json.dumps({"model": "m", "vectors": [[1.0, 0.0]]}).encode()


@contextmanager
def remote(url: str, **settings: Any) -> Iterator[RemoteInference]:
    """Remote inference that is closed at the end."""
    made = RemoteInference(Settings.model_validate({"ml_url": url, **settings}))
    try:
        yield made
    finally:
        made.close()


def vectors(inference: RemoteInference) -> Sequence[Sequence[float]]:
    """What it makes of one text."""
    return [vector.tolist() for vector in inference.embed(["a"]).vectors]


def fails(inference: RemoteInference, said: str) -> None:
    """It gives none, and says this."""
    with pytest.raises((InferenceFailed, InferenceUnavailable), match=said):
        inference.embed(["a"])


@pytest.mark.parametrize(
    "bad", [drops, drops_in_the_middle, says(503), says(429), says(503, retry_after="0"), says(429, retry_after="soon")]
)
def test_what_may_pass_is_asked_again(bad: Step) -> None:
    with scripted(bad, bad, says(200, GOOD)) as server, remote(server.url) as inference:
        assert vectors(inference) == [[1.0, 0.0]]
        assert inference.circuit == "closed"
    first, second, third = server.asked
    assert 0.04 < second - first < 1
    assert 0.09 < third - second < 1


@pytest.mark.parametrize(("retries", "wanted"), [(0, 1), (1, 2), (3, 4)])
def test_there_is_a_limit_to_that(retries: int, wanted: int) -> None:
    with scripted(drops) as server, remote(server.url, ml_retries=retries) as inference:
        with pytest.raises(InferenceUnavailable, match="cannot be reached"):
            inference.embed(["a"])
        assert len(server.asked) == wanted


@pytest.mark.parametrize("status", [400, 404, 422, 500, 502, 504])
def test_other_errors_are_not_asked_again(status: int) -> None:
    with scripted(says(status, b'{"detail": "no"}')) as server, remote(server.url) as inference:
        with pytest.raises(InferenceFailed, match=f"answered {status}: no"):
            inference.embed(["a"])
        assert len(server.asked) == 1


def test_a_pause_that_the_service_asks_for_is_kept() -> None:
    with scripted(says(429, retry_after="1"), says(200, GOOD)) as server, remote(server.url) as inference:
        assert vectors(inference) == [[1.0, 0.0]]
    assert 1 <= server.asked[1] - server.asked[0] < 2


def test_a_longer_one_is_passed_on_to_the_client(make_client: MakeClient, sqlite_url: str) -> None:
    with scripted(says(503, b'{"detail": "loading"}', retry_after="60")) as server, remote(server.url) as inference:
        answer = make_client(sqlite_url, inference).post("/embed", json={"texts": ["a"]})
        assert len(server.asked) == 1
    assert answer.status_code == 503
    assert answer.json()["detail"].endswith("cannot now: loading")
    assert answer.headers["retry-after"] == "60"


def test_no_pause_goes_beyond_the_deadline() -> None:
    start = time.monotonic()
    with scripted(says(429, retry_after="2")) as server, remote(server.url, ml_timeout=1) as inference:
        with pytest.raises(InferenceUnavailable, match="cannot now"):
            inference.embed(["a"])
        assert len(server.asked) == 1
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    "slow",
    [
        says_nothing,
        trickles(b"HTTP/1.1 200 OK\r\n", b"x-more: 1\r\n"),
        trickles(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b" "),
    ],
    ids=["silent", "headers", "body"],
)
def test_the_deadline_holds_whatever_comes(slow: Step) -> None:
    with scripted(slow) as server, remote(server.url, ml_timeout=0.5) as inference:
        start = time.monotonic()
        with pytest.raises(InferenceUnavailable, match=r"did not answer in time: it has 0\.5 s"):
            inference.embed(["a"])
        assert 0.4 < time.monotonic() - start < 1.5
        assert len(server.asked) == 1


def test_the_deadline_is_for_all_attempts_and_batches_together() -> None:
    two = json.dumps({"model": "m", "vectors": [[1.0, 0.0]]}).encode()
    with scripted(says(503), says(200, two), says_nothing) as server:
        with remote(server.url, ml_timeout=0.7, max_batch=1) as inference:
            start = time.monotonic()
            with pytest.raises(InferenceUnavailable, match="in time"):
                inference.embed(["a", "b"])
            assert 0.6 < time.monotonic() - start < 1.7
        assert len(server.asked) == 3


def test_an_answer_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "LARGEST", 1000)
    with scripted(says(200, b" " * 1001)) as server, remote(server.url) as inference:
        fails(inference, "gave no answer of /embed: more than 1,000 bytes")


@pytest.mark.parametrize(
    "vector", ["[NaN, 0]", "[Infinity, 0]", "[1e300, 2]", "[1e39]", "[7, 0]", "[]", "[true, null]"]
)
def test_what_is_no_unit_vector_is_no_answer(vector: str) -> None:
    answer = f'{{"model": "m", "vectors": [{vector}]}}'.encode()
    with scripted(says(200, answer)) as server, remote(server.url) as inference:
        fails(inference, "gave no answer of /embed")


@pytest.mark.parametrize(
    "numbers", ["NaN, 0, 0", "7, 0, 0", "0.5, 0.5, 0.5", "0, 0, 0", "-0.5, 1, 0.5", "Infinity, 0, 0"]
)
def test_what_are_no_probabilities_is_no_answer(numbers: str, make_client: MakeClient, sqlite_url: str) -> None:
    names = ("entailment", "neutral", "contradiction")
    said = ", ".join(f'"{name}": {number}' for name, number in zip(names, numbers.split(", "), strict=True))
    answer = f'{{"model": "m", "results": [{{"probabilities": {{{said}}}}}]}}'.encode()
    with scripted(says(200, answer)) as server, remote(server.url) as inference:
        with pytest.raises(InferenceFailed, match="gave no answer of /nli"):
            inference.judge([Pair("a", "b")])
        client = make_client(sqlite_url, inference)
        assert client.post("/nli", json={"pairs": [{"premise": "a", "hypothesis": "b"}]}).status_code == 502


def test_an_answer_that_cannot_be_unpacked() -> None:
    with scripted(says(200, b"no gzip", content_encoding="gzip")) as server, remote(server.url) as inference:
        fails(inference, "gave no answer of /embed")


@pytest.mark.parametrize("bad", [drops, says(500), says(503), says(200, b"nonsense")])
def test_failures_open_the_circuit_and_nothing_is_asked_then(
    bad: Step, make_client: MakeClient, sqlite_url: str
) -> None:
    settings = {"ml_retries": 0, "ml_failures": 3, "ml_pause": 60}
    with scripted(bad) as server, remote(server.url, **settings) as inference:
        client = make_client(sqlite_url, inference)
        answers = [client.post("/embed", json={"texts": ["a"]}) for _ in range(6)]
        assert len(server.asked) == 3
        health = client.get("/health")
    assert {answer.status_code for answer in answers[:3]} <= {502, 503}
    assert [answer.status_code for answer in answers[3:]] == [503] * 3
    assert "; it failed 3 times in a row; it is asked again in 60 s" in answers[3].json()["detail"]
    assert answers[3].headers["retry-after"] == "60"
    assert health.status_code == 200
    assert health.json()["inference"]["circuit"] == "open"
    assert health.json()["inference"]["reason"].endswith("; it failed 3 times in a row")


def test_retries_stop_when_the_circuit_opens() -> None:
    with scripted(drops) as server, remote(server.url, ml_retries=10, ml_failures=2) as inference:
        with pytest.raises(InferenceUnavailable, match="it failed 2 times in a row"):
            inference.embed(["a"])
        assert len(server.asked) == 2


@pytest.mark.parametrize("alive", [says(429), says(422), says(404)])
def test_a_service_that_answers_for_itself_is_not_left_alone(alive: Step) -> None:
    settings = {"ml_retries": 0, "ml_failures": 2}
    with scripted(*[alive] * 5, says(200, GOOD)) as server, remote(server.url, **settings) as inference:
        for _ in range(5):
            fails(inference, "cannot now|answered 4")
        assert vectors(inference) == [[1.0, 0.0]]


def test_it_closes_when_the_service_is_back() -> None:
    settings = {"ml_retries": 0, "ml_failures": 2, "ml_pause": 0.3}
    with scripted(drops, drops, says(200, GOOD)) as server, remote(server.url, **settings) as inference:
        for _ in range(2):
            fails(inference, "cannot be reached")
        assert inference.reason is not None
        time.sleep(0.3)
        assert inference.circuit == "half-open"
        assert vectors(inference) == [[1.0, 0.0]]
        assert (inference.circuit, inference.reason) == ("closed", None)  # type: ignore[comparison-overlap]


def test_nobody_there_is_known_at_once() -> None:
    with remote(f"http://127.0.0.1:{servers.free_port()}") as inference:
        start = time.monotonic()
        with pytest.raises(InferenceUnavailable, match="cannot be reached"):
            inference.embed(["a"])
        assert time.monotonic() - start < 2


def test_closing_what_was_never_asked() -> None:
    with remote("http://127.0.0.1:1") as inference:
        pass
    inference.close()


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after("7") == 7
    date = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True))
    assert date is not None
    assert 27 < date <= 30
    assert retry_after(format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)) == 0
    nonsense = (
        None,
        "",
        "soon",
        "-1",
        "1.5",
        "²",
        "Wed, 21 Oct 2015 07:28:00",
        "Mon, 01 Jan 2020 00:00:00 +99999999999999",
    )
    assert [retry_after(value) for value in nonsense] == [None] * len(nonsense)
