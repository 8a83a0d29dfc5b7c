"""Claims and evidence: stored, read, and given the vectors that they lack."""

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from truthgraph.errors import NotFound
from truthgraph.storage.tables import Claim, StoredText, Verdict
from truthgraph.storage.types import Vector


def get_claim(session: Session, claim_id: int) -> Claim:
    """The claim of a number."""
    claim = session.get(Claim, claim_id)
    if claim is None:
        raise NotFound(f"there is no claim {claim_id}")
    return claim


def claims(session: Session, after: int, limit: int) -> list[Claim]:
    """Claims in the order of their numbers, from the first above `after`."""
    return list(session.scalars(select(Claim).where(Claim.id > after).order_by(Claim.id).limit(limit)))


def latest_verdict(session: Session, claim_id: int) -> Verdict:
    """The newest verdict on a claim."""
    get_claim(session, claim_id)
    verdict = session.scalars(
        select(Verdict).where(Verdict.claim_id == claim_id).order_by(Verdict.id.desc()).limit(1)
    ).first()
    if verdict is None:
        raise NotFound(f"claim {claim_id} has no verdict yet: POST /claims/{claim_id}/verify makes one")
    return verdict


def without_vector(session: Session, table: type[StoredText], model: str, limit: int) -> list[tuple[int, str]]:
    """Number and text of what has no vector of this model, oldest first."""
    query = select(table.id, table.text).where(table.embedding_model.is_distinct_from(model))
    return [(number, text) for number, text in session.execute(query.order_by(table.id).limit(limit))]


def set_vectors(
    session: Session, table: type[StoredText], model: str, numbers: Sequence[int], vectors: Sequence[Vector]
) -> None:
    """Store the vectors of texts, in ascending order so that two processes that do the same do not block each other."""
    for number, vector in sorted(zip(numbers, vectors, strict=True), key=lambda pair: pair[0]):
        session.execute(update(table).where(table.id == number).values(embedding=vector, embedding_model=model))
