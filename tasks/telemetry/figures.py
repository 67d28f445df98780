"""Select the metrics of a manifest: names and numbers, without MLflow."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from tasks.run.manifest import Manifest
from tasks.telemetry.round_event import RoundEvent

TRAINED = ("reference", "central", "local", "federated")
"""Steps that train a model; each is a child run of the fedrisk run in MLflow."""

_KEPT: dict[str, tuple[str, ...]] = {
    "deal": ("rows", "positives", "hospitals", "scale", "oracle_auroc"),
    "collect": ("rows",),
    "validate": (
        *("rows_in", "rows", "positives", "quarantined", "reasons", "missing"),
        *("target_rate", "target_rate_before", "expectations"),
    ),
    "features": ("rows", "positives", "parts", "features"),
    "evaluate": ("rounds", "best_round", "rounds_to_99", "bytes_up", "bytes_down", "ratio"),
    **dict.fromkeys(
        TRAINED,
        (
            *("validation", "threshold", "epochs", "rounds", "best_round", "importance"),
            *("bytes_up", "bytes_down", "participation", "intercepts"),
        ),
    ),
}
_SUMMARY = (
    *("auroc", "auroc_ci", "auprc", "brier", "accuracy", "precision", "recall", "f1"),
    *("auroc_within", "spread", "calibration"),
)


def part_of(manifest: Manifest) -> str | None:
    """The key of the model that a step trained, such as ``local:h1``; None for other steps."""
    if manifest.step not in TRAINED:
        return None
    return f"local:{manifest.hospital}" if manifest.step == "local" else manifest.step


def metrics_of(manifest: Manifest) -> dict[str, float]:
    """The numbers of a manifest that become metrics.

    Args:
        manifest: The manifest of any step.

    Returns:
        Values by metric name in MLflow's alphabet, grouped by ``/``. Those of a trained model have
        no prefix; all others start with the step and the hospital.
    """
    prefix = [] if part_of(manifest) else [manifest.step]
    prefix += [manifest.hospital] if manifest.hospital and prefix else []
    found = {_name([*prefix, "seconds"]): manifest.seconds}
    for key in _KEPT.get(manifest.step, ()):
        for path, value in _numbers(manifest.figures.get(key)):
            found[_name([*prefix, key, *path])] = value
    return found


def test_metrics(summary: dict[str, Any]) -> dict[str, float]:
    """The metrics of one model's summary on test rows, from the manifest of ``evaluate``."""
    found = {}
    for key in _SUMMARY:
        for path, value in _numbers(summary.get(key)):
            found[_name(["test", key, *path])] = value
    for hospital, own in (summary.get("per_hospital") or {}).items():
        for key in ("auroc", "brier"):
            for path, value in _numbers(own.get(key)):
                found[_name(["test", hospital, key, *path])] = value
    return found


def round_metrics(event: RoundEvent) -> dict[str, float]:
    """The metrics of one round."""
    found: dict[str, float | None] = {
        "round/seconds": event.seconds,
        "round/train_loss": event.train_loss,
        "round/validation_loss": event.validation_loss,
        "round/validation_auroc": event.validation_auroc,
        "round/bytes_up": event.bytes_up,
        "round/bytes_down": event.bytes_down,
        "round/learning_rate": event.learning_rate,
        "round/update_norm": event.update_norm,
        "round/selected": len(event.selected),
        "round/replied": len(event.replied),
        "round/lost": len(event.lost),
    }
    for hospital in event.selected:
        found[_name(["participation", hospital])] = float(hospital in event.replied)
    for hospital, weight in event.weights.items():
        found[_name(["weight", hospital])] = weight
    for hospital, loss in event.hospital_loss.items():
        found[_name(["validation_loss", hospital])] = loss
    return {
        name: float(value)
        for name, value in found.items()
        if value is not None and math.isfinite(value)
    }


def _numbers(value: Any) -> Iterator[tuple[list[str], float]]:
    if isinstance(value, bool):
        yield [], float(value)
    elif isinstance(value, int | float):
        if math.isfinite(value):
            yield [], float(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            for path, number in _numbers(inner):
                yield [str(key), *path], number
    elif isinstance(value, list) and len(value) == 2:
        for key, inner in zip(("low", "high"), value, strict=True):
            for path, number in _numbers(inner):
                yield [key, *path], number


def _name(parts: list[str]) -> str:
    return re.sub(r"[^\w\-. /]", "_", "/".join(parts), flags=re.ASCII)[:240]
