"""Claims, evidence and verdicts in PostgreSQL or SQLite."""
