"""Log a run's manifests to MLflow; the call is idempotent.

Steps are separate processes that write manifests. This module reads all of them together, so that
a few steps of a run import MLflow and not every hospital's. A tag holds the digest of each logged
manifest, so a second call adds nothing.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime
from typing import TYPE_CHECKING

from tasks.run.folder import RunFolder
from tasks.run.manifest import Manifest
from tasks.run.plan import Plan, read_plan
from tasks.settings import Settings
from tasks.telemetry.figures import metrics_of, part_of, round_metrics, test_metrics
from tasks.telemetry.round_event import RoundEvent, read_events
from tasks.telemetry.tracking import client, mlflow_errors, open_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

log = logging.getLogger(__name__)
_BATCH = 900  # MLflow takes at most 1000 metrics at once
SUMMARIES = ("central", "reference", "published", "federated", "champion", "local_only")


def sync(run: RunFolder, settings: Settings, *, finished: bool = False) -> str:
    """Log all manifests of a run that are not logged yet.

    Table versions become datasets; row counts, data quality, preprocessing, importance, rounds
    and test results become metrics; reports and charts become artifacts. Each trained model is a
    child run of the fedrisk run.

    Args:
        run: The run's folder with its plan.
        settings: Where MLflow is.
        finished: Whether the run is complete, so that the MLflow runs are closed.

    Returns:
        The MLflow run's id.

    Raises:
        TrackingError: MLflow does not answer.
    """
    plan = read_plan(run)
    connected = client(settings)
    whole = open_run(connected, plan, settings)
    with mlflow_errors(settings, f"log run {run.run}"):
        logged = dict(connected.get_run(whole).data.tags)
        parts = {}
        for manifest in run.manifests():
            part = part_of(manifest)
            if part:
                parts[part] = open_run(connected, plan, settings, part)
            tag = _tag(manifest)
            digest = hashlib.sha256(manifest.model_dump_json().encode()).hexdigest()[:16]
            if logged.get(tag) == digest:
                continue
            _log(connected, manifest, parts.get(part or "", whole), run)
            connected.log_inputs(whole, _datasets(manifest))
            if manifest.step == "federated":
                log_rounds(connected, parts["federated"], _events(run, manifest), manifest.started)
            if manifest.step == "evaluate":
                _log_tests(connected, manifest, whole, parts)
            connected.set_tag(whole, tag, digest)
        if finished:
            for identifier in (*parts.values(), whole):
                connected.set_terminated(identifier, "FINISHED")
    return whole


def describe(connected: MlflowClient, identifier: str, plan: Plan) -> None:
    """Log a run's inputs: parameters, the frozen study and its features.

    Args:
        connected: From ``tracking.client``.
        identifier: The MLflow run's id.
        plan: The run's plan.
    """
    from mlflow.entities import Param

    study = plan.study
    asked = {
        "study": study.name,
        "study_digest": study.digest(),
        "source": plan.source_name,
        "hospitals": ",".join(plan.hospitals),
        "overrides": " ".join(plan.overrides) or "none",
        "promote": plan.promote,
        "pooling": study.pooling,
        "seed": study.seed,
        "features": len(study.features),
    }
    for prefix in ("model", "federation", "split"):
        for key, value in getattr(study, prefix).model_dump(mode="json").items():
            if prefix != "split" or key != "key":
                asked[f"{prefix}.{key}"] = value
    params = [Param(key, str(value)[:6000]) for key, value in asked.items()]
    connected.log_batch(identifier, params=params)
    connected.log_dict(identifier, study.model_dump(mode="json"), "study.json")
    features = [feature.model_dump(mode="json") for feature in study.features]
    connected.log_dict(identifier, {"features": features}, "features.json")


def log_rounds(
    connected: MlflowClient, identifier: str, events: list[RoundEvent], started: str
) -> None:
    """Log rounds with ``step`` = the round, except those that were logged live.

    Args:
        connected: From ``tracking.client``.
        identifier: The federated model's MLflow run.
        events: The rounds, in order.
        started: Start of training, ISO 8601; a round's time is this plus the seconds up to its end.
    """
    from mlflow.entities import Metric

    there = {point.step for point in connected.get_metric_history(identifier, "round/seconds")}
    clock, points = _milliseconds(started), []
    for event in events:
        clock += int(event.seconds * 1000)
        if event.round not in there:
            points += [
                Metric(name, value, clock, event.round)
                for name, value in round_metrics(event).items()
            ]
    for start in range(0, len(points), _BATCH):
        connected.log_batch(identifier, metrics=points[start : start + _BATCH])


def log_metrics(
    connected: MlflowClient, identifier: str, values: dict[str, float], started: str
) -> None:
    """Log numbers with one timestamp, so that logging them again adds nothing.

    Args:
        connected: From ``tracking.client``.
        identifier: The MLflow run.
        values: Numbers by name.
        started: Their time, ISO 8601.
    """
    from mlflow.entities import Metric

    clock = _milliseconds(started)
    points = [Metric(name, value, clock, 0) for name, value in values.items()]
    for start in range(0, len(points), _BATCH):
        connected.log_batch(identifier, metrics=points[start : start + _BATCH])


def _log(connected: MlflowClient, manifest: Manifest, identifier: str, run: RunFolder) -> None:
    log_metrics(connected, identifier, metrics_of(manifest), manifest.started)
    name = _tag(manifest).removeprefix("fedrisk.logged.")
    connected.log_dict(identifier, manifest.model_dump(mode="json"), f"manifests/{name}.json")
    for purpose, file in manifest.files.items():
        path = run.path / file
        # Data Docs belong to the hospital, and raw tables never leave it.
        if manifest.step in ("deal", "collect", "validate", "features", "score"):
            continue
        if path.is_dir():
            connected.log_artifacts(identifier, str(path), f"{manifest.step}/{purpose}")
        elif path.is_file():
            connected.log_artifact(identifier, str(path), manifest.step)


def _log_tests(
    connected: MlflowClient, manifest: Manifest, whole: str, parts: dict[str, str]
) -> None:
    figures = manifest.figures
    summaries = {key: figures.get(key) for key in SUMMARIES}
    summaries |= {f"local:{name}": own for name, own in (figures.get("local") or {}).items()}
    for key, summary in summaries.items():
        if not summary:
            continue
        metrics = test_metrics(summary)
        if key in parts:
            log_metrics(connected, parts[key], metrics, manifest.started)
        under = f"test/{key.replace(':', '.')}/"
        chosen = {under + name.removeprefix("test/"): value for name, value in metrics.items()}
        log_metrics(connected, whole, chosen, manifest.started)


def _datasets(manifest: Manifest) -> list[DatasetInput]:
    from mlflow.data.delta_dataset_source import DeltaDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag

    found = []
    for layer, table in manifest.tables.items():
        if manifest.hospital is None:
            continue
        source = DeltaDatasetSource(path=table.uri, delta_table_version=table.version)
        name = f"{manifest.study}.{manifest.hospital}.{layer}"
        dataset = MetaDataset(source, name=name, digest=f"v{table.version}")
        context = InputTag("mlflow.data.context", f"{manifest.step}.{layer}")
        found.append(DatasetInput(dataset._to_mlflow_entity(), [context]))
    return found


def _events(run: RunFolder, manifest: Manifest) -> list[RoundEvent]:
    path = manifest.files.get("rounds", f"files/{manifest.step}/rounds.jsonl")
    return read_events(run.path / path)


def _tag(manifest: Manifest) -> str:
    own = f".{manifest.hospital}" if manifest.hospital else ""
    return f"fedrisk.logged.{manifest.step}{own}"


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)
