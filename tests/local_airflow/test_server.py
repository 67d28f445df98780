"""A real embedded Airflow: it runs the DAG, refuses a second command, and leaves no process."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tasks.local_airflow.api_client import AirflowError, AlreadyExists
from tasks.local_airflow.server import Running
from tasks.run.ending import read_endings
from tasks.run.folder import RunFolder
from tests.local_airflow.conftest import FailedStart

pytestmark = pytest.mark.slow

DAG = "retrain_stroke"


def run_of(running: Running, run: str, conf: dict[str, object], within: float = 400) -> str:
    """Trigger a run and wait for its end."""
    running.wait_for_dag(DAG)
    running.airflow.set_paused(DAG, False)
    running.airflow.trigger(DAG, run, conf)
    deadline = time.monotonic() + within
    while (state := running.airflow.state(DAG, run)) not in ("success", "failed"):
        assert time.monotonic() < deadline, state
        time.sleep(0.5)
    return state


def test_the_dags_are_read_without_an_import_error(running: Running) -> None:
    for study in ("stroke", "heart"):
        running.wait_for_dag(f"retrain_{study}")
    assert running.airflow.import_errors() == []


def test_bad_input_fails_a_run_at_once_and_is_not_retried(running: Running) -> None:
    assert run_of(running, "bad-source", {"source": "/nowhere/table.csv"}) == "failed"
    plan = next(t for t in running.airflow.tasks(DAG, "bad-source") if t["task_id"] == "plan")
    assert (plan["state"], plan["try_number"]) == ("failed", 1)
    endings = read_endings(RunFolder(running.home.settings.runs, "bad-source"))
    assert [(each.step, each.code) for each in endings] == [("plan", 2)]
    assert "/nowhere/table.csv" in endings[0].message


def test_the_trigger_form_is_enforced(running: Running) -> None:
    running.wait_for_dag(DAG)
    with pytest.raises(AirflowError, match="rounds"):
        running.airflow.trigger(DAG, "bad-rounds", {"rounds": 0})


def test_a_run_of_the_same_id_is_not_started_twice(running: Running) -> None:
    running.wait_for_dag(DAG)
    running.airflow.set_paused(DAG, True)
    running.airflow.trigger(DAG, "twice", {})
    with pytest.raises(AlreadyExists):
        running.airflow.trigger(DAG, "twice", {})
    assert (DAG, "twice") in running.airflow.active_runs()
    running.airflow.fail(DAG, "twice")
    assert running.airflow.active_runs(DAG) == []


def test_a_run_that_was_marked_as_failed_resumes_all_tasks_that_are_not_done(
    running: Running,
) -> None:
    running.wait_for_dag(DAG)
    running.airflow.set_paused(DAG, True)
    running.airflow.trigger(DAG, "cut", {})
    running.airflow.fail(DAG, "cut")
    assert running.airflow.resume(DAG, "cut")
    assert running.airflow.state(DAG, "cut") in ("queued", "running")
    assert {task["state"] for task in running.airflow.tasks(DAG, "cut")} == {None}
    running.airflow.fail(DAG, "cut")


def test_the_pool_for_spark_exists(running: Running) -> None:
    with pytest.raises(AlreadyExists):
        running.airflow._call("POST", "/api/v2/pools", {"name": "spark", "slots": 1})


def test_a_second_run_in_the_same_home_is_refused_with_exit_code_4(running: Running) -> None:
    home = running.home.settings.home
    done = subprocess.run(
        [sys.executable, "-m", "tasks.cli", "run"],
        env={**os.environ, "FEDRISK_HOME": str(home)},
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert f"process {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_inside_the_block_leaves_no_process_and_a_home_that_is_made(
    running: Running, failed_start: FailedStart
) -> None:
    running.wait_for_dag(DAG)
    assert failed_start.left == []
    # Its creation takes most of a first start.
    assert {path: path.stat().st_mtime_ns for path in failed_start.made} == failed_start.made
