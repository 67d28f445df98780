"""Airflow's LocalExecutor, without its false word that a waiting task was killed.

A deferred task is executed twice under one key: until it waits, and once its trigger has fired.
Airflow 3.2's LocalExecutor does not know which of the two an event belongs to. Where the trigger
fires before the scheduler has seen the end of the first execution, that end is taken for the
second's: the scheduler fails a task that works ("finished with state success, but the task
instance's state attribute is running"), and dies of it where the task ends at that moment, for the
try is then written down twice. Known to Airflow as issues 67287, 71580 and 72716.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from airflow.executors.local_executor import LocalExecutor


class OrderedLocalExecutor(LocalExecutor):
    """A LocalExecutor that tells the end of a task's last execution only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As Airflow makes its executors."""
        super().__init__(*args, **kwargs)
        self._executions: Counter[Any] = Counter()

    def _process_workloads(self, workload_list: Sequence[Any]) -> None:
        """Hand workloads to the workers, and count them by task instance and try."""
        self._executions.update(w.ti.key for w in workload_list if hasattr(w, "ti"))
        super()._process_workloads(workload_list)

    def change_state(
        self, key: Any, state: Any, info: Any = None, remove_running: bool = True
    ) -> None:
        """Pass an execution's end on, unless the same try is executed again already."""
        if remove_running and key in self._executions:
            self._executions[key] -= 1
            if self._executions[key] > 0:
                self.log.info("an earlier execution of %s has ended (%s); it goes on", key, state)
                return
            del self._executions[key]
        super().change_state(key, state, info, remove_running)
