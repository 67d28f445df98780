"""What Airflow's database lacks where it is SQLite."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

from tasks.local_airflow.api_client import AirflowError

KEY = (re.compile(r"\bid INTEGER NOT NULL\b"), "id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL")
CONSTRAINT = (re.compile(r",\s*CONSTRAINT \w+ PRIMARY KEY \(id\)"), "")
LOCK_TIMEOUT = 30.0
"""Seconds that a lock on the database is waited for."""


def never_reuse_triggers(database: Path) -> None:
    """Have each trigger of a deferred task get a number that none before had.

    Airflow's triggerer knows its triggers by their numbers alone. SQLite gives the last number
    again once its row has gone, and a trigger whose number the triggerer has not forgotten yet is
    never started: its task waits for ever, or its pod outlives it. Other databases count on.

    Args:
        database: Airflow's SQLite database, which nobody uses yet.

    Raises:
        AirflowError: Its table of triggers is none that this knows how to change.
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
        # Other tables refer to this one by its name, which shall not follow the renaming.
        connection.executescript(
            "PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON; BEGIN IMMEDIATE;"
            f'ALTER TABLE "trigger" RENAME TO trigger_before; {wanted};'
            'INSERT INTO "trigger" SELECT * FROM trigger_before; DROP TABLE trigger_before; COMMIT;'
        )
