"""Step ``champion``: open the run in MLflow, and fetch the model that is champion now.

The champion is fetched before anything is trained, so that the run competes with the one model
that was in use when it began, on the same test rows.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import DataError
from tasks.files import write_atomically
from tasks.model.artifact import RiskModel
from tasks.registry.comparable import differences, source_kind
from tasks.run.step import Context, Result
from tasks.telemetry.sync import describe
from tasks.telemetry.tracking import client, mlflow_errors, open_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous_champion"
MODEL_FILE, STUDY_FILE = "model.safetensors", "study.json"


def registered_name(study: str) -> str:
    """The registry's name for a study's model."""
    return f"fedrisk-{study}"


def champion(context: Context) -> Result:
    """Open the MLflow run of this run and fetch the champion's model file.

    Args:
        context: The run; no hospital.

    Returns:
        Figures ``mlflow_run``, ``version``, ``run`` and ``source`` (the champion's; None without
        one) and ``differs``: why it cannot be compared. File ``model`` where it can.

    Raises:
        TrackingError: MLflow does not answer.
    """
    connected = client(context.settings)
    identifier = open_run(connected, context.plan, context.settings)
    with mlflow_errors(context.settings, f"look up the champion of {context.study.name}"):
        describe(connected, identifier, context.plan)
        version = aliased(connected, registered_name(context.study.name), CHAMPION)
        figures: dict[str, Any] = {"mlflow_run": identifier}
        figures |= dict.fromkeys(("version", "run", "source"))
        if version is None:
            return Result(figures=figures, notes=["There is no champion yet."])
        # In the package of a version of any age; its MLflow run has always had the source.
        study = json.loads(fetched(connected, version, STUDY_FILE))
        source = connected.get_run(version.run_id).data.params.get("source", "")
        content = fetched(connected, version, MODEL_FILE)
    kind = source_kind(study, source)
    differs = differences(study, kind, context.plan)
    features = RiskModel.from_bytes(content, f"version {version.version}").features
    if not differs and features != tuple(feature.name for feature in context.study.features):
        differs = ["other features"]
    figures |= {"version": int(version.version), "run": version.tags.get("fedrisk.run")}
    figures |= {"source": kind, "differs": differs}
    if differs:
        note = f"The champion, version {version.version}, is not comparable: {', '.join(differs)}."
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


def fetched(connected: MlflowClient, version: ModelVersion, name: str) -> bytes:
    """The bytes of a file in a registered version's package.

    Raises:
        DataError: The version's artifacts hold no such file.
    """
    from mlflow.artifacts import download_artifacts

    place = connected.get_model_version_download_uri(version.name, version.version)
    folder = Path(tempfile.mkdtemp(prefix="fedrisk-champion-"))
    try:
        got = Path(
            download_artifacts(f"{place.rstrip('/')}/artifacts/{name}", dst_path=str(folder))
        )
        return got.read_bytes()
    except OSError as error:
        raise DataError(
            f"{version.name} version {version.version}: no file artifacts/{name} at {place}. "
            "The artifact store has lost it: point the alias champion at a version that is whole."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
