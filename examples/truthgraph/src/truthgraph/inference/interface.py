"""What the service asks of models, wherever they run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from truthgraph.inference.circuit import CircuitState
from truthgraph.storage.types import Vector

Mode = Literal["local", "remote", "none"]
Label = Literal["entailment", "neutral", "contradiction"]
LABELS: tuple[Label, Label, Label] = ("entailment", "neutral", "contradiction")


@dataclass(frozen=True)
class Embeddings:
    """A unit vector for each text, and the model that made them."""

    model: str
    vectors: list[Vector]


@dataclass(frozen=True)
class Pair:
    """Does the premise say that the hypothesis is true?"""

    premise: str
    hypothesis: str


@dataclass(frozen=True)
class Judgement:
    """Probabilities of the three answers to that."""

    entailment: float
    neutral: float
    contradiction: float

    @property
    def label(self) -> Label:
        """The likeliest answer; the first of LABELS where two are equal."""
        return max(LABELS, key=lambda label: float(getattr(self, label)))


@dataclass(frozen=True)
class Judgements:
    """A judgement for each pair, and what made them, in words."""

    model: str
    rows: list[Judgement]


class Inference(Protocol):
    """Embeds texts and judges pairs of them; raises InferenceUnavailable or InferenceFailed."""

    @property
    def mode(self) -> Mode:
        """Where the models run."""

    @property
    def reason(self) -> str | None:
        """Why there is no inference now, where there is none."""

    @property
    def circuit(self) -> CircuitState | None:
        """Whether questions go through to another instance, where one is asked."""

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """A vector for each text."""

    def judge(self, pairs: Sequence[Pair]) -> Judgements:
        """A judgement for each pair."""

    def close(self) -> None:
        """Let go of connections."""
