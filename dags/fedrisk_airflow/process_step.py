"""The operator of the launchers ``process`` and ``compose``: one step as one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fedrisk_airflow.step_operator import StepOperator
from fedrisk_airflow.step_outcome import emit_assets, raise_for
from tasks.launch.process import launch_step
from tasks.launch.process_tree import GRACE


class FedriskStep(StepOperator):
    """Run one step as a process beside Airflow.

    Args:
        file: The study's file.
        options: Makes the command's further arguments of the run's params (``plan`` only).
        kwargs: What every step's operator takes.
    """

    def __init__(
        self,
        *,
        file: str = "",
        options: Callable[[Mapping[str, Any]], list[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.file = file
        self.options = options

    def execute(self, context: Any) -> Any:
        """Run the step; only ``plan`` returns something: the hospitals' names, for mapping."""
        folder = self.folder(context)
        if self.skip_if is not None:
            self.skip_where_it_does_not_apply(self.plan(folder))
        ending = launch_step(
            self.step,
            study=self.file or self.study,
            run=folder.run,
            settings=self.settings,
            hospital=self.hospital,
            options=self.options(context["params"]) if self.options else (),
            emit=self.log.info,
            deadline=self.execution_timeout.total_seconds() - 2 * GRACE,
        )
        raise_for(ending, context["ti"] if self.soft else None)
        emit_assets(self, folder, context)
        return self.plan(folder).hospitals if self.step == "plan" else None
