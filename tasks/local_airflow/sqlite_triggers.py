"""A change to Airflow's schema that SQLite needs: ids of triggers are never reused."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

from tasks.local_airflow.api_client import AirflowError

KEY = (re.compile(r"\bid INTEGER NOT NULL\b"), "id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL")
CONSTRAINT = (re.compile(r",\s*CONSTRAINT \w+ PRIMARY KEY \(id\)"), "")
LOCK_TIMEOUT = 30.0
"""Seconds to wait for a lock on the database."""


def never_reuse_triggers(database: Path) -> None:
    """Give each trigger of a deferred task an id that was never used before.

    Airflow's triggerer identifies triggers by id alone. SQLite reuses the last id once its row is
    deleted, and the triggerer never starts a trigger whose id it still remembers: the task waits
    forever, or its pod outlives it. Other databases do not reuse ids.

    Args:
        database: Airflow's SQLite database; no process may use it yet.

    Raises:
        AirflowError: The trigger table is not as expected.
    """
    with contextlib.closing(sqlite3.connect(database, timeout=LOCK_TIMEOUT)) as connection:
        made = dict(
            connection.execute(
                "SELECT type, sql FROM sqlite_master WHERE tbl_name = 'trigger' AND sql NOT NULL"
            )
        )
        table = made.pop("table", "")
        if "AUTOINCREMENT" in table:
            return
        wanted = table
        for pattern, text in (KEY, CONSTRAINT):
            wanted, found = pattern.subn(text, wanted)
            if found != 1 or made:
                raise AirflowError(
                    f"{database}: the table trigger of this Airflow is not as expected; install "
                    "the Airflow that fedrisk's lock names."
                )
        # References of other tables must keep the name and not follow the rename.
        connection.executescript(
            "PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON; BEGIN IMMEDIATE;"
            f'ALTER TABLE "trigger" RENAME TO trigger_before; {wanted};'
            'INSERT INTO "trigger" SELECT * FROM trigger_before; DROP TABLE trigger_before; COMMIT;'
        )
