"""The schema, brought up to date by Alembic under a lock that all processes of one database share."""

from functools import cache
from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

LOCK = 0x7472757468  # "truth": PostgreSQL's advisory locks go by number


def upgrade(engine: Engine) -> str | None:
    """Bring the schema to the newest revision, which comes back.

    All is one transaction. PostgreSQL's holds an advisory lock, SQLite's is the only writer: of two processes that
    start at once, the second waits and finds nothing left to do.
    """
    with engine.connect().execution_options(sqlite_begin="BEGIN IMMEDIATE") as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return current(connection)


def current(connection: Connection) -> str | None:
    """The revision that the database is at."""
    return MigrationContext.configure(connection).get_current_revision()


@cache
def head() -> str | None:
    """The newest revision that this version of the service knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("truthgraph.storage") / "migrations").replace("%", "%%"))
    return config
