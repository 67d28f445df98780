"""Step ``promote``: judge the federated model, and make it champion if every gate lets it.

The gates' verdicts are written before anything else, so that a failed gate leaves its reason and
nothing in the registry.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import GateFailed
from tasks.evaluate.report.report import write_report
from tasks.evaluate.results import Comparison
from tasks.files import write_atomically
from tasks.registry.champion import CHALLENGER, CHAMPION, PREVIOUS, aliased, registered_name
from tasks.registry.gates import Gate, failures, judge
from tasks.registry.packaging import log_model
from tasks.registry.versions import crown, register
from tasks.run.step import Context, Result
from tasks.telemetry.database import TrackingError
from tasks.telemetry.sync import log_metrics, sync
from tasks.telemetry.tracking import client, locked, mlflow_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


def promote(context: Context) -> Result:
    """Judge, register and crown.

    Args:
        context: The run; no hospital.

    Returns:
        Figures ``gates``, ``model_version``, ``champion`` (whether this run's model is champion),
        ``previous`` (the version before it) and ``mlflow_run``; file ``gates``.

    Raises:
        GateFailed: A gate failed; nothing is registered and no alias moves.
        TrackingError: MLflow does not answer.
    """
    comparison = Comparison.model_validate(context.run.read("evaluate").figures)
    gates = judge(comparison, context.study.gates)
    passed = all(gate.passed for gate in gates)
    path = _write_gates(context, gates, passed)
    write_report(context, comparison, [gate.model_dump() for gate in gates])
    if not passed:
        _log_failure(context, gates)
        raise GateFailed(
            f"run {context.run.run}: the federated model is not promoted. {failures(gates)} "
            "Nothing was registered; the champion is as before."
        )
    figures, notes = _registered(context, gates)
    figures["gates"] = [gate.model_dump(mode="json") for gate in gates]
    return Result(figures=figures, files={"gates": context.run.relative(path)}, notes=notes)


def _write_gates(context: Context, gates: list[Gate], passed: bool) -> Path:
    path = context.run.folder("promote") / "gates.json"
    judged = [gate.model_dump(mode="json") for gate in gates]
    content = {"run": context.run.run, "passed": passed, "gates": judged}
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")
    return path


def _log_failure(context: Context, gates: list[Gate]) -> None:
    """Log the verdict; a server that is down does not hide it."""
    try:
        identifier = sync(context.run, context.settings, finished=True)
        with mlflow_errors(context.settings, "log the gates"):
            _log_gates(client(context.settings), identifier, context, gates)
    except TrackingError as error:
        log.warning("the failed gates could not be logged: %s", error)


def _log_gates(
    connected: MlflowClient, identifier: str, context: Context, gates: list[Gate]
) -> None:
    passed = all(gate.passed for gate in gates)
    connected.set_tag(identifier, "fedrisk.gates", "passed" if passed else "failed")
    for gate in gates:
        connected.set_tag(identifier, f"fedrisk.gate.{gate.name}", gate.detail[:4000])
    values = {f"gate/{gate.name}": gate.value for gate in gates if gate.value is not None}
    # The time of the evaluation, so that a second call adds no second point.
    log_metrics(connected, identifier, values, context.run.read("evaluate").started)
    for step, name in (("promote", "gates.json"), ("evaluate", "report.html")):
        connected.log_artifact(identifier, str(context.run.folder(step) / name), step)


def _registered(context: Context, gates: list[Gate]) -> tuple[dict[str, Any], list[str]]:
    settings, study, run = context.settings, context.study, context.run.run
    name, notes = registered_name(study.name), []
    trained = context.run.read("federated")
    began = context.run.read("champion").figures.get("version")
    identifier = sync(context.run, settings, finished=True)
    connected = client(settings)
    text = f"Federated model of {', '.join(context.plan.hospitals)}, run {run}. " + " ".join(
        gate.detail for gate in gates
    )
    with locked(settings), mlflow_errors(settings, f"register {name}"):
        _log_gates(connected, identifier, context, gates)
        file = context.run.path / trained.files["model"]
        uri = log_model(connected, identifier, run, study, file)
        version = register(connected, name, uri, identifier, run, text)
        connected.set_registered_model_alias(name, CHALLENGER, str(version))
        now = aliased(connected, name, CHAMPION)
        current = int(now.version) if now else None
        if not context.plan.promote:
            notes.append(f"Version {version} is challenger; promotion was not asked for.")
        elif current not in (began, version):
            notes.append(
                f"Version {version} is challenger only: version {current} became champion while "
                "this run was under way, and was not what it was judged against. Run it again."
            )
        else:
            crown(connected, name, version)
        after, previous = (aliased(connected, name, alias) for alias in (CHAMPION, PREVIOUS))
        connected.set_tag(identifier, "fedrisk.model_version", str(version))
    figures = {
        "mlflow_run": identifier,
        "model_name": name,
        "model_version": version,
        "champion": after is not None and int(after.version) == version,
        "champion_version": int(after.version) if after else None,
        "previous": int(previous.version) if previous else None,
    }
    return figures, notes
