"""The vectors of stored texts, made when there is a model to make them.

A text that is stored gets its vector at once where inference is there. Where it is not, the text is stored all the
same, and the next search or verification that has a model fills the gap: so one that comes with another model does.
"""

import structlog

from truthgraph.errors import InferenceFailed, InferenceUnavailable
from truthgraph.inference.interface import Inference
from truthgraph.storage import texts
from truthgraph.storage.database import Database
from truthgraph.storage.tables import StoredText

log = structlog.get_logger()

BATCH = 64


def store(database: Database, inference: Inference, row: StoredText) -> None:
    """Store a new text, with its vector where there is a model."""
    try:
        embeddings = inference.embed([row.text])
        row.embedding, row.embedding_model = embeddings.vectors[0], embeddings.model
    except (InferenceUnavailable, InferenceFailed) as error:
        log.info("stored without a vector", reason=str(error))
    with database.writing() as session:
        session.add(row)


def fill(database: Database, inference: Inference, table: type[StoredText], model: str, most: int) -> None:
    """Make vectors of this model for up to `most` texts that have none. No transaction is open while a model works."""
    while most > 0:
        with database.reading() as session:
            missing = texts.without_vector(session, table, model, min(BATCH, most))
        if not missing:
            return
        embeddings = inference.embed([text for _, text in missing])
        if embeddings.model != model:
            raise InferenceFailed(f"the model changed from {model} to {embeddings.model} meanwhile: ask again")
        with database.writing() as session:
            texts.set_vectors(session, table, model, [number for number, _ in missing], embeddings.vectors)
        log.info("vectors filled in", table=table.__tablename__, count=len(missing))
        most -= len(missing)
