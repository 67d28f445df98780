"""Airflow's SQLite database after fedrisk's change."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.local_airflow.api_client import AirflowError
from tasks.local_airflow.sqlite_triggers import never_reuse_triggers

TASKS = """
CREATE TABLE task_instance (
    id INTEGER PRIMARY KEY,
    trigger_id INTEGER REFERENCES "trigger" (id) ON DELETE CASCADE
)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with Airflow's own table of triggers and one row in it."""
    import sqlalchemy
    from airflow.models.trigger import Trigger

    path = tmp_path / "airflow.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    Trigger.__table__.create(engine)
    engine.dispose()
    with opened(path) as connection:
        connection.execute(TASKS)
        add(connection)
        connection.execute("INSERT INTO task_instance VALUES (1, 1)")
    return path


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        yield connection


def add(connection: sqlite3.Connection) -> int:
    row = ("a.Trigger", "{}", "2026-01-01")
    made = connection.execute(
        'INSERT INTO "trigger" (classpath, kwargs, created_date) VALUES (?, ?, ?)', row
    )
    return int(made.lastrowid or 0)


def replaced(connection: sqlite3.Connection) -> tuple[int, int]:
    one = add(connection)
    connection.execute('DELETE FROM "trigger" WHERE id = ?', (one,))
    return one, add(connection)


def test_an_id_is_used_once(database: Path) -> None:
    with opened(database) as connection:
        one, other = replaced(connection)
        assert one == other, "SQLite does so itself now: this module can be removed"
    never_reuse_triggers(database)
    with opened(database) as connection:
        one, other = replaced(connection)
        assert one < other


def test_rows_and_references_to_them_stay(database: Path) -> None:
    never_reuse_triggers(database)
    never_reuse_triggers(database)
    with opened(database) as connection:
        rows = connection.execute('SELECT id, classpath, kwargs FROM "trigger"').fetchall()
        assert rows == [(1, "a.Trigger", "{}")]
        connection.execute('DELETE FROM "trigger"')
        assert connection.execute("SELECT * FROM task_instance").fetchall() == []


def test_an_unknown_table_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with opened(path) as connection:
        connection.execute('CREATE TABLE "trigger" (number INTEGER)')
    with pytest.raises(AirflowError, match="not as expected"):
        never_reuse_triggers(path)
    with opened(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("trigger",)]
