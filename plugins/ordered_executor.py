"""Airflow's LocalExecutor without its false report that a resumed task was killed.

A deferred task is executed twice under one key: until it is deferred, and after its trigger has
fired. Airflow 3.2's LocalExecutor does not distinguish their events. If the trigger fires before
the scheduler has processed the end of the first execution, that end is attributed to the second:
the scheduler fails a running task ("finished with state success, but the task instance's state
attribute is running"), and crashes if the task ends at that moment, because the try is then
recorded twice. These are Airflow's issues 67287, 71580 and 72716.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from airflow.executors.local_executor import LocalExecutor


class OrderedLocalExecutor(LocalExecutor):
    """A LocalExecutor that reports only the end of a task's last execution."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Create the executor with Airflow's arguments."""
        super().__init__(*args, **kwargs)
        self._executions: Counter[Any] = Counter()

    def _process_workloads(self, workload_list: Sequence[Any]) -> None:
        """Pass workloads to the workers, and count them by task instance and try."""
        self._executions.update(w.ti.key for w in workload_list if hasattr(w, "ti"))
        super()._process_workloads(workload_list)

    def change_state(
        self, key: Any, state: Any, info: Any = None, remove_running: bool = True
    ) -> None:
        """Report an execution's end, unless the same try is already being executed again."""
        if remove_running and key in self._executions:
            self._executions[key] -= 1
            if self._executions[key] > 0:
                self.log.info("an earlier execution of %s has ended (%s); it goes on", key, state)
                return
            del self._executions[key]
        super().change_state(key, state, info, remove_running)
