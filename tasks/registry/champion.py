"""Step ``champion``: open the run in MLflow, and fetch the model that is champion now.

The champion is fetched before anything is trained, so that the run competes with the one model
that was in use when it began, on the same test rows.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import DataError
from tasks.files import write_atomically
from tasks.model.artifact import RiskModel
from tasks.run.step import Context, Result
from tasks.telemetry.sync import describe
from tasks.telemetry.tracking import client, mlflow_errors, open_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous_champion"
MODEL_FILE = "model.safetensors"


def registered_name(study: str) -> str:
    """The registry's name for a study's model."""
    return f"fedrisk-{study}"


def champion(context: Context) -> Result:
    """Open the MLflow run of this run and fetch the champion's model file.

    Args:
        context: The run; no hospital.

    Returns:
        Figures ``mlflow_run``, ``version`` and ``run`` (the champion's; None without one) and the
        file ``model`` where the champion has the study's features.

    Raises:
        TrackingError: MLflow does not answer.
    """
    connected = client(context.settings)
    identifier = open_run(connected, context.plan, context.settings)
    with mlflow_errors(context.settings, f"look up the champion of {context.study.name}"):
        describe(connected, identifier, context.plan)
        version = aliased(connected, registered_name(context.study.name), CHAMPION)
        figures = {
            "mlflow_run": identifier,
            "version": int(version.version) if version else None,
            "run": version.tags.get("fedrisk.run") if version else None,
        }
        if version is None:
            return Result(figures=figures, notes=["There is no champion yet."])
        content = fetched(connected, version)
    model = RiskModel.from_bytes(content, f"version {version.version}")
    wanted = tuple(feature.name for feature in context.study.features)
    if model.features != wanted:
        note = (
            f"The champion, version {version.version}, has {len(model.features)} features that are "
            f"not the study's {len(wanted)}; it cannot be compared."
        )
        return Result(figures=figures, notes=[note])
    path = context.run.folder("champion") / MODEL_FILE
    write_atomically(path, content)
    return Result(figures=figures, files={"model": context.run.relative(path)})


def aliased(connected: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that an alias of a registered model points at, or None.

    Args:
        connected: From ``tracking.client``.
        name: The registered model; it need not exist.
        alias: Such as ``champion``.
    """
    from mlflow.exceptions import MlflowException

    try:
        return connected.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def fetched(connected: MlflowClient, version: ModelVersion) -> bytes:
    """The bytes of a registered version's ``model.safetensors``.

    Raises:
        DataError: The version's artifacts hold no such file.
    """
    from mlflow.artifacts import download_artifacts

    place = connected.get_model_version_download_uri(version.name, version.version)
    folder = Path(tempfile.mkdtemp(prefix="fedrisk-champion-"))
    try:
        got = Path(
            download_artifacts(f"{place.rstrip('/')}/artifacts/{MODEL_FILE}", dst_path=str(folder))
        )
        return got.read_bytes()
    except OSError as error:
        raise DataError(
            f"{version.name} version {version.version}: no file artifacts/{MODEL_FILE} at {place}. "
            "The artifact store has lost it: point the alias champion at a version that is whole."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
