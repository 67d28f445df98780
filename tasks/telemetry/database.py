"""Create MLflow's database file atomically.

MLflow creates its tables by a chain of migrations that SQLite does not roll back when the process
ends. No later start can open or finish a file that Ctrl-C or the end of a pod left incomplete. So
the file is created under another name and renamed when it is complete.

``python -m tasks.telemetry.database ARTIFACTS`` creates the file of ``MLFLOW_BACKEND_STORE_URI``
before a server starts, unless it exists or the URI names a server.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.errors import ExitCode, FedriskError

SQLITE = "sqlite:///"
LOCK_DEADLINE = 180.0
"""Seconds to wait for another process's lock; creating a database takes 10-20 s."""


class TrackingError(FedriskError):
    """The tracking server or the registry did not answer, or rejected a call."""

    exit_code = ExitCode.TRANSIENT


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Allow one process of this machine at a time in the block.

    Args:
        lock: The file to lock; created with its folder if absent.

    Raises:
        TrackingError: Another process has held the lock for three minutes.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_DEADLINE
    with lock.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TrackingError(
                        f"{lock}: another process has held this lock for {LOCK_DEADLINE:.0f} s. "
                        "End it, then run the step again."
                    ) from None
                time.sleep(0.1)
        yield


def make(uri: str, artifacts: str) -> None:
    """Create MLflow's database if it is a file that does not exist.

    Args:
        uri: URI of the tracking store.
        artifacts: Artifact location of MLflow's own experiment, ``Default``.

    Raises:
        TrackingError: Another process has held the lock for three minutes.
        sqlalchemy.exc.SQLAlchemyError: The file cannot be written.
    """
    if not uri.startswith(SQLITE):
        return
    # The query of the URI is for the driver.
    database = Path(uri.removeprefix(SQLITE).partition("?")[0])
    if database.exists():
        return
    folder = database.with_name(f".{database.name}.making")
    with exclusive(database.with_name(f".{database.name}.lock")):
        if database.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            made = folder / database.name
            SqlAlchemyStore(f"{SQLITE}{made}", artifacts).engine.dispose()
            made.replace(database)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    make(os.environ["MLFLOW_BACKEND_STORE_URI"], sys.argv[1])
