"""A step whose every end is recorded as the launcher ``process`` records it, whatever ended it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException, AirflowTaskTimeout

from fedrisk_airflow.kubernetes.api_errors import classify_error
from fedrisk_airflow.kubernetes.server_wait import release_hospitals
from fedrisk_airflow.step_operator import StepOperator
from fedrisk_airflow.step_outcome import NO_RETRY, emit_assets, raise_for
from tasks.errors import ExitCode, FedriskError
from tasks.run.ending import Ending, StepRecord
from tasks.run.folder import RunFolder
from tasks.run.steps import STEPS


def on_failure(context: Any) -> None:
    """Airflow's callback once a task has failed for good, also if its process could not record it.

    Args:
        context: Airflow's.
    """
    task = context["task"]
    if not isinstance(task, RecordedStep):
        return
    if isinstance(task.hospital, str | None) and not (record := task.record(context)).file.exists():
        reason = context.get("exception") or "it gave no reason; look at the scheduler's log"
        record.write(ExitCode.FAILED, f"Airflow has failed the task: {reason}")
    task.release_hospitals(context)


class RecordedStep(StepOperator):
    """The step's log, its ending (``ends/<step>.json``), and an exception with the reason.

    Attributes:
        ending: How the step ended, once that is recorded.
        lines: The step's output, as far as it is known.
    """

    ending: Ending | None
    lines: list[str]

    def record(self, context: Any) -> StepRecord:
        """The record of the step's log and ending."""
        return StepRecord(self.folder(context), self.step, self.hospital)

    def seconds(self) -> float:
        """How long the step's work took, as far as it is known."""
        raise NotImplementedError

    def end_work(self, context: Any) -> None:
        """End what this try has started and may still be at work."""
        raise NotImplementedError

    @contextlib.contextmanager
    def recording(self, context: Any) -> Iterator[None]:
        """Record every failure: any exception becomes the step's ending."""
        try:
            yield
        except AirflowSkipException:
            raise
        except (Exception, AirflowTaskTimeout) as error:
            if self.ending is not None and self.ending.code != ExitCode.DONE:
                raise
            self.log.warning("what ends the step", exc_info=True)
            self.end_work(context)
            self.end(context, *classify_error(error))

    def end(self, context: Any, code: int, why: str) -> None:
        """Record the ending, and raise for Airflow.

        Args:
            context: Airflow's.
            code: The step's exit code.
            why: The reason; empty for 0.

        Raises:
            AirflowFailException: After this code no retry helps.
            AirflowException: The step is tried again.
            AirflowSkipException: The run can do without it.
        """
        record, ti = self.record(context), context["ti"]
        if code == ExitCode.DONE:
            code, why = self._fetch_result(record.folder)
        record.write_log(self.lines)
        self.ending = record.write(code, why, self.seconds())
        if code in NO_RETRY or (code != ExitCode.DONE and ti.try_number > ti.max_tries):
            self.release_hospitals(context)
        raise_for(self.ending, ti if self.soft else None)
        emit_assets(self, record.folder, context)

    def release_hospitals(self, context: Any) -> None:
        """Once the run's server will not come (again): let no hospital's pod wait for it."""
        try:
            release_hospitals(self.step, self.settings, self.folder(context).run)
        except FedriskError as error:
            self.log.warning("hospitals wait until the sweep releases them: %s", error)

    def _fetch_result(self, folder: RunFolder) -> tuple[int, str]:
        """Fetch what the step has left; without a manifest it has not done its work."""
        try:
            if not STEPS[self.step].private:
                folder.fetch_step(self.step, self.hospital)
            if folder.find(self.step, self.hospital) is None:
                return ExitCode.FAILED, (
                    f"the pod ended well, but the step's manifest is not in {self.settings.store}"
                )
        except FedriskError as error:
            return error.exit_code, str(error)
        return ExitCode.DONE, ""
