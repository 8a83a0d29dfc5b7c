"""Hybrid search: a ranking by words and one by vectors, fused."""

from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import undefer

from truthgraph.errors import InferenceFailed, InferenceUnavailable
from truthgraph.inference.interface import Embeddings, Inference
from truthgraph.retrieval.fusion import reciprocal_rank
from truthgraph.retrieval.vectors import fill
from truthgraph.retrieval.words import words
from truthgraph.storage import ranking
from truthgraph.storage.database import Database
from truthgraph.storage.tables import StoredText

DEPTH = 50
"""The least length of each ranking before they are fused: a text can be good in both and first in neither."""


@dataclass(frozen=True)
class Hit:
    """A text that was found, and why."""

    row: StoredText
    score: float
    word_rank: int | None
    vector_rank: int | None
    similarity: float | None
    """Cosine to the query; None where the text has no vector of the query's model."""


@dataclass(frozen=True)
class Found:
    """What a search found, the best first."""

    hits: list[Hit]
    model: str | None
    """The embedding model; None where only words were compared."""
    reason: str | None
    """Why only words were compared."""


def search(
    database: Database, inference: Inference, table: type[StoredText], query: str, limit: int, backfill: int
) -> Found:
    """The stored texts nearest to a query; by words alone, and with the reason, where there is no inference."""
    try:
        embeddings = inference.embed([query])
        fill(database, inference, table, embeddings.model, backfill)
    except (InferenceUnavailable, InferenceFailed) as error:
        return Found(_hits(database, table, query, limit, None), None, str(error))
    return Found(_hits(database, table, query, limit, embeddings), embeddings.model, None)


def search_with_vectors(
    database: Database, inference: Inference, table: type[StoredText], query: str, limit: int, backfill: int
) -> tuple[list[Hit], str]:
    """The same with the embedding model's name, or the inference's error where there is none."""
    embeddings = inference.embed([query])
    fill(database, inference, table, embeddings.model, backfill)
    return _hits(database, table, query, limit, embeddings), embeddings.model


def _hits(
    database: Database, table: type[StoredText], query: str, limit: int, embeddings: Embeddings | None
) -> list[Hit]:
    depth = max(DEPTH, limit)
    with database.reading() as session:
        by_words = ranking.by_words(session, table, words(query), depth)
        by_vector = (
            ranking.by_vector(session, table, embeddings.model, embeddings.vectors[0], depth) if embeddings else []
        )
        best = reciprocal_rank([by_words, by_vector])[:limit]
        wanted = select(table).where(table.id.in_([number for number, _ in best])).options(undefer(table.embedding))
        rows = {row.id: row for row in session.scalars(wanted)}
    word_ranks = {number: rank for rank, number in enumerate(by_words, start=1)}
    vector_ranks = {number: rank for rank, number in enumerate(by_vector, start=1)}
    return [
        Hit(
            rows[number],
            score,
            word_ranks.get(number),
            vector_ranks.get(number),
            _similarity(rows[number], embeddings),
        )
        for number, score in best
        if number in rows
    ]


def _similarity(row: StoredText, embeddings: Embeddings | None) -> float | None:
    if embeddings is None or row.embedding is None or row.embedding_model != embeddings.model:
        return None
    if row.embedding.shape != embeddings.vectors[0].shape:
        return None
    return float(np.dot(row.embedding, embeddings.vectors[0]))
