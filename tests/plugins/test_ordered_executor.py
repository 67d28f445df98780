"""Airflow's executor, told of the ends of a task that was executed twice under one key."""

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
    """An executor whose workers' ends are told by the test."""

    def __init__(self, executor: LocalExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
        self.executor, self.handed = executor, list[Any]()
        executor.activity_queue = SimpleNamespace(put=self.handed.append)
        executor.result_queue = SimpleQueue()
        executor.workers, executor._unread_messages = {}, multiprocessing.Value("i")
        monkeypatch.setattr(executor, "_check_workers", lambda: None)
        # What is handed over must look like a task to Airflow's own method.
        monkeypatch.setattr("airflow.executors.workloads.ExecuteTask", SimpleNamespace)

    def execute(self) -> None:
        """Queue the task and hand it to a worker, as the scheduler's loop does."""
        work = SimpleNamespace(ti=SimpleNamespace(key=KEY, priority_weight=1))
        self.executor.queued_tasks[KEY] = work
        self.executor.heartbeat()

    def end(self, state: TaskInstanceState) -> dict[Any, Any]:
        """Have an execution end, and return what the scheduler is told."""
        self.executor.result_queue.put((KEY, state, None))
        self.executor.heartbeat()
        return dict(self.executor.get_event_buffer())


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    return Workers(OrderedLocalExecutor(), monkeypatch)


def test_the_end_before_a_task_waited_is_not_taken_for_its_last(workers: Workers) -> None:
    workers.execute()
    workers.execute()
    assert len(workers.handed) == 2
    assert workers.end(SUCCESS) == {}
    assert workers.end(FAILED) == {KEY: (FAILED, None)}


def test_without_this_module_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers(LocalExecutor(), monkeypatch)
    workers.execute()
    workers.execute()
    told = workers.end(SUCCESS)
    assert told == {KEY: (SUCCESS, None)}, "Airflow has come to do so itself: this module can go"


def test_a_task_that_waited_long_is_told_of_twice(workers: Workers) -> None:
    for state in (SUCCESS, SUCCESS):
        workers.execute()
        assert workers.end(state) == {KEY: (state, None)}
    assert not workers.executor._executions


def test_airflow_loads_it_by_the_name_that_is_configured() -> None:
    found, _ = ExecutorLoader.import_executor_cls(
        SimpleNamespace(module_path=EXECUTOR, connector_source=None)
    )
    assert found is OrderedLocalExecutor
