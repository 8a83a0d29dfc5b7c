"""Claims in a database: DATABASE_URL names it, and without one it lives in memory."""

import os
from functools import cache

from sqlalchemy import Engine, String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool


class Base(DeclarativeBase):
    """The tables of this service."""


class Claim(Base):
    """A statement somebody made, and who."""

    __tablename__ = "claims"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(2000))
    source: Mapped[str] = mapped_column(String(200), default="")


@cache
def engine() -> Engine:
    """The one engine of this process, with its tables made."""
    url = os.environ.get("DATABASE_URL")
    if url:
        made = create_engine(url)
    else:
        made = create_engine("sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool)
    Base.metadata.create_all(made)
    return made


def add(text: str, source: str) -> int:
    """Store a claim; its number comes back."""
    with Session(engine()) as session:
        claim = Claim(text=text, source=source)
        session.add(claim)
        session.commit()
        return claim.id


def texts() -> list[str]:
    """Every stored claim's text, oldest first."""
    with Session(engine()) as session:
        return list(session.scalars(select(Claim.text).order_by(Claim.id)))
