"""Metrics of counted scores: patients by score and label.

Rows are the case of one patient a score, histograms that of many, and a bootstrap resample is
other counts of the same scores; so each metric is written once, for counts with any number of
resamples in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from tasks.model.forward import sigmoid

Floats = NDArray[np.float64]
MOST_CELLS = 4_000_000
"""Counts of one piece of a bootstrap, to bound its memory at 100 MB."""


class Metric(StrEnum):
    """Metrics that have an interval."""

    AUROC = "auroc"
    AUPRC = "auprc"
    BRIER = "brier"
    LOSS = "loss"


@dataclass(frozen=True)
class Calibration:
    """How predicted and observed risk agree (Van Calster et al. 2019).

    Attributes:
        slope: Slope of a logistic regression of the outcome on the logit; 1 is ideal, below 1 the
            risks are too extreme. None where a class is absent or the fit has no finite answer.
        intercept: Shift of the logit that makes the mean risk right, with slope 1; 0 is ideal,
            below 0 the risks are too high. None where a class is absent.
        mean_predicted: Mean risk.
        observed: Share of positives.
    """

    slope: float | None
    intercept: float | None
    mean_predicted: float
    observed: float


@dataclass(frozen=True)
class Counted:
    """Patients by score.

    Attributes:
        logit: Scores as log-odds, ascending, without repetition, shape (k,).
        negatives: Patients of label 0 at each score, shape (..., k).
        positives: Patients of label 1 at each score, shape (..., k).
    """

    logit: Floats
    negatives: Floats
    positives: Floats

    @classmethod
    def of(cls, y: NDArray[np.float32], logit: Floats) -> Counted:
        """Count rows.

        Args:
            y: Labels, shape (n,).
            logit: Scores, shape (n,).
        """
        scores, place = np.unique(logit, return_inverse=True)
        positives = np.bincount(place, weights=y, minlength=len(scores)).astype(np.float64)
        total = np.bincount(place, minlength=len(scores))
        return cls(scores, total - positives, positives)

    def values(self, metric: Metric) -> Floats:
        """One metric, over the last axis.

        Args:
            metric: Which one.

        Returns:
            Shape (...); NaN where it is undefined: AUROC without a negative or positive, AUPRC
            without a positive, Brier score and loss without rows.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            if metric is Metric.AUROC:
                return self._auroc()
            if metric is Metric.AUPRC:
                return self._auprc()
            risk = sigmoid(self.logit)
            if metric is Metric.BRIER:
                cost = self.positives @ (1 - risk) ** 2 + self.negatives @ risk**2
            else:
                cost = self.positives @ np.logaddexp(0, -self.logit)
                cost = cost + self.negatives @ np.logaddexp(0, self.logit)
            rows = self.positives.sum(axis=-1) + self.negatives.sum(axis=-1)
            return np.asarray(cost / rows)

    def value(self, metric: Metric) -> float | None:
        """One metric of unresampled counts, None where it is undefined."""
        found = float(self.values(metric))
        return found if np.isfinite(found) else None

    def _auroc(self) -> Floats:
        below = np.cumsum(self.negatives, axis=-1) - self.negatives / 2
        pairs = self.positives.sum(axis=-1) * self.negatives.sum(axis=-1)
        return np.asarray((self.positives * below).sum(axis=-1) / pairs)

    def _auprc(self) -> Floats:
        # Average precision: precision at each score, weighted by the recall gained there.
        positives, negatives = self.positives[..., ::-1], self.negatives[..., ::-1]
        hits = np.cumsum(positives, axis=-1)
        called = hits + np.cumsum(negatives, axis=-1)
        precision = hits / np.maximum(called, 1)
        return np.asarray((positives * precision).sum(axis=-1) / positives.sum(axis=-1))

    def calibration(self) -> Calibration | None:
        """Slope, intercept and means of unresampled counts; None without rows."""
        rows = float(self.positives.sum() + self.negatives.sum())
        if rows == 0:
            return None
        total = self.positives + self.negatives
        mean = float(total @ sigmoid(self.logit) / rows)
        observed = float(self.positives.sum() / rows)
        if observed in (0.0, 1.0):
            return Calibration(None, None, mean, observed)
        slope = _logistic(self, with_slope=True)[1]
        intercept = _logistic(self, with_slope=False)[0]
        return Calibration(
            slope if np.isfinite(slope) else None,
            intercept if np.isfinite(intercept) else None,
            mean,
            observed,
        )

    def intervals(
        self, metrics: Sequence[Metric], resamples: int, confidence: float, seed: int
    ) -> dict[Metric, tuple[float, float] | None]:
        """Percentile bootstrap intervals, all metrics from the same resamples.

        Patients are drawn with replacement, positives and negatives alike, so the number of
        positives varies as it would in another sample. Resamples in which a metric is undefined
        are left out of it.

        Args:
            metrics: Which ones.
            resamples: How many.
            confidence: Such as 0.95.
            seed: Of the draws.

        Returns:
            Low and high per metric; None where it is undefined in the sample itself.
        """
        cells = np.concatenate([self.negatives, self.positives])
        rows = int(cells.sum())
        found: dict[Metric, list[Floats]] = {metric: [] for metric in metrics}
        if rows == 0:
            return dict.fromkeys(metrics)
        generator = np.random.default_rng(seed)
        kept = np.flatnonzero(cells)
        piece = max(1, MOST_CELLS // len(cells))
        for start in range(0, resamples, piece):
            size = min(piece, resamples - start)
            drawn = np.zeros((size, len(cells)))
            drawn[:, kept] = generator.multinomial(rows, cells[kept] / rows, size=size)
            width = len(self.logit)
            again = Counted(self.logit, drawn[:, :width], drawn[:, width:])
            for metric in metrics:
                found[metric].append(again.values(metric))
        tail = 100 * (1 - confidence) / 2
        result: dict[Metric, tuple[float, float] | None] = {}
        for metric in metrics:
            values = np.concatenate(found[metric])
            values = values[np.isfinite(values)]
            if self.value(metric) is None or not len(values):
                result[metric] = None
            else:
                low, high = np.percentile(values, [tail, 100 - tail])
                result[metric] = (float(low), float(high))
        return result


def _logistic(counted: Counted, *, with_slope: bool) -> tuple[float, float]:
    """Fit outcome ~ intercept + slope * logit, or intercept + logit, by damped Newton steps."""
    total = counted.positives + counted.negatives
    a, b = 0.0, 1.0
    for _ in range(100):
        p = sigmoid(a + b * counted.logit)
        residual = counted.positives - total * p
        weight = total * p * (1 - p)
        gradient = np.array([residual.sum(), (residual * counted.logit).sum()])
        w1 = float((weight * counted.logit).sum())
        w2 = float((weight * counted.logit**2).sum())
        hessian = np.array([[float(weight.sum()), w1], [w1, w2]])
        if with_slope:
            determinant = float(np.linalg.det(hessian))
            if not determinant > 1e-12:
                return float("nan"), float("nan")
            step = np.linalg.solve(hessian, gradient)
        else:
            step = np.array([gradient[0] / max(hessian[0, 0], 1e-12), 0.0])
        step = np.clip(step, -2.0, 2.0)
        a, b = a + float(step[0]), b + float(step[1])
        if abs(b) > 50 or abs(a) > 50:
            return float("nan"), float("nan")
        if float(np.abs(step).max()) < 1e-9:
            return a, b
    return float("nan"), float("nan")
