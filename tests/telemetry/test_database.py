"""MLflow's database is created atomically."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from small_run import settings_at

from smoke.waits import until
from tasks.telemetry.database import SQLITE, TrackingError, exclusive, make
from tasks.telemetry.tracking import client, prepare

MAKE = [sys.executable, "-m", "tasks.telemetry.database", "mlflow-artifacts:/"]


def experiments(database: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT name, artifact_location FROM experiments").fetchall()


def making(database: Path) -> subprocess.Popen[bytes]:
    """A process that is creating a database."""
    process = subprocess.Popen(
        MAKE,
        env={**os.environ, "MLFLOW_BACKEND_STORE_URI": f"{SQLITE}{database}"},
        stderr=subprocess.DEVNULL,
    )
    made = database.parent / f".{database.name}.making" / database.name

    def begun() -> bool:
        assert process.poll() is None, "it ended before it began"
        return made.exists() and made.stat().st_size > 0

    until("the database is begun", begun, 120, 0.01)
    return process


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_creation_does_not_stop_the_next(
    tmp_path: Path, how: signal.Signals
) -> None:
    settings = settings_at(tmp_path)
    database = tmp_path / "mlflow" / "mlflow.db"
    database.parent.mkdir()
    process = making(database)
    process.send_signal(how)
    assert process.wait(400) != 0
    assert not database.exists()
    prepare(settings)
    assert {path.name for path in database.parent.iterdir()} == {"mlflow.db", ".mlflow.db.lock"}
    assert client(settings).search_experiments()[0].name == "Default"
    assert experiments(database) == [("Default", f"{database.parent.as_uri()}/artifacts/0")]


def test_a_server_gets_its_artifact_location_and_nothing_is_created_twice(tmp_path: Path) -> None:
    database = tmp_path / "server.db"
    make(f"{SQLITE}{database}?timeout=20", "mlflow-artifacts:/")
    assert experiments(database) == [("Default", "mlflow-artifacts:/0")]
    made = database.stat()
    make(f"{SQLITE}{database}", "file:///elsewhere")
    assert database.stat() == made


def test_a_database_on_a_server_is_not_created(tmp_path: Path) -> None:
    before = set(Path().iterdir())
    make("postgresql://someone@127.0.0.1:9/mlflow", str(tmp_path))
    assert (set(Path().iterdir()), list(tmp_path.iterdir())) == (before, [])


def test_a_lock_that_is_held_too_long_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.telemetry.database.LOCK_DEADLINE", 0.2)
    with (
        exclusive(tmp_path / "lock"),
        pytest.raises(TrackingError, match="lock: another process has held this lock for 0 s"),
        exclusive(tmp_path / "lock"),
    ):
        pass
