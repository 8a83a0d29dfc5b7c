"""Claims, evidence, verdicts and their findings, with full-text search over both kinds of text."""

import sqlalchemy as sa
from alembic import op

from truthgraph.storage.types import Embedding

revision = "0001"
down_revision = None

TEXTS = ("claims", "evidence")


def upgrade() -> None:
    """Make all tables."""
    postgresql = op.get_bind().dialect.name == "postgresql"
    if postgresql:
        op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    for table in TEXTS:
        op.create_table(
            table,
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("text", sa.Text, nullable=False),
            sa.Column("source", sa.Text, nullable=False),
            sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("embedding", Embedding),
            sa.Column("embedding_model", sa.Text),
        )
        op.create_index(f"ix_{table}_embedding_model", table, ["embedding_model"])
        if postgresql:
            _full_text_postgresql(table)
        else:
            _full_text_sqlite(table)
    op.create_table(
        "verdicts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("claim_id", sa.Integer, sa.ForeignKey("claims.id", ondelete="CASCADE"), nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("confidence", sa.Double, nullable=False),
        sa.Column("supported", sa.Double, nullable=False),
        sa.Column("refuted", sa.Double, nullable=False),
        sa.Column("conflicting", sa.Double, nullable=False),
        sa.Column("not_enough_evidence", sa.Double, nullable=False),
        sa.Column("nli_model", sa.Text),
        sa.Column("embedding_model", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_verdicts_claim_id", "verdicts", ["claim_id"])
    op.create_table(
        "findings",
        sa.Column("verdict_id", sa.Integer, sa.ForeignKey("verdicts.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("evidence_id", sa.Integer, sa.ForeignKey("evidence.id", ondelete="CASCADE"), nullable=False),
        sa.Column("relevance", sa.Double, nullable=False),
        sa.Column("entailment", sa.Double, nullable=False),
        sa.Column("neutral", sa.Double, nullable=False),
        sa.Column("contradiction", sa.Double, nullable=False),
    )
    op.create_index("ix_findings_evidence_id", "findings", ["evidence_id"])


def downgrade() -> None:
    """Drop all tables. The extension stays: others may use it."""
    op.drop_table("findings")
    op.drop_table("verdicts")
    for table in TEXTS:
        if op.get_bind().dialect.name != "postgresql":
            op.drop_table(f"{table}_fts")
        op.drop_table(table)


def _full_text_postgresql(table: str) -> None:
    op.execute(
        f"ALTER TABLE {table} ADD COLUMN words tsvector GENERATED ALWAYS AS (to_tsvector('english', text)) STORED"
    )
    op.execute(f"CREATE INDEX ix_{table}_words ON {table} USING gin (words)")


def _full_text_sqlite(table: str) -> None:
    """An FTS5 table over the texts of another, which triggers keep true."""
    op.execute(
        f"CREATE VIRTUAL TABLE {table}_fts USING fts5("
        f"text, content='{table}', content_rowid='id', tokenize='porter unicode61')"
    )
    insert = f"INSERT INTO {table}_fts(rowid, text) VALUES (new.id, new.text);"
    delete = f"INSERT INTO {table}_fts({table}_fts, rowid, text) VALUES ('delete', old.id, old.text);"
    op.execute(f"CREATE TRIGGER {table}_inserted AFTER INSERT ON {table} BEGIN {insert} END")
    op.execute(f"CREATE TRIGGER {table}_deleted AFTER DELETE ON {table} BEGIN {delete} END")
    op.execute(f"CREATE TRIGGER {table}_updated AFTER UPDATE OF text ON {table} BEGIN {delete} {insert} END")
