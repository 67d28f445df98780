"""One step of a run as an Airflow task, for every launcher.

``step_task`` is the one place where a launcher becomes an operator: the DAGs name steps, hospitals
and rules only, so that another launcher changes no DAG.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import AssetAlias

from fedrisk_airflow.process_step import FedriskStep
from tasks.errors import SettingsError
from tasks.launch.process_tree import GRACE
from tasks.run.limits import start_limit
from tasks.run.steps import STEPS
from tasks.settings import Settings
from tasks.study import Study

RETRIES = {
    "retries": 2,
    "retry_delay": timedelta(seconds=5),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=2),
}


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
        settings: Name the launcher.
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
    if what and what.asset:
        given["outlets"] = [AssetAlias(name=what.asset.format(study=study.name))]
    # The plan is light, it reads the study's file where Airflow has it, and it alone
    # returns something by XCom.
    if settings.launcher == "kubernetes" and name != "plan":
        from fedrisk_airflow.kubernetes.operator import PodStep

        operator: Any = PodStep
        limit = timedelta(seconds=start_limit(study) + work)
        given |= {"work_within": work, "execution_timeout": limit}
    else:
        operator = FedriskStep
        given["execution_timeout"] = timedelta(seconds=work + 2 * GRACE)
        given["pool"] = what.pool if what else "default_pool"
    given |= arguments
    return operator.partial(**given) if each else operator(**given)


def _check(settings: Settings) -> None:
    """Refuse a launcher whose settings cannot work."""
    if settings.launcher == "kubernetes":
        from fedrisk_airflow.kubernetes.pod_spec import check_launcher

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
