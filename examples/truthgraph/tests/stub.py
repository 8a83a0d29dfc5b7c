"""Inference for tests alone: deterministic, instant, and of no use to anybody.

Texts are bags of hashed words; a premise entails a hypothesis with which it shares most words, and contradicts it if
one of the two has the word `not`.
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np
from truthgraph.inference.interface import Embeddings, Judgement, Judgements, Mode, Pair
from truthgraph.storage.types import Vector

WIDTH = 64
SYNONYMS = {"automobile": "car", "feline": "cat"}
"""So that two texts can be near by vector that share no word."""


class StubInference:
    """Counts what it was asked."""

    mode: Mode = "local"
    reason = None
    circuit = None

    def __init__(self, model: str = "stub", width: int = WIDTH) -> None:
        self.model = model
        self.width = width
        self.embedded: list[str] = []
        self.judged: list[Pair] = []

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Hashed words."""
        self.embedded += texts
        return Embeddings(self.model, [self._vector(text) for text in texts])

    def judge(self, pairs: Sequence[Pair]) -> Judgements:
        """Shared words."""
        self.judged += pairs
        return Judgements("stub: shared words", [self._judgement(pair) for pair in pairs])

    def close(self) -> None:
        """Nothing to let go of."""

    def _vector(self, text: str) -> Vector:
        vector = np.zeros(self.width, dtype=np.float32)
        for word in _words(text):
            vector[zlib.crc32(word.encode()) % self.width] += 1
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), dtype=np.float32)

    def _judgement(self, pair: Pair) -> Judgement:
        premise, hypothesis = set(_words(pair.premise)), set(_words(pair.hypothesis))
        if len(premise & hypothesis) * 2 < len(hypothesis):
            return Judgement(entailment=0.1, neutral=0.8, contradiction=0.1)
        if ("not" in premise) != ("not" in hypothesis):
            return Judgement(entailment=0.05, neutral=0.05, contradiction=0.9)
        return Judgement(entailment=0.9, neutral=0.05, contradiction=0.05)


def _words(text: str) -> list[str]:
    return [SYNONYMS.get(word, word) for word in re.findall(r"\w+", text.lower())]
