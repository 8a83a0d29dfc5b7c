"""The schema: what migrations make, again and at once."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect
from truthgraph.settings import Settings
from truthgraph.storage import migrate
from truthgraph.storage.database import Database
from truthgraph.storage.tables import Base

BESIDES = {"words", "ix_claims_words", "ix_evidence_words", "ix_claims_embedding_model", "ix_evidence_embedding_model"}
"""Made by migrations for searching, and no part of what the program reads or writes."""


@pytest.fixture
def database(database_url: str) -> Database:
    """A database without any table."""
    return Database(Settings(database_url=database_url))


def test_migrations_make_what_the_program_uses(database: Database) -> None:
    database.prepare()

    def ours(_object: object, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:
        return not (kind == "table" and "_fts" in str(name)) and name not in BESIDES

    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours, "compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
        assert migrate.current(connection) == migrate.head() == "0001"
    database.close()


def test_upgrading_again_changes_nothing(database: Database) -> None:
    for _ in range(2):
        assert migrate.upgrade(database.engine) == migrate.head()
    database.close()


def test_the_way_back(database: Database) -> None:
    migrate.upgrade(database.engine)
    with database.engine.connect().execution_options(sqlite_begin="BEGIN IMMEDIATE") as connection, connection.begin():
        config = migrate._config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert set(inspect(database.engine).get_table_names()) == {"alembic_version"}
    assert migrate.upgrade(database.engine) == migrate.head()
    database.close()


def test_a_migration_that_fails_leaves_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_connection: object) -> None:
        raise RuntimeError("at the end")

    monkeypatch.setattr(migrate, "current", fail)
    with pytest.raises(RuntimeError, match="at the end"):
        migrate.upgrade(database.engine)
    assert inspect(database.engine).get_table_names() == []
    database.close()


def test_processes_that_start_at_once(database_url: str, tmp_path: Path) -> None:
    code = f"""
import sys
from truthgraph.settings import Settings
from truthgraph.storage.database import Database
database = Database(Settings(database_url={database_url!r}))
print("ready", flush=True)
sys.stdin.readline()
database.prepare()
"""
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    for start in starts:
        assert start.stdout is not None
        assert start.stdout.readline() == "ready\n"
    for start in starts:
        assert start.stdin is not None
        start.stdin.write("go\n")
        start.stdin.flush()
    for start in starts:
        start.communicate(timeout=60)
        assert start.returncode == 0


def test_the_wheel_has_what_is_not_code(tmp_path: Path) -> None:
    """Built from a copy, since setuptools leaves files beside the sources."""
    copy = tmp_path / "truthgraph"
    shutil.copytree(
        Path(__file__).parents[1], copy, ignore=shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build")
    )
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=copy, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("truthgraph-*-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "truthgraph/py.typed",
        "truthgraph/inference/head.json",
        "truthgraph/storage/migrations/env.py",
        "truthgraph/storage/migrations/versions/r0001_claims_evidence_verdicts.py",
    } <= names
    assert not [name for name in names if "test" in name]
