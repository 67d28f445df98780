"""One model's figures over hospitals, from what each hospital's ``score`` step let out.

AUROC, AUPRC and the calibration's slope come from the summed histograms; means (Brier score,
accuracy, mean predicted and observed risk) are exact, for means of hospitals add up by rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks.evaluate.resampling import Resamples, interval
from tasks.evaluate.results import (
    CalibrationFigures,
    ConfusionCounts,
    ModelSummary,
    StratumFigures,
    TestFigures,
)
from tasks.model.counted import Metric
from tasks.model.forward import sigmoid
from tasks.model.histogram import CENTRES, ScoreHistogram, summed
from tasks.model.scores import STRATA, Scores
from tasks.study import Strata


def histograms(scores: Mapping[str, Scores]) -> dict[str, ScoreHistogram]:
    """Each hospital's histogram of one model."""
    return {name: own.histogram.dense() for name, own in scores.items()}


def summarize(
    scores: Mapping[str, Scores], strata: Strata, resamples: Resamples, confidence: float
) -> ModelSummary:
    """Summarize one model.

    Args:
        scores: By hospital, at least one.
        strata: The study's bounds, for strata with a count too small to have left its hospital.
        resamples: Of this model.
        confidence: Of the intervals.
    """
    parts = histograms(scores)
    pooled = summed(parts.values())
    per_hospital = {name: at_one(own) for name, own in scores.items()}
    aurocs = [own.auroc for own in scores.values() if own.auroc is not None]
    thresholds = {own.threshold for own in scores.values()}
    confusion = _confusion(scores, parts)
    calibration = pooled.calibration()
    ranges = {metric: interval(values, confidence) for metric, values in resamples.pooled.items()}
    return ModelSummary(
        rows=sum(own.rows for own in scores.values()),
        positives=pooled.positives,
        threshold=thresholds.pop() if len(thresholds) == 1 else None,
        auroc=pooled.auroc(),
        auroc_ci=ranges.get(Metric.AUROC),
        auprc=pooled.auprc(),
        auprc_ci=ranges.get(Metric.AUPRC),
        brier=_mean(scores, "brier"),
        brier_ci=ranges.get(Metric.BRIER),
        accuracy=_mean(scores, "accuracy"),
        confusion=confusion,
        **_rates(confusion),
        calibration=CalibrationFigures(
            slope=calibration.slope if calibration else None,
            intercept=calibration.intercept if calibration else None,
            mean_predicted=_mean(scores, "mean_predicted"),
            observed=_mean(scores, "observed"),
        ),
        strata=_strata(scores, pooled, strata),
        auroc_within=float(np.mean(aurocs)) if aurocs else None,
        auroc_within_ci=interval(resamples.within, confidence),
        spread=max(aurocs) - min(aurocs) if len(aurocs) > 1 else None,
        per_hospital=per_hospital,
    )


def at_one(own: Scores) -> TestFigures:
    """One hospital's own figures, which it computed from its rows.

    Args:
        own: What left the hospital.
    """
    kept = own.model_dump(
        include={
            *("rows", "positives", "threshold", "auroc", "auroc_ci", "auprc", "auprc_ci"),
            *("brier", "brier_ci", "accuracy", "precision", "recall", "f1"),
        }
    )
    return TestFigures(
        **kept,
        confusion=ConfusionCounts(**own.confusion.model_dump()),
        calibration=CalibrationFigures(
            slope=own.calibration_slope,
            intercept=own.calibration_intercept,
            mean_predicted=own.mean_predicted,
            observed=own.observed,
        ),
        strata={
            name: StratumFigures(
                rows=one.rows,
                positives=round(one.rows * one.observed)
                if one.rows and one.observed is not None
                else None,
                observed=one.observed,
            )
            for name, one in own.strata.items()
        },
    )


def _mean(scores: Mapping[str, Scores], key: str) -> float | None:
    """Mean over patients of a figure that is a mean over patients in each hospital."""
    pairs = [(getattr(own, key), own.rows) for own in scores.values() if own.rows]
    known = [(value, rows) for value, rows in pairs if value is not None]
    if not known or len(known) < len(pairs):
        return None
    return float(sum(value * rows for value, rows in known) / sum(rows for _, rows in known))


def _confusion(
    scores: Mapping[str, Scores], parts: Mapping[str, ScoreHistogram]
) -> ConfusionCounts:
    """Sum of the hospitals' counts; where one hid a small count, its histogram's stands in."""
    total = dict.fromkeys(("tn", "fp", "fn", "tp"), 0)
    for name, own in scores.items():
        counts = own.confusion.model_dump()
        if None in counts.values():
            counts = parts[name].confusion(own.threshold).model_dump()
        for key in total:
            total[key] += counts[key]
    return ConfusionCounts(**total)


def _rates(confusion: ConfusionCounts) -> dict[str, float | None]:
    tp, fp, fn = confusion.tp or 0, confusion.fp or 0, confusion.fn or 0
    return {
        "precision": tp / (tp + fp) if tp + fp else None,
        "recall": tp / (tp + fn) if tp + fn else None,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
    }


def _strata(
    scores: Mapping[str, Scores], pooled: ScoreHistogram, strata: Strata
) -> dict[str, StratumFigures]:
    risk = sigmoid(CENTRES)
    place = (risk >= strata.medium).astype(int) + (risk >= strata.high)
    found = {}
    for number, name in enumerate(STRATA):
        own = [one.strata[name] for one in scores.values() if name in one.strata]
        if any(one.rows is None for one in own):
            negatives, positives = pooled.counts[:, place == number].sum(axis=1)
            rows, hits = int(negatives + positives), int(positives)
        else:
            rows = sum(one.rows or 0 for one in own)
            hits = round(sum((one.rows or 0) * (one.observed or 0.0) for one in own))
        observed = hits / rows if rows else None
        found[name] = StratumFigures(rows=rows, positives=hits, observed=observed)
    return found
