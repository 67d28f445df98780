"""What a step's ending means to Airflow: success with assets, retry, failure or skip."""

from __future__ import annotations

from typing import Any

from airflow.configuration import conf
from airflow.sdk import Asset
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
)

from tasks.errors import ExitCode
from tasks.launch.pods import airflow_id
from tasks.run.ending import Ending
from tasks.run.folder import RunFolder

NO_RETRY = frozenset({ExitCode.BAD_INPUT, ExitCode.REFUSED})
"""Exit codes after which the same step would end the same way."""


def this_airflow() -> str:
    """A name for this Airflow, by which its pods are found again."""
    return airflow_id(conf.get("core", "fernet_key", fallback=""))


def emit_assets(task: Any, folder: RunFolder, context: Any) -> None:
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
        AirflowFailException: The exit code means that a retry is useless.
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
