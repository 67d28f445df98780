"""MLflow's database in a file: made whole, or not at all.

MLflow makes its tables by a chain of migrations, none of which SQLite takes back when the process
ends in it. What Ctrl-C, or the end of a pod, leaves of them no later start can open or finish. So
the file is made under another name, and gets its own when it is whole.

``python -m tasks.telemetry.database ARTIFACTS`` makes that of ``MLFLOW_BACKEND_STORE_URI`` before a
server starts, where it is one in a file and not there.
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
"""Seconds to wait for another process that holds a lock: making a database takes 10-20."""


class TrackingError(FedriskError):
    """The tracking server or the registry did not answer, or refused."""

    exit_code = ExitCode.TRANSIENT


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Let one process of this machine at a time into the block.

    Args:
        lock: File that is locked; made, with its folder, if it is not there.

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
    """Make MLflow's database if it is one in a file and not there.

    Args:
        uri: Of the tracking store.
        artifacts: Where the artifacts of MLflow's own experiment, ``Default``, go.

    Raises:
        TrackingError: Another process has been making it for three minutes.
        sqlalchemy.exc.SQLAlchemyError: The file cannot be written.
    """
    if not uri.startswith(SQLITE):
        return
    # What follows a question mark is for the driver.
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
