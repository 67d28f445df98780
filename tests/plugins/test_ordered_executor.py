"""Airflow's executor and the ends of a task that was executed twice under one key."""

from __future__ import annotations

import multiprocessing
from multiprocessing import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.executors.executor_loader import ExecutorLoader
from airflow.executors.local_executor import LocalExecutor
from airflow.utils.state import TaskInstanceState
from ordered_executor import OrderedLocalExecutor

from tasks.local_airflow.home import EXECUTOR

SUCCESS, FAILED = TaskInstanceState.SUCCESS, TaskInstanceState.FAILED
KEY = ("retrain_stroke", "champion", "run", 1, -1)


class Workers:
    """An executor whose workers' ends are reported by the test."""

    def __init__(self, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.executor, self.handed = executor, list[Any]()
        executor.activity_queue = SimpleNamespace(put=self.handed.append)
        executor.result_queue = SimpleQueue()
        executor.workers, executor._unread_messages = {}, multiprocessing.Value("i")
        monkeypatch.setattr(executor, "_check_workers", lambda: None)
        # A workload must look like a task to Airflow's own method.
        monkeypatch.setattr("airflow.executors.workloads.ExecuteTask", SimpleNamespace)

    def execute(self) -> None:
        """Queue the task and pass it to a worker, like the scheduler's loop."""
        work = SimpleNamespace(ti=SimpleNamespace(key=KEY, priority_weight=1))
        self.executor.queued_tasks[KEY] = work
        self.executor.heartbeat()

    def end(self, state: TaskInstanceState) -> dict[Any, Any]:
        """End an execution, and return the events that the scheduler gets."""
        self.executor.result_queue.put((KEY, state, None))
        self.executor.heartbeat()
        return dict(self.executor.get_event_buffer())


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    return Workers(OrderedLocalExecutor(), monkeypatch)


def test_the_end_before_a_deferral_is_not_reported(workers: Workers) -> None:
    workers.execute()
    workers.execute()
    assert len(workers.handed) == 2
    assert workers.end(SUCCESS) == {}
    assert workers.end(FAILED) == {KEY: (FAILED, None)}


def test_airflows_own_executor_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(LocalExecutor(), monkeypatch)
    workers.execute()
    workers.execute()
    events = workers.end(SUCCESS)
    assert events == {KEY: (SUCCESS, None)}, "Airflow does so now: remove this module"


def test_a_task_that_was_deferred_long_is_reported_twice(workers: Workers) -> None:
    for state in (SUCCESS, SUCCESS):
        workers.execute()
        assert workers.end(state) == {KEY: (state, None)}
    assert not workers.executor._executions


def test_airflow_loads_it_by_the_name_that_is_configured() -> None:
    found, _ = ExecutorLoader.import_executor_cls(
        SimpleNamespace(module_path=EXECUTOR, connector_source=None)
    )
    assert found is OrderedLocalExecutor
