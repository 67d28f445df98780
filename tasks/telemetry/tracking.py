"""The MLflow tracking store of a home, with one MLflow run for each run of fedrisk.

Importing MLflow takes about 3 CPU-seconds, so only the steps ``champion``, ``evaluate`` and
``promote`` use this module, and no hospital's step.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from tasks.run.plan import Plan
from tasks.settings import Settings
from tasks.telemetry.database import TrackingError, exclusive, make

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_TAG = "fedrisk.run"
PART_TAG = "fedrisk.part"
WHOLE_RUN = "run"
"""The part name of the parent run, which represents the whole fedrisk run."""

_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # A server that does not answer must not block a step for minutes.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Otherwise it takes the working folder's lock file for the model's.
    "MLFLOW_UV_AUTO_DETECT": "false",
}


@contextmanager
def mlflow_errors(settings: Settings, doing: str) -> Iterator[None]:
    """Translate MLflow's exceptions into an error that names the server and the operation.

    Args:
        settings: Where MLflow is.
        doing: The operation, for the message.

    Raises:
        TrackingError: MLflow raised.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError) as error:
        first = re.sub(r"//[^/@\s]+@", "//", str(error).splitlines()[0])[:300]
        # Without the cause, whose text repeats the URI with its password.
        raise TrackingError(
            f"MLflow at {_shown(settings.tracking_uri)} failed to {doing}: {first} Check that it "
            "runs and that FEDRISK_MLFLOW_URI is right, then run the step again."
        ) from None


def client(settings: Settings) -> MlflowClient:
    """Connect to the tracking store and the registry of a home.

    Telemetry is off. The process's global MLflow URIs are set too, for functions of MLflow that
    take no client. A missing database file is created, which takes 10-20 s.

    Args:
        settings: Where MLflow is.

    Raises:
        TrackingError: The database could not be created.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import mlflow

    # MLflow sets its log level when it is imported.
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)

    uri = settings.tracking_uri
    with mlflow_errors(settings, "create its database"):
        make(uri, (settings.home / "mlflow" / "artifacts").as_uri())
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def prepare(settings: Settings) -> None:
    """Create the tracking database if it is missing, and check that MLflow answers.

    Args:
        settings: Where MLflow is.

    Raises:
        TrackingError: MLflow does not answer.
    """
    connected = client(settings)
    with mlflow_errors(settings, "open its store"):
        connected.search_experiments(max_results=1)


def locked(settings: Settings) -> AbstractContextManager[None]:
    """Allow one process of this home at a time to create an experiment, a run or a version.

    Raises:
        TrackingError: Another process has held the lock for three minutes.
    """
    return exclusive(settings.home / "mlflow" / ".lock")


def open_run(connected: MlflowClient, plan: Plan, settings: Settings, part: str = WHOLE_RUN) -> str:
    """Find or create the MLflow run of a fedrisk run or of one part of it.

    The experiment's name is the study's, the run's name is the fedrisk run's id or the part's
    name, and the tags ``fedrisk.run`` and ``fedrisk.part`` identify it.

    Args:
        connected: From ``client``.
        plan: The fedrisk run's plan.
        settings: Where MLflow is.
        part: ``run`` for the whole run, else a model's key such as ``central`` or ``local:h1``.

    Returns:
        The MLflow run's id.

    Raises:
        TrackingError: MLflow does not answer.
    """
    with locked(settings), mlflow_errors(settings, f"open the run of {plan.run}"):
        return _open(connected, plan, settings, part)


def _open(connected: MlflowClient, plan: Plan, settings: Settings, part: str) -> str:
    experiment = _experiment(connected, plan.study.name, settings)
    wanted = f"tags.\"{RUN_TAG}\" = '{plan.run}' and tags.\"{PART_TAG}\" = '{part}'"
    # Oldest first: where two machines created one each, all use the same.
    found = connected.search_runs(
        [experiment], wanted, order_by=["attributes.start_time ASC"], max_results=1
    )
    if found:
        return str(found[0].info.run_id)
    tags = {RUN_TAG: plan.run, PART_TAG: part, "fedrisk.study": plan.study.name}
    name = plan.run
    if part != WHOLE_RUN:
        tags["mlflow.parentRunId"] = _open(connected, plan, settings, WHOLE_RUN)
        name = part
    made = connected.create_run(experiment, tags=tags, run_name=name)
    return str(made.info.run_id)


def _experiment(connected: MlflowClient, name: str, settings: Settings) -> str:
    found = connected.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            connected.restore_experiment(found.experiment_id)
        return str(found.experiment_id)
    # A server chooses the location of its artifacts; a local store keeps them in the home.
    local = settings.tracking_uri.startswith("sqlite:")
    location = (settings.home / "mlflow" / "artifacts" / name).as_uri() if local else None
    return str(connected.create_experiment(name, artifact_location=location))


def _shown(uri: str) -> str:
    """A URI without credentials."""
    parts = urlparse(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
