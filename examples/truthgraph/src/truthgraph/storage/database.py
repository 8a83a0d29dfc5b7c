"""The connection to the database, and the schema that is brought up to date before anything else."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from truthgraph.errors import DatabaseUnavailable
from truthgraph.settings import Settings
from truthgraph.storage import migrate

log = structlog.get_logger()

PATIENCE = 15.0
"""Seconds to wait for another process that writes to the same SQLite file."""
RETRY = 2.0
"""Seconds after a failed attempt in which the next one fails at once, so that requests do not queue for it."""


class Database:
    """Sessions over a database whose schema is current."""

    def __init__(self, settings: Settings) -> None:
        self.url = make_url(settings.database_url)
        self.engine = _engine(self.url, settings.max_concurrency)
        self._lock = threading.Lock()
        self._current = False
        self._failure: tuple[float, DatabaseUnavailable] | None = None

    def prepare(self) -> None:
        """Bring the schema up to date, once; an attempt that failed is made again."""
        if self._current:
            return
        with self._lock:
            if self._current:
                return
            if self._failure and time.monotonic() - self._failure[0] < RETRY:
                raise DatabaseUnavailable(str(self._failure[1]))
            try:
                with self._translated():
                    revision = migrate.upgrade(self.engine)
            except DatabaseUnavailable as error:
                self._failure = time.monotonic(), error
                raise
            self._current = True
            log.info("schema is current", revision=revision, database=self.engine.dialect.name)

    def check(self) -> None:
        """Raise where the database cannot be used now."""
        self.prepare()
        with self._translated(), self.engine.connect() as connection:
            revision = migrate.current(connection)
        if revision != migrate.head():
            raise DatabaseUnavailable(f"the schema is at {revision}, this version needs {migrate.head()}")

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads."""
        self.prepare()
        with self._translated(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that writes: committed at its end, or not at all."""
        self.prepare()
        with (
            self._translated(),
            Session(self.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE"), expire_on_commit=False) as session,
        ):
            yield session
            session.commit()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Failures of the database as one error that says which database, and never its password."""
        try:
            yield
        except (DBAPIError, PoolTimeout) as error:
            if isinstance(error, DBAPIError) and not _is_outage(error):
                raise
            reason = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()[0]
            log.warning("database unavailable", reason=reason)
            raise DatabaseUnavailable(_describe(self.url, reason)) from error
        except SQLAlchemyError:
            raise


def _is_outage(error: DBAPIError) -> bool:
    """Whether the database itself is the matter, and not what was asked of it."""
    return error.connection_invalidated or type(error).__name__ in {"OperationalError", "InterfaceError"}


def _describe(url: URL, reason: str) -> str:
    if url.drivername == "sqlite":
        path = Path(url.database or "").resolve()
        return (
            f"the SQLite file {path} cannot be used: {reason}. "
            "Its folder must be writable; DATABASE_URL names another, or a PostgreSQL"
        )
    return f"PostgreSQL at {url.host or url.query.get('host', 'its socket')} cannot be used: {reason}"


def _engine(url: URL, concurrency: int) -> Engine:
    if url.drivername != "sqlite":
        # As many connections as requests may be at work, and one for /health.
        return create_engine(
            url, pool_pre_ping=True, pool_size=5, max_overflow=concurrency - 4, connect_args={"connect_timeout": 5}
        )
    engine = create_engine(url, connect_args={"timeout": PATIENCE}, pool_size=5, max_overflow=concurrency - 4)

    # sqlite3 begins transactions late and by its own mind; these two make it leave that to us.
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes later could not wait for another writer: IMMEDIATE can.
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))

    return engine
