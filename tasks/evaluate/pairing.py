"""How far the AUROCs of two models on the same patients move together, and what follows from it.

Histograms of two models do not say which patient is which, so an interval from them alone takes
the models for independent and is several times too wide. Beside its histograms a hospital
therefore releases the correlation of the two models' placement values, and the covariance of the
summed AUROCs follows from both (DeLong et al. 1988). A patient's placement value is the share of
the patients of the other label that the model puts on the right side of this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tasks.evaluate.results import Difference, Interval
from tasks.model.histogram import ScoreHistogram, summed

RESOLUTION = 0.05
"""Correlations are rounded down to a multiple of this: up, .98 would be 1 and the interval gone."""

Floats = NDArray[np.float64]
Histograms = Mapping[str, ScoreHistogram]


class Correlation(BaseModel):
    """Correlation of two models' placement values at one hospital, by the patients' label."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    negatives: float
    positives: float


Correlations = Mapping[str, Correlation]
"""By hospital."""


def correlation(
    y: NDArray[np.float32], ours: Floats, theirs: Floats, min_count: int
) -> Correlation | None:
    """What a hospital releases of two models on its rows.

    Args:
        y: Labels, shape (n,).
        ours: Scores of the one model, shape (n,); anything that rises with risk.
        theirs: Scores of the other, likewise.
        min_count: The fewest patients of a group that may leave the hospital.

    Returns:
        None where a label has fewer than twice ``min_count`` patients, or a model places all
        patients of a label alike.
    """
    sick = y > 0.5
    if min(int(sick.sum()), int((~sick).sum())) < 2 * min_count:
        return None
    found = []
    for own in (~sick, sick):
        a, b = (_placements(score[own], score[~own]) for score in (ours, theirs))
        spread = float(a.std() * b.std())
        if spread == 0.0:
            return None
        exact = float(np.mean((a - a.mean()) * (b - b.mean()))) / spread
        # Equal scores have 1 but for the last digit.
        found.append(round(float(np.floor(exact / RESOLUTION + 1e-9)) * RESOLUTION, 2))
    return Correlation(negatives=found[0], positives=found[1])


def ratio(
    ours: Histograms, theirs: Histograms, correlations: Correlations, confidence: float
) -> Difference | None:
    """One model's AUROC as a share of another's, on the patients of all hospitals together.

    Args:
        ours: Histograms of the one model, by hospital.
        theirs: Of the other model, of the same patients.
        correlations: Of the hospitals that have released one.
        confidence: Of the interval, such as 0.95.

    Returns:
        None where one of the two is undefined or the other is 0.
    """
    found = _aurocs(ours, theirs)
    if found is None or not found[1]:
        return None
    a, b = found
    slope = np.array([1 / b, -a / b**2])
    return _compared(a / b, slope, ours, theirs, correlations, confidence)


def difference(
    ours: Histograms, theirs: Histograms, correlations: Correlations, confidence: float
) -> Difference | None:
    """One model's AUROC less another's; see ``ratio``."""
    found = _aurocs(ours, theirs)
    if found is None:
        return None
    slope = np.array([1.0, -1.0])
    return _compared(found[0] - found[1], slope, ours, theirs, correlations, confidence)


def covariance(ours: Histograms, theirs: Histograms, correlations: Correlations) -> Floats | None:
    """Covariance of the two models' pooled AUROCs, shape (2, 2); see ``ratio``.

    Sums over patients are split into those between the hospitals' means, which histograms give
    exactly, and those within a hospital, where its correlation stands for what histograms do not
    say. Without one it counts as 0, so that the interval is too wide and never too narrow.

    Returns:
        None with fewer than two patients of a label.
    """
    pooled = [summed(model.values()).counts for model in (ours, theirs)]
    total = pooled[0].sum(axis=1)
    if total.min() < 2:
        return None
    found = np.zeros((2, 2))
    for label in (0, 1):
        # Below, for negatives too: that only turns the sign of both models' deviations.
        values = [_below(counts[1 - label]) for counts in pooled]
        centre = [float(v @ c[label]) / total[label] for v, c in zip(values, pooled, strict=True)]
        products = np.zeros((2, 2))
        for name in ours:
            counts = [model[name].counts[label] for model in (ours, theirs)]
            rows = int(counts[0].sum())
            if not rows:
                continue
            mean = [float(v @ c) / rows for v, c in zip(values, counts, strict=True)]
            apart = np.subtract(mean, centre)
            spread = np.array(
                [float((v - m) ** 2 @ c) for v, m, c in zip(values, mean, counts, strict=True)]
            )
            own = correlations.get(name)
            shared = (own.positives if label else own.negatives) if own else 0.0
            within = np.sqrt(np.outer(spread, spread)) * np.array([[1, shared], [shared, 1]])
            products += within + rows * np.outer(apart, apart)
        found += products / (total[label] - 1) / total[label]
    return found


def _compared(
    value: float,
    slope: Floats,
    ours: Histograms,
    theirs: Histograms,
    correlations: Correlations,
    confidence: float,
) -> Difference:
    """A function of two AUROCs and its interval by the delta method."""
    found = covariance(ours, theirs, correlations)
    interval: Interval | None = None
    if found is not None:
        error = float(np.sqrt(max(float(slope @ found @ slope), 0.0)))
        reach = NormalDist().inv_cdf(0.5 + confidence / 2) * error
        interval = (value - reach, value + reach)
    unpaired = [name for name, one in ours.items() if one.rows and name not in correlations]
    return Difference(value=value, ci=interval, unpaired=unpaired)


def _aurocs(ours: Histograms, theirs: Histograms) -> tuple[float, float] | None:
    a, b = (summed(model.values()).auroc() for model in (ours, theirs))
    return None if a is None or b is None else (a, b)


def _placements(own: Floats, others: Floats) -> Floats:
    """Share of ``others`` below each of ``own``, ties as half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")
    return np.asarray(below / (2 * len(others)))


def _below(counts: NDArray[np.int64]) -> Floats:
    """Share of the counted patients below each cell, those in it as half."""
    return np.asarray((np.cumsum(counts) - counts / 2) / counts.sum())
