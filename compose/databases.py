"""Create Airflow's and MLflow's database and user, unless they exist, and set their passwords."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg2
from psycopg2 import sql

SECRETS = Path("/run/postgres")
POSTGRES_DEADLINE = 60.0
"""Seconds until Postgres must accept a connection."""


def connect() -> psycopg2.extensions.connection:
    """Connect as Postgres's superuser.

    Raises:
        psycopg2.OperationalError: It did not answer in time, or the password is wrong.
    """
    end = time.monotonic() + POSTGRES_DEADLINE
    while True:
        try:
            return psycopg2.connect(
                host="postgres",
                user="postgres",
                password=(SECRETS / "password").read_text(),
                connect_timeout=5,
            )
        except psycopg2.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def main() -> None:
    """Create both databases and users."""
    connection = connect()
    # A database cannot be created within a transaction.
    connection.autocommit = True
    with connection.cursor() as cursor:
        for name in ("airflow", "mlflow"):
            role, password = sql.Identifier(name), sql.Literal((SECRETS / name).read_text())
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
            verb = sql.SQL("ALTER" if cursor.fetchone() else "CREATE")
            cursor.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, role, password))
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if not cursor.fetchone():
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
                print(f"created the database {name}")
            # By default every user may connect to it.
            cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(role))
    connection.close()


if __name__ == "__main__":
    main()
