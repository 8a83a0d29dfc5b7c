"""No inference, and why."""

from collections.abc import Sequence

from truthgraph.errors import InferenceUnavailable
from truthgraph.inference.interface import Embeddings, Judgements, Mode, Pair


class NoInference:
    """Answers every question with the reason that it cannot."""

    mode: Mode = "none"
    circuit = None

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def embed(self, texts: Sequence[str]) -> Embeddings:  # noqa: ARG002  # the interface
        """Raise."""
        raise InferenceUnavailable(self.reason)

    def judge(self, pairs: Sequence[Pair]) -> Judgements:  # noqa: ARG002  # the interface
        """Raise."""
        raise InferenceUnavailable(self.reason)

    def close(self) -> None:
        """Nothing to let go of."""
