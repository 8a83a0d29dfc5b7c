"""The tables, as migrations make them."""

from datetime import UTC, datetime

from sqlalchemy import ForeignKey, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from truthgraph.storage.types import Embedding, UtcTime, Vector


def _now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """The tables of this service."""


class StoredText(Base):
    """What claims and evidence have in common. The vector may come later than the text."""

    __abstract__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=_now)
    embedding: Mapped[Vector | None] = mapped_column(Embedding, deferred=True)
    embedding_model: Mapped[str | None] = mapped_column(Text)


class Claim(StoredText):
    """A statement that somebody made."""

    __tablename__ = "claims"


class Evidence(StoredText):
    """A text that may speak for or against claims."""

    __tablename__ = "evidence"


class Verdict(Base):
    """What the evidence said about a claim at one time."""

    __tablename__ = "verdicts"

    id: Mapped[int] = mapped_column(primary_key=True)
    claim_id: Mapped[int] = mapped_column(ForeignKey("claims.id", ondelete="CASCADE"), index=True)
    label: Mapped[str] = mapped_column(Text)
    confidence: Mapped[float]
    supported: Mapped[float]
    refuted: Mapped[float]
    conflicting: Mapped[float]
    not_enough_evidence: Mapped[float]
    nli_model: Mapped[str | None] = mapped_column(Text)
    """None where there was nothing to judge."""
    embedding_model: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=_now)
    findings: Mapped[list["Finding"]] = relationship(order_by="Finding.position", lazy="selectin")


class Finding(Base):
    """What one piece of evidence said: an edge between it and the claim."""

    __tablename__ = "findings"

    verdict_id: Mapped[int] = mapped_column(ForeignKey("verdicts.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    evidence_id: Mapped[int] = mapped_column(ForeignKey("evidence.id", ondelete="CASCADE"), index=True)
    relevance: Mapped[float]
    entailment: Mapped[float]
    neutral: Mapped[float]
    contradiction: Mapped[float]
    evidence: Mapped[Evidence] = relationship(lazy="joined")
