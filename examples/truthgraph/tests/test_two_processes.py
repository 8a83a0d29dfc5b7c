"""The service as two processes, a core and an inference service, and what becomes of requests when that is in trouble.

Both are real: uvicorn, sockets, signals. Whatever happens, each request has an answer, soon, and it says why.
"""

import asyncio
import itertools
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import servers
from scripted import drops, drops_in_the_middle, says, scripted, trickles

TIMEOUT = 3.0
"""Seconds of a question to the inference service. A verification asks up to three."""
SOON = 3 * TIMEOUT + 9
"""Seconds for the slowest answer, on a machine that does other things too."""
PAUSE = 0.5
"""Seconds for which it is left alone."""
SETTINGS = {
    "TRUTHGRAPH_ML_TIMEOUT": str(TIMEOUT),
    "TRUTHGRAPH_ML_RETRIES": "2",
    "TRUTHGRAPH_ML_FAILURES": "4",
    "TRUTHGRAPH_ML_PAUSE": str(PAUSE),
    "TRUTHGRAPH_MAX_CONCURRENCY": "39",
}
ASKED: tuple[tuple[str, Any], ...] = (
    ("/embed", {"texts": ["The sky is blue.", "It rains."]}),
    ("/nli", {"pairs": [{"premise": "The sky is blue.", "hypothesis": "The sky is not blue."}]}),
    ("/search", {"query": "What is blue?"}),
    ("/evidence", {"text": "The sky is blue."}),
    ("/claims/1/verify", None),
)


@dataclass
class Two:
    """Both processes."""

    core: servers.Service
    inference: servers.Service

    def health(self) -> dict[str, Any]:
        """Where the core's inference comes from."""
        answer = httpx2.get(f"{self.core.url}/health")
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()["inference"]
        return found

    def embed(self) -> httpx2.Response:
        """One question."""
        return httpx2.post(f"{self.core.url}/embed", json={"texts": ["a"]}, timeout=SOON)

    def slow_down(self, seconds: float) -> None:
        """The inference service takes so long for each question."""
        (self.inference.folder / "seconds").write_text(str(seconds))

    def works_again(self) -> None:
        """The circuit closes by itself, after its pause."""
        until = time.monotonic() + 15
        while (answer := self.embed()).status_code != 200:
            assert answer.status_code == 503, answer.text
            assert time.monotonic() < until, answer.text
            time.sleep(0.1)
        assert self.health() == {"mode": "remote", "reason": None, "circuit": "closed"}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """A core with one claim, and an inference service with the tests' inference."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("core", "inference"):
        (folder / name).mkdir()
    with servers.running("stub_app:app", folder / "inference", {}) as inference:
        settings = {**SETTINGS, "TRUTHGRAPH_ML_URL": inference.url}
        with servers.running("truthgraph.main:app", folder / "core", settings) as core:
            claim = httpx2.post(f"{core.url}/claims", json={"text": "The sky is blue."}, timeout=SOON).json()
            assert claim["id"] == 1
            yield Two(core, inference)


@pytest.fixture
def pair(both: Two) -> Iterator[Two]:
    """The same, in order, whatever another test did."""
    yield both
    (both.inference.folder / "seconds").unlink(missing_ok=True)
    both.inference.signal(signal.SIGCONT)
    if both.inference.process is None or both.inference.process.poll() is not None:
        both.inference.start()
    both.works_again()


@dataclass(frozen=True)
class Load:
    """What became of requests that were sent at once."""

    answers: list[tuple[str, httpx2.Response]]
    seconds: list[float]

    def statuses(self, path: str | None = None) -> Counter[int]:
        """How many of each."""
        return Counter(answer.status_code for asked, answer in self.answers if path in {None, asked})

    def check(self, sent: int, *allowed: int) -> None:
        """Every request has its answer, in time; errors are JSON and say why; 503 and 429 say when to ask again."""
        assert len(self.answers) == sent
        assert max(self.seconds) < SOON
        assert set(self.statuses()) <= set(allowed), self.statuses()
        for path, answer in self.answers:
            content = answer.json()
            if answer.status_code >= 400:
                assert content["error"], path
                assert len(content["detail"]) > 20, path
            if answer.status_code in {429, 503}:
                assert 1 <= int(answer.headers["retry-after"]) <= 60


async def _send(url: str, count: int) -> Load:
    limits = httpx2.Limits(max_connections=count)
    answers: list[tuple[str, httpx2.Response]] = []
    seconds: list[float] = []

    async def one(path: str, body: object) -> None:
        start = time.monotonic()
        answer = await client.post(path, json=body) if body is not None else await client.post(path)
        seconds.append(time.monotonic() - start)
        answers.append((path, answer))

    # Were a request to hang, this timeout would fail the test: there is no answer for it.
    async with httpx2.AsyncClient(base_url=url, timeout=SOON + 5, limits=limits) as client:
        await asyncio.gather(*(one(*asked) for asked in itertools.islice(itertools.cycle(ASKED), count)))
    return Load(answers, seconds)


def send(pair: Two, count: int = 50) -> Load:
    """So many requests at once, of every kind that needs inference."""
    return asyncio.run(_send(pair.core.url, count))


async def _meanwhile(pair: Two, action: Any, seconds: float, count: int) -> Load:
    load = asyncio.create_task(_send(pair.core.url, count))
    await asyncio.sleep(seconds)
    await asyncio.to_thread(action)
    return await load


def test_all_is_well(pair: Two) -> None:
    load = send(pair, 50)
    load.check(50, 200, 201, 429)
    assert load.statuses()[429] <= 50 - 39
    assert pair.health() == {"mode": "remote", "reason": None, "circuit": "closed"}


def test_stopped_and_started_again(pair: Two) -> None:
    pair.inference.stop()
    load = send(pair)
    load.check(50, 200, 201, 429, 503)
    for path in ("/embed", "/nli", "/claims/1/verify"):
        assert set(load.statuses(path)) <= {429, 503}
    for path, answer in load.answers:
        if path == "/search" and answer.status_code == 200:
            assert answer.json()["mode"] == "words"
            assert "cannot be reached" in answer.json()["reason"]
    health = pair.health()
    assert health["circuit"] in {"open", "half-open"}
    assert "cannot be reached" in health["reason"]
    start = time.monotonic()
    assert pair.embed().status_code == 503
    assert time.monotonic() - start < 2
    pair.inference.start()
    pair.works_again()
    send(pair, 20).check(20, 200, 201)
    # What was stored without a vector has one after the next search.
    found = httpx2.post(f"{pair.core.url}/search", json={"query": "blue", "limit": 100}).json()
    assert found["mode"] == "hybrid"
    assert all(hit["similarity"] is not None for hit in found["results"])


def test_frozen(pair: Two) -> None:
    """It takes connections, by its kernel, and does nothing."""
    pair.inference.signal(signal.SIGSTOP)
    load = send(pair)
    load.check(50, 200, 201, 429, 503)
    assert load.statuses("/embed")[200] == 0
    assert "in time" in pair.health()["reason"]
    start = time.monotonic()
    answer = pair.embed()
    assert answer.status_code == 503
    assert time.monotonic() - start < TIMEOUT + 2
    pair.inference.signal(signal.SIGCONT)
    pair.works_again()


def test_slower_than_the_timeout(pair: Two) -> None:
    pair.slow_down(TIMEOUT * 2)
    load = send(pair, 35)
    load.check(35, 200, 201, 503)
    assert load.statuses("/embed")[200] == 0
    assert "in time" in pair.health()["reason"]
    pair.slow_down(0)
    pair.works_again()


def test_slow_and_still_in_time(pair: Two) -> None:
    pair.slow_down(0.3)
    send(pair, 10).check(10, 200, 201)


def test_killed_in_the_middle_of_requests(pair: Two) -> None:
    pair.slow_down(1)
    load = asyncio.run(_meanwhile(pair, pair.inference.kill, 0.5, 35))
    load.check(35, 200, 201, 503)
    assert load.statuses("/embed")[200] == 0
    pair.slow_down(0)
    pair.inference.start()
    pair.works_again()


def test_restarted_in_the_middle_of_requests(pair: Two) -> None:
    def restart() -> None:
        pair.inference.kill()
        pair.inference.start()

    load = asyncio.run(_meanwhile(pair, restart, 0.05, 35))
    load.check(35, 200, 201, 503)
    pair.works_again()


def test_something_else_at_its_address(pair: Two) -> None:
    good = says(200, b'{"model": "m", "vectors": [[1.0]]}')
    pair.inference.stop()
    with scripted(good, port=pair.inference.port) as server:
        for answer, answered in (
            (says(200, b"nonsense"), 502),
            (says(500, b"<html>"), 502),
            (says(503, b'{"detail": "it is being repaired, says this test"}'), 503),
            (drops, 503),
            (drops_in_the_middle, 503),
            (trickles(b"HTTP/1.1 200 OK\r\n", b"x-more: 1\r\n"), 503),
        ):
            server.steps = [good]
            pair.works_again()
            server.steps = [answer]
            assert pair.embed().status_code == answered
            load = send(pair, 35)
            load.check(35, 200, 201, 502, 503)
            assert load.statuses("/embed")[200] == 0
            assert pair.health()["circuit"] in {"open", "half-open"}
        server.steps = [good]
        pair.works_again()
        server.steps = [says(429, b'{"detail": "it has too much to do, says this test"}')]
        load = send(pair, 35)
        load.check(35, 200, 201, 503)
        assert load.statuses("/embed") == {503: 7}
        assert pair.health()["circuit"] == "closed"


def _answers(url: str) -> list[Any]:
    """What a new service answers to the same requests."""
    evidence = [
        ("The Moon is made of rock, with a small core of iron.", "an encyclopedia"),
        ("Garlic does not cure the flu.", "a medical journal"),
        ("Ottawa is the capital of Canada.", "an atlas"),
        *((f"Train {number} is late by {number * 7} minutes.", "a timetable") for number in range(20)),
    ]
    claims = [
        "The Moon is made of cheese.",
        "Garlic cures the flu.",
        "The capital of Canada is Ottawa.",
        "Otters swim.",
    ]
    found: list[Any] = []
    with httpx2.Client(base_url=url, timeout=120) as client:

        def ask(path: str, body: object = None) -> None:
            answer = client.post(path, json=body) if body is not None else client.post(path)
            found.append((path, answer.status_code, _without_times(answer.json())))

        for text, source in evidence:
            ask("/evidence", {"text": text, "source": source})
        for number, text in enumerate(claims, start=1):
            ask("/claims", {"text": text})
            ask(f"/claims/{number}/verify")
            ask("/search", {"query": text, "limit": 20})
        ask("/embed", {"texts": [text for text, _ in evidence]})
        ask("/nli", {"pairs": [{"premise": text, "hypothesis": claims[0]} for text, _ in evidence]})
        ask("/embed", {"texts": []})
        ask("/claims/99/verify")
    return found


def _without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _without_times(value) for key, value in content.items() if key != "created_at"}
    if isinstance(content, list):
        return [_without_times(value) for value in content]
    return content


@pytest.mark.parametrize(
    "application", ["stub_app:app", pytest.param("truthgraph.main:app", marks=pytest.mark.ml)], ids=["stub", "models"]
)
def test_the_answers_are_those_of_the_whole_service(application: str, tmp_path: Path) -> None:
    """To the last bit of every number: JSON has as many digits as it takes to get the same one back."""
    (tmp_path / "whole").mkdir()
    settings = {"TRUTHGRAPH_ML_TIMEOUT": "120", "TRUTHGRAPH_DEVICE": "cpu"}
    with servers.service(application, tmp_path / "whole", settings) as url:
        whole = _answers(url)
    (tmp_path / "split").mkdir()
    for name in ("core", "inference"):
        (tmp_path / "split" / name).mkdir()
    with servers.service(application, tmp_path / "split/inference", settings) as inference:
        remote = {**settings, "TRUTHGRAPH_ML_URL": inference}
        with servers.service("truthgraph.main:app", tmp_path / "split/core", remote) as core:
            parts = _answers(core)
    assert parts == whole
    assert {status for _, status, _ in whole} == {200, 201, 404, 422}
    assert any(answer.get("label") == "supported" for path, _, answer in whole if path.endswith("/verify"))
