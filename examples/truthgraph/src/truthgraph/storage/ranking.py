"""Rankings of stored texts, each by one measure: words or vectors."""

from collections.abc import Sequence

import numpy as np
from sqlalchemy import func, literal_column, select, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Session

from truthgraph.storage.tables import StoredText
from truthgraph.storage.types import Vector


def by_words(session: Session, table: type[StoredText], words: Sequence[str], limit: int) -> list[int]:
    """Numbers of the texts that have any of these words, the best first. Words are letters and digits alone."""
    if not words:
        return []
    name = table.__tablename__
    if session.get_bind().dialect.name == "postgresql":
        # websearch_to_tsquery takes any text without an error; `or` is its only word with a meaning, and a stop word.
        query = func.websearch_to_tsquery("english", " or ".join(word for word in words if word.lower() != "or"))
        column = literal_column(f"{name}.words", TSVECTOR)
        ranked = (
            select(table.id)
            .where(column.bool_op("@@")(query))
            .order_by(func.ts_rank_cd(column, query).desc(), table.id)
            .limit(limit)
        )
        return list(session.scalars(ranked))
    # In double quotes a word is a string to FTS5, whatever it is: AND, NOT, NEAR.
    match = " OR ".join(f'"{word}"' for word in words)
    rows = session.execute(
        text(f"SELECT rowid FROM {name}_fts WHERE {name}_fts MATCH :match ORDER BY rank, rowid LIMIT :limit"),
        {"match": match, "limit": limit},
    )
    return [row[0] for row in rows]


def by_vector(session: Session, table: type[StoredText], model: str, vector: Vector, limit: int) -> list[int]:
    """Numbers of the texts nearest to a unit vector of this model. Both databases compare every row: it is exact."""
    if session.get_bind().dialect.name == "postgresql":
        distance = table.embedding.cosine_distance(vector)
        query = (
            select(table.id)
            .where(table.embedding_model == model, func.vector_dims(table.embedding) == len(vector))
            .order_by(distance, table.id)
            .limit(limit)
        )
        return list(session.scalars(query))
    rows = session.execute(select(table.id, table.embedding).where(table.embedding_model == model).order_by(table.id))
    found = [(number, row) for number, row in rows if row is not None and len(row) == len(vector)]
    if not found:
        return []
    similarities = np.stack([row for _, row in found]) @ vector
    return [found[at][0] for at in np.argsort(-similarities, kind="stable")[:limit]]
