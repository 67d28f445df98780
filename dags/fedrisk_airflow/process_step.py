"""The operator of the launchers ``process`` and ``compose``: one step as one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import (
    AirflowSkipException,
)

from fedrisk_airflow.step_outcome import emit_assets, raise_for
from tasks.launch.process import launch_step
from tasks.launch.process_tree import PROCESS_GRACE
from tasks.run.plan import read_plan
from tasks.run.run_id import run_of
from tasks.run.stored_run import open_run
from tasks.settings import Settings


class FedriskStep(BaseOperator):
    """Run one step as a process beside Airflow (launchers ``process`` and ``compose``).

    Args:
        step: A key of ``tasks.run.steps.STEPS``, or ``plan``.
        study: The study's name.
        file: The study's file.
        hospital: The hospital, for a step that runs once a hospital.
        options: Makes the command's further arguments of the run's params (``plan`` only).
        skip_if: Says, from the frozen study, why the step does not apply; None if it does.
        soft: Whether the run can do without this step: its last failure is a skipped task.
        kwargs: What every operator takes.
    """

    template_fields = ("hospital",)
    ui_color = "#e8f1f8"

    def __init__(
        self,
        *,
        step: str,
        study: str,
        file: str = "",
        hospital: str | None = None,
        options: Callable[[Mapping[str, Any]], list[str]] | None = None,
        skip_if: Callable[[Any], str | None] | None = None,
        soft: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.study = study
        self.file = file
        self.hospital = hospital
        self.options = options
        self.skip_if = skip_if
        self.soft = soft

    def execute(self, context: Any) -> Any:
        """Run the step; only ``plan`` hands something on: the hospitals' names, for mapping."""
        settings = Settings.from_environment()
        folder = open_run(settings, run_of(context["run_id"], self.study))
        if self.skip_if is not None:
            reason = self.skip_if(read_plan(folder).study)
            if reason:
                raise AirflowSkipException(reason)
        ending = launch_step(
            self.step,
            study=self.file or self.study,
            run=folder.run,
            settings=settings,
            hospital=self.hospital,
            options=self.options(context["params"]) if self.options else (),
            emit=self.log.info,
            deadline=self.execution_timeout.total_seconds() - 2 * PROCESS_GRACE,
        )
        raise_for(ending, context["ti"] if self.soft else None)
        emit_assets(self, folder, context)
        return read_plan(folder).hospitals if self.step == "plan" else None
