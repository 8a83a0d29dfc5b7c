"""Run by Alembic: takes the connection and the transaction that truthgraph.storage.migrate opened."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
