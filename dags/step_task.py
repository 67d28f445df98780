"""One step of a run as an Airflow task, whatever launches it.

``step_task`` is the one place where a launcher becomes an operator: the DAGs name steps, hospitals
and rules only, so that another launcher changes no DAG.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from airflow.configuration import conf
from airflow.sdk import Asset, AssetAlias, BaseOperator
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
)

from tasks.embedded.pods import airflow_id
from tasks.errors import ExitCode, SettingsError
from tasks.launch import GRACE, Ending, launch_step
from tasks.manifest import RunFolder
from tasks.plan import read_plan, run_of, start_limit
from tasks.settings import Settings
from tasks.step import STEPS
from tasks.store import open_run
from tasks.study import Study

NO_RETRY = frozenset({ExitCode.BAD_INPUT, ExitCode.REFUSED})
"""Exit codes after which the same step would end the same way."""
RETRIES = {
    "retries": 2,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=2),
}
SPARK_STEPS = frozenset({"collect", "validate", "features"})
ALIASES = {"features": "fedrisk-{study}-gold", "promote": "fedrisk-{study}-champion"}
"""Names of the asset aliases; the assets themselves are named once a step has made them."""


def this_airflow() -> str:
    """A name for this Airflow, by which its pods are found again."""
    return airflow_id(conf.get("core", "fernet_key", fallback=""))


class FedriskStep(BaseOperator):
    """Run one step as a process beside Airflow (launchers ``process`` and ``compose``).

    Args:
        step: A key of ``tasks.step.STEPS``, or ``plan``.
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
            deadline=self.execution_timeout.total_seconds() - 2 * GRACE,
        )
        raise_for(ending, context["ti"] if self.soft else None)
        tell_assets(self, folder, context)
        return read_plan(folder).hospitals if self.step == "plan" else None


def tell_assets(task: Any, folder: RunFolder, context: Any) -> None:
    """Emit the table or model that a step has made, with its version and counts only.

    Args:
        task: The step's operator.
        folder: The run's folder.
        context: Airflow's.
    """
    for alias in task.outlets:
        event = _asset(task.step, task.study, task.hospital, folder)
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


def raise_for(ending: Ending, soft: Any = None) -> None:
    """Turn a step's exit code into what Airflow should do about it.

    Args:
        ending: How the step ended.
        soft: The task instance of a step that the run can do without.

    Raises:
        AirflowFailException: The code says that a retry is of no use.
        AirflowException: The step failed otherwise and is tried again.
        AirflowSkipException: It will not be tried again, and the run goes on without it.
    """
    if ending.code == ExitCode.DONE:
        return
    text = f"step {ending.step} ended with exit code {ending.code}: {ending.message}"
    useless = ending.code in NO_RETRY
    if soft is not None and (useless or soft.try_number > soft.max_tries):
        raise AirflowSkipException(f"the run goes on without it: {text}")
    raise (AirflowFailException if useless else AirflowException)(text)


def step_task(
    name: str,
    *,
    study: Study,
    settings: Settings,
    each: bool = False,
    deadline: float | None = None,
    **arguments: Any,
) -> Any:
    """Make the task of one step with the operator of the configured launcher.

    Args:
        name: The step's name, which is the task's id.
        study: The study.
        settings: Says which launcher runs steps.
        each: Whether to return a partial operator, to be expanded over ``hospital``.
        deadline: Seconds after which the step is ended; the settings' by default.
        arguments: Further arguments of the operator.

    Raises:
        SettingsError: There is no operator for the launcher, or its settings are not sound.
    """
    _check(settings)
    what, work = STEPS.get(name), deadline or settings.step_deadline
    given: dict[str, Any] = {
        "task_id": name,
        "step": name,
        "study": study.name,
        "doc_md": what.title if what else "freeze the study and the choices of this run",
        "do_xcom_push": name == "plan",
        **RETRIES,
    }
    if what and what.each_hospital:
        given["map_index_template"] = "{{ task.hospital }}"
    if name in ALIASES:
        given["outlets"] = [AssetAlias(name=ALIASES[name].format(study=study.name))]
    # The plan is light, it reads the study's file where Airflow has it, and it alone hands
    # something on by XCom.
    if settings.launcher == "kubernetes" and name != "plan":
        from pod_step import PodStep

        operator: Any = PodStep
        limit = timedelta(seconds=start_limit(study) + work)
        given |= {"work_within": work, "execution_timeout": limit}
    else:
        operator = FedriskStep
        given["execution_timeout"] = timedelta(seconds=work + 2 * GRACE)
        # Each starts a JVM on Airflow's own machine.
        given["pool"] = "spark" if name in SPARK_STEPS else "default_pool"
    given |= arguments
    return operator.partial(**given) if each else operator(**given)


def _check(settings: Settings) -> None:
    """Refuse a launcher whose settings cannot work."""
    if settings.launcher == "kubernetes":
        from pod_manifest import check_launcher

        check_launcher(settings)
    elif settings.launcher == "compose":
        if not settings.store or settings.federation != "standing":
            raise SettingsError(
                "FEDRISK_LAUNCHER=compose: the containers share a run through the store and train "
                "on the standing federation; set FEDRISK_STORE=s3://bucket and "
                "FEDRISK_FEDERATION=standing."
            )
    elif settings.launcher != "process":
        raise SettingsError(
            f"FEDRISK_LAUNCHER={settings.launcher}: the DAGs know process, compose and kubernetes."
        )
