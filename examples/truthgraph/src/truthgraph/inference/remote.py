"""Models in another instance of this service, asked through its /embed and /nli."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import httpx2
import numpy as np
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from truthgraph.errors import InferenceFailed, InferenceUnavailable
from truthgraph.inference.interface import Embeddings, Judgement, Judgements, Mode, Pair
from truthgraph.settings import Settings

log = structlog.get_logger()
T = TypeVar("T")
Shape = TypeVar("Shape", bound=BaseModel)

CONNECT = 3.0
"""Seconds for a connection: a service that is there takes it at once."""


class _EmbedAnswer(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)
    model: str
    vectors: list[list[float]]


class _Probabilities(BaseModel):
    entailment: float
    neutral: float
    contradiction: float


class _NliResult(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)
    probabilities: _Probabilities


class _NliAnswer(BaseModel):
    model: str
    results: list[_NliResult]


class RemoteInference:
    """The same questions, over HTTP, in batches of `max_batch`; the other instance must allow as many."""

    mode: Mode = "remote"
    reason = None

    def __init__(self, settings: Settings) -> None:
        assert settings.ml_url is not None
        self._batch = settings.max_batch
        self._where = f"{settings.ml_url.host}:{settings.ml_url.port}"  # the URL itself may hold a password
        self._client = httpx2.Client(
            base_url=str(settings.ml_url), timeout=httpx2.Timeout(settings.ml_timeout, connect=CONNECT)
        )

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """A vector for each text."""
        models: list[str] = []
        rows: list[list[float]] = []
        for batch in _batches(texts, self._batch):
            answer = self._ask("embed", {"texts": list(batch)}, _EmbedAnswer)
            self._expect(len(answer.vectors), len(batch))
            models.append(answer.model)
            rows += answer.vectors
        if len({len(row) for row in rows}) > 1:
            raise InferenceFailed(f"the inference service at {self._where} gave vectors of different widths")
        return Embeddings(self._same(models), [np.array(row, dtype=np.float32) for row in rows])

    def judge(self, pairs: Sequence[Pair]) -> Judgements:
        """A judgement for each pair."""
        models: list[str] = []
        rows: list[Judgement] = []
        for batch in _batches(pairs, self._batch):
            body = {"pairs": [{"premise": pair.premise, "hypothesis": pair.hypothesis} for pair in batch]}
            answer = self._ask("nli", body, _NliAnswer)
            self._expect(len(answer.results), len(batch))
            models.append(answer.model)
            rows += [Judgement(**result.probabilities.model_dump()) for result in answer.results]
        return Judgements(self._same(models), rows)

    def close(self) -> None:
        """Close the connections to the other instance."""
        self._client.close()

    def _ask(self, route: str, body: dict[str, Any], shape: type[Shape]) -> Shape:
        try:
            answer = self._client.post(route, json=body)
        except httpx2.TimeoutException as error:
            raise InferenceUnavailable(f"the inference service at {self._where} did not answer in time") from error
        except httpx2.TransportError as error:
            raise InferenceUnavailable(f"the inference service at {self._where} cannot be reached: {error}") from error
        if answer.status_code in {429, 503}:
            raise InferenceUnavailable(f"the inference service at {self._where} cannot now: {_detail(answer)}")
        if answer.status_code != 200:
            log.warning("remote inference failed", status=answer.status_code, detail=_detail(answer))
            raise InferenceFailed(
                f"the inference service at {self._where} answered {answer.status_code}: {_detail(answer)}"
            )
        try:
            return shape.model_validate_json(answer.content)
        except ValidationError as error:
            raise InferenceFailed(f"the inference service at {self._where} gave no answer of /{route}") from error

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


def _detail(answer: httpx2.Response) -> str:
    try:
        return str(answer.json()["detail"])[:300]
    except (ValueError, KeyError, TypeError):
        return "no reason given"
