"""The bundled head: judges a pair of texts by their embeddings alone, where no NLI model is set.

It is a multinomial logistic regression over |u - v| and u * v, trained by scripts/train_head.py on pairs made from
templates. It is no NLI model, and its description, which every answer carries, says so.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from truthgraph.inference.interface import LABELS, Judgement
from truthgraph.storage.types import Vector


def features(premises: Sequence[Vector], hypotheses: Sequence[Vector]) -> NDArray[np.float64]:
    """What the head looks at: a row for each pair."""
    left = np.asarray(premises, dtype=np.float64)
    right = np.asarray(hypotheses, dtype=np.float64)
    return np.concatenate([np.abs(left - right), left * right], axis=1)


@dataclass(frozen=True)
class Head:
    """Weights, one row for each label, and what they are."""

    embedding_model: str
    description: str
    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]

    @classmethod
    def read(cls, content: dict[str, Any]) -> "Head":
        """From what scripts/train_head.py wrote."""
        if tuple(content["labels"]) != LABELS:
            raise ValueError(f"the head's labels are {content['labels']}")
        return cls(
            content["embedding_model"],
            content["description"],
            np.array(content["weights"], dtype=np.float64),
            np.array(content["intercepts"], dtype=np.float64),
        )

    def judge(self, premises: Sequence[Vector], hypotheses: Sequence[Vector]) -> list[Judgement]:
        """A judgement for each pair of vectors."""
        if not premises:
            return []
        scores = features(premises, hypotheses) @ self.weights.T + self.intercepts
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return [Judgement(*row) for row in (powers / powers.sum(axis=1, keepdims=True)).tolist()]


@cache
def bundled() -> Head:
    """The head of this package."""
    return Head.read(json.loads((files("truthgraph.inference") / "head.json").read_text("utf-8")))
