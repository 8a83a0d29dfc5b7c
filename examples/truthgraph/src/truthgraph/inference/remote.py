"""Models in another instance of this service, asked through its /embed and /nli.

A question can be asked again, since asking changes nothing there. It is, a few times, with growing pauses of random
length, where there was no connection or the service says that it cannot now; not where the time ran out or the answer
was bad, since the same would happen again and load a service that is in trouble. `circuit` says when to stop asking.
"""

import json
import random
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Self, TypeVar

import numpy as np
import structlog
from pydantic import BaseModel, Field, ValidationError, model_validator

from truthgraph.errors import InferenceFailed, InferenceUnavailable
from truthgraph.inference.circuit import Circuit, CircuitState
from truthgraph.inference.exchange import Answer, Exchange, GarbledError, LateError, UnreachableError
from truthgraph.inference.interface import Embeddings, Judgement, Judgements, Mode, Pair
from truthgraph.settings import Settings

log = structlog.get_logger()
T = TypeVar("T")
Shape = TypeVar("Shape", bound=BaseModel)

FIRST_PAUSE = 0.1
"""Seconds before the second attempt, at most; each further pause is twice as long."""
LONGEST_PAUSE = 2.0
"""Seconds that a client is kept waiting before another attempt, also where the service asks for more."""


ROUNDED = 0.01
"""How far numbers of small models may be from what they should add up to."""
_Coordinate = Annotated[float, Field(ge=-1 - ROUNDED, le=1 + ROUNDED, allow_inf_nan=False)]  # of a unit vector
_Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _EmbedAnswer(BaseModel):
    model: str
    vectors: list[Annotated[list[_Coordinate], Field(min_length=1)]]


class _Probabilities(BaseModel):
    entailment: _Probability
    neutral: _Probability
    contradiction: _Probability

    @model_validator(mode="after")
    def _are_whole(self) -> Self:
        if abs(self.entailment + self.neutral + self.contradiction - 1) > ROUNDED:
            raise ValueError("they do not add up to one")
        return self


class _NliResult(BaseModel):
    probabilities: _Probabilities


class _NliAnswer(BaseModel):
    model: str
    results: list[_NliResult]


class _AgainError(InferenceUnavailable):
    """Another attempt may succeed."""


class _BusyError(_AgainError):
    """The service works, and has too much to do."""


class _RefusedError(InferenceFailed):
    """The service works, and does not take the question."""


class RemoteInference:
    """The same questions, over HTTP, in batches of `max_batch`; the other instance must allow as many.

    Each question has its answer, or an error, within `ml_timeout` seconds.
    """

    mode: Mode = "remote"

    def __init__(self, settings: Settings) -> None:
        assert settings.ml_url is not None
        self._batch = settings.max_batch
        self._timeout = settings.ml_timeout
        self._retries = settings.ml_retries
        self._where = f"{settings.ml_url.host}:{settings.ml_url.port}"  # the URL itself may hold a password
        self._exchange = Exchange(str(settings.ml_url))
        self._circuit = Circuit(settings.ml_failures, settings.ml_pause)

    @property
    def reason(self) -> str | None:
        """The failure that opened the circuit; None while questions go through."""
        return self._circuit.reason

    @property
    def circuit(self) -> CircuitState | None:
        """Whether questions go through."""
        return self._circuit.state

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """A vector for each text."""
        until = time.monotonic() + self._timeout
        models: list[str] = []
        rows: list[list[float]] = []
        for batch in _batches(texts, self._batch):
            answer = self._ask("embed", {"texts": list(batch)}, _EmbedAnswer, until)
            self._expect(len(answer.vectors), len(batch))
            models.append(answer.model)
            rows += answer.vectors
        if len({len(row) for row in rows}) > 1:
            raise InferenceFailed(f"the inference service at {self._where} gave vectors of different widths")
        return Embeddings(self._same(models), [np.array(row, dtype=np.float32) for row in rows])

    def judge(self, pairs: Sequence[Pair]) -> Judgements:
        """A judgement for each pair."""
        until = time.monotonic() + self._timeout
        models: list[str] = []
        rows: list[Judgement] = []
        for batch in _batches(pairs, self._batch):
            body = {"pairs": [{"premise": pair.premise, "hypothesis": pair.hypothesis} for pair in batch]}
            answer = self._ask("nli", body, _NliAnswer, until)
            self._expect(len(answer.results), len(batch))
            models.append(answer.model)
            rows += [Judgement(**result.probabilities.model_dump()) for result in answer.results]
        return Judgements(self._same(models), rows)

    def close(self) -> None:
        """Close the connections to the other instance."""
        self._exchange.close()

    def _ask(self, route: str, body: dict[str, Any], shape: type[Shape], until: float) -> Shape:
        """Attempts, until one succeeds or there is no sense or time for another."""
        attempts = 0
        while True:
            number = self._circuit.enter()
            try:
                answer = self._attempt(route, body, shape, until)
            except _RefusedError:
                self._circuit.leave(number)
                raise
            except _AgainError as error:
                self._circuit.leave(number, None if isinstance(error, _BusyError) else str(error))
                failure = error
            except BaseException as error:
                self._circuit.leave(number, str(error))
                raise
            else:
                self._circuit.leave(number)
                return answer
            attempts += 1
            pause = max(_backoff(attempts), failure.retry_after or 0)
            if attempts > self._retries or pause > LONGEST_PAUSE or time.monotonic() + pause >= until:
                raise failure
            log.info("asking the inference service again", route=route, attempt=attempts + 1, reason=str(failure))
            time.sleep(pause)

    def _attempt(self, route: str, body: dict[str, Any], shape: type[Shape], until: float) -> Shape:
        there = f"the inference service at {self._where}"
        try:
            answer = self._exchange.post(route, body, max(0.0, until - time.monotonic()))
        except LateError as error:
            raise InferenceUnavailable(f"{there} did not answer in time: it has {self._timeout:g} s") from error
        except UnreachableError as error:
            raise _AgainError(f"{there} cannot be reached: {error}") from error
        except GarbledError as error:
            raise InferenceFailed(f"{there} gave no answer of /{route}: {error}") from error
        detail = _detail(answer)
        if answer.status == 429:
            raise _BusyError(f"{there} cannot now: {detail}", answer.retry_after)
        if answer.status == 503:
            raise _AgainError(f"{there} cannot now: {detail}", answer.retry_after)
        if answer.status != 200:
            log.warning("remote inference failed", status=answer.status, detail=detail)
            error_type = InferenceFailed if answer.status >= 500 else _RefusedError
            raise error_type(f"{there} answered {answer.status}: {detail}")
        try:
            return shape.model_validate_json(answer.content)
        except ValidationError as error:
            raise InferenceFailed(f"{there} gave no answer of /{route}") from error

    def _expect(self, got: int, wanted: int) -> None:
        if got != wanted:
            raise InferenceFailed(f"the inference service at {self._where} answered {got} of {wanted} questions")

    def _same(self, models: list[str]) -> str:
        """The one model of all batches: a service that is replaced in between would mix two."""
        if len(set(models)) > 1:
            raise InferenceFailed(f"the inference service at {self._where} changed its model between two batches")
        return models[0] if models else ""


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _backoff(attempts: int) -> float:
    """Of random length, so that many who failed at once do not come back at once."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (attempts - 1))
    return random.uniform(longest / 2, longest)


def _detail(answer: Answer) -> str:
    try:
        return str(json.loads(answer.content)["detail"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "no reason given"
