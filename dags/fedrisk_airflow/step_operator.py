"""The base of the operators of all launchers: which step, of which run, and when to skip it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from tasks.errors import StudyError
from tasks.run.folder import RunFolder
from tasks.run.plan import Plan, read_plan
from tasks.run.run_id import run_of
from tasks.run.stored_run import open_run
from tasks.settings import Settings


class StepOperator(BaseOperator):
    """Base of the operators that run one step.

    Args:
        step: A key of ``tasks.run.steps.STEPS``, or ``plan``.
        study: The study's name.
        hospital: The hospital, for a step that runs once a hospital.
        skip_if: Says, from the frozen study, why the step does not apply; None if it does.
        soft: Whether the run can do without this step: its last failure is a skipped task.
        kwargs: What the launcher's own operator takes.
    """

    template_fields = ("hospital",)
    ui_color = "#e8f1f8"

    def __init__(
        self,
        *,
        step: str,
        study: str,
        hospital: str | None = None,
        skip_if: Callable[[Any], str | None] | None = None,
        soft: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.study = study
        self.hospital = hospital
        self.skip_if = skip_if
        self.soft = soft

    @cached_property
    def settings(self) -> Settings:
        """Those of the process that runs the task."""
        return Settings.from_environment()

    def folder(self, context: Any) -> RunFolder:
        """The folder of the task's run.

        Args:
            context: Airflow's.
        """
        return open_run(self.settings, run_of(context["run_id"], self.study))

    def plan(self, folder: RunFolder) -> Plan:
        """Read the run's plan.

        Args:
            folder: The run's.

        Raises:
            DataError: The run has no plan.
            StudyError: The run is of another study.
        """
        plan = read_plan(folder)
        if plan.study.name != self.study:
            raise StudyError(
                f"run {folder.run} is of study {plan.study.name}, not of {self.study}: start "
                "another run."
            )
        return plan

    def skip_where_it_does_not_apply(self, plan: Plan) -> None:
        """Skip the task if its step does not apply to the study.

        Args:
            plan: The run's.

        Raises:
            AirflowSkipException: It does not, with the reason.
        """
        if self.skip_if is not None and (reason := self.skip_if(plan.study)):
            raise AirflowSkipException(reason)
