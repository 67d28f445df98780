"""Bootstrap intervals of a model on several hospitals' test rows, from their histograms.

Each hospital's patients are drawn anew from its own, so that every resample has the hospitals'
real sizes; pooled figures and the mean of within-hospital AUROCs come from the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tasks.evaluate.results import Interval
from tasks.model.counted import Counted, Metric
from tasks.model.histogram import CENTRES, ScoreHistogram

Floats = NDArray[np.float64]


class Resamples:
    """Figures of a model in many resamples of its hospitals' test rows.

    Attributes:
        pooled: Per metric, the figure of all hospitals together, shape (n,); NaN where undefined.
        hospitals: Per hospital and metric, likewise.
        within: Mean of the hospitals' AUROCs, shape (n,).
    """

    def __init__(self, histograms: Mapping[str, ScoreHistogram], resamples: int, seed: int) -> None:
        """Draw.

        Args:
            histograms: Of one model, by hospital; those without patients are left out.
            resamples: How many.
            seed: Of the draws.
        """
        held = {name: one for name, one in histograms.items() if one.rows}
        total = sum((one.counts for one in held.values()), np.zeros((2, len(CENTRES)), np.int64))
        cells = np.flatnonzero(total.sum(axis=0))
        generator = np.random.default_rng(seed)
        drawn = {
            name: _drawn(held[name].counts[:, cells], resamples, generator) for name in sorted(held)
        }
        self.pooled: dict[Metric, Floats] = {}
        self.hospitals: dict[str, dict[Metric, Floats]] = {}
        metrics = (Metric.AUROC, Metric.AUPRC, Metric.BRIER)
        logit = CENTRES[cells]
        if drawn:
            both = np.sum(list(drawn.values()), axis=0)
            counted = Counted(logit, both[:, 0], both[:, 1])
            self.pooled = {metric: counted.values(metric) for metric in metrics}
        for name, own in drawn.items():
            counted = Counted(logit, own[:, 0], own[:, 1])
            self.hospitals[name] = {metric: counted.values(metric) for metric in metrics}
        # A hospital whose sample lacks a class has no AUROC and is not in the mean.
        judged = [
            self.hospitals[name][Metric.AUROC]
            for name, one in sorted(held.items())
            if one.auroc() is not None
        ]
        self.within: Floats = np.mean(judged, axis=0) if judged else np.full(resamples, np.nan)


def interval(values: Floats, confidence: float) -> Interval | None:
    """A percentile interval; resamples in which the figure is undefined are left out.

    Args:
        values: The figure in each resample.
        confidence: Such as 0.95.

    Returns:
        Low and high; None if fewer than half of the resamples have the figure.
    """
    known = values[np.isfinite(values)]
    if len(known) * 2 < len(values) or not len(known):
        return None
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(known, [tail, 100 - tail])
    return float(low), float(high)


def _drawn(counts: NDArray[np.int64], resamples: int, generator: np.random.Generator) -> Floats:
    """Draw a hospital's patients with replacement; shape (resamples, 2, cells)."""
    flat = counts.ravel()
    kept = np.flatnonzero(flat)
    rows = int(flat.sum())
    found = np.zeros((resamples, flat.size))
    found[:, kept] = generator.multinomial(rows, flat[kept] / rows, size=resamples)
    return found.reshape(resamples, *counts.shape)
