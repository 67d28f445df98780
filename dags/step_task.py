"""One step of a run as an Airflow task, whatever launches it.

``step_task`` is the one place where a launcher becomes an operator: the DAGs name steps, hospitals
and rules only, so that another launcher changes no DAG.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, AssetAlias, BaseOperator, TriggerRule
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
)

from tasks.errors import ExitCode, FedriskError, SettingsError
from tasks.launch import GRACE, Ending, launch_step
from tasks.manifest import RunFolder
from tasks.plan import read_plan
from tasks.settings import Settings
from tasks.step import STEPS

NO_RETRY = frozenset({ExitCode.BAD_INPUT, ExitCode.REFUSED})
"""Exit codes after which the same step would end the same way."""
RETRIES = {
    "retries": 2,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=2),
}
SPARK_STEPS = frozenset({"collect", "validate", "features"})
GOLD, CHAMPION = "fedrisk-{study}-gold", "fedrisk-{study}-champion"
"""Names of the asset aliases; the assets themselves are named once a step has made them."""


def fedrisk_run(airflow_run: str) -> str:
    """The run's id as a folder's name: Airflow's id, with ``-`` for what a path should not have.

    A colon, which Airflow's own ids have, is no part of a Hadoop path.
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", airflow_run).replace("..", ".")[:200]


class FedriskStep(BaseOperator):
    """Run one step with the ``process`` launcher.

    Args:
        step: A key of ``tasks.step.STEPS``, or ``plan``.
        study: The study's name.
        file: The study's file.
        hospital: The hospital, for a step that runs once a hospital.
        options: Makes the command's further arguments of the run's params (``plan`` only).
        skip_if: Says, from the frozen study, why the step does not apply; None if it does.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.step = step
        self.study = study
        self.file = file
        self.hospital = hospital
        self.options = options
        self.skip_if = skip_if

    def execute(self, context: Any) -> Any:
        """Run the step; only ``plan`` hands something on: the hospitals' names, for mapping."""
        settings = Settings.from_environment()
        folder = RunFolder(settings.runs, fedrisk_run(context["run_id"]))
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
            deadline=self.execution_timeout.total_seconds() - 2 * GRACE,
        )
        raise_for(ending)
        self._tell_assets(folder, context)
        return read_plan(folder).hospitals if self.step == "plan" else None

    def _tell_assets(self, folder: RunFolder, context: Any) -> None:
        """Emit the table or model that the step has made, with its version and counts only."""
        for alias in self.outlets:
            event = _asset(self.step, self.study, self.hospital, folder)
            if event is not None:
                asset, extra = event
                context["outlet_events"][alias].add(asset, extra=extra)


def _asset(
    step: str, study: str, hospital: str | None, folder: RunFolder
) -> tuple[Asset, dict[str, Any]] | None:
    manifest = folder.read(step, hospital)
    if step == "features":
        table = manifest.tables["gold"]
        uri = table.uri if "://" in table.uri else f"file://{table.uri}"
        extra = {"version": table.version, "rows": table.rows, "run": folder.run}
        return Asset(name=f"{study}/{hospital}/gold", uri=uri, group="gold"), extra
    if not manifest.figures.get("champion"):
        return None
    version = manifest.figures.get("model_version")
    model = Asset(name=f"{study}/champion", uri=f"fedrisk://models/{study}", group="model")
    return model, {"version": version, "run": folder.run}


def raise_for(ending: Ending) -> None:
    """Turn a step's exit code into what Airflow should do about it.

    Raises:
        AirflowFailException: The code says that a retry is of no use.
        AirflowException: The step failed otherwise and is tried again.
    """
    if ending.code == ExitCode.DONE:
        return
    text = f"step {ending.step} ended with exit code {ending.code}: {ending.message}"
    raise (AirflowFailException if ending.code in NO_RETRY else AirflowException)(text)


def step_task(
    name: str,
    *,
    study: str,
    settings: Settings,
    each: bool = False,
    deadline: float | None = None,
    **arguments: Any,
) -> Any:
    """Make the task of one step with the operator of the configured launcher.

    Args:
        name: The step's name, which is the task's id.
        study: The study's name.
        settings: Says which launcher runs steps.
        each: Whether to return a partial operator, to be expanded over ``hospital``.
        deadline: Seconds after which the step is ended; the settings' by default.
        arguments: Further arguments of the operator.

    Raises:
        SettingsError: There is no operator for the launcher.
    """
    if settings.launcher != "process":
        raise SettingsError(f"FEDRISK_LAUNCHER={settings.launcher}: the DAGs know `process` only.")
    what = STEPS.get(name)
    given: dict[str, Any] = {
        "task_id": name,
        "step": name,
        "study": study,
        "doc_md": what.title if what else "freeze the study and the choices of this run",
        "pool": "spark" if name in SPARK_STEPS else "default_pool",
        "execution_timeout": timedelta(seconds=(deadline or settings.step_deadline) + 2 * GRACE),
        "do_xcom_push": name == "plan",
        **RETRIES,
    }
    if what and what.each_hospital:
        given["map_index_template"] = "{{ task.hospital }}"
    if name == "features":
        given["outlets"] = [AssetAlias(name=GOLD.format(study=study))]
    if name == "promote":
        given["outlets"] = [AssetAlias(name=CHAMPION.format(study=study))]
    given |= arguments
    return FedriskStep.partial(**given) if each else FedriskStep(**given)


__all__ = ["FedriskError", "FedriskStep", "TriggerRule", "fedrisk_run", "raise_for", "step_task"]
