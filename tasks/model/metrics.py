"""Metrics of rows: labels and risks, as arrays.

``counted`` has the formulas of all that needs no threshold; here are the decision metrics, which
do, and its choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tasks.model.counted import Counted, Metric
from tasks.model.forward import sigmoid

Labels = NDArray[np.float32]
Floats = NDArray[np.float64]
SMALLEST_RISK = 1e-9


def log_odds(probability: Floats) -> Floats:
    """Probability to log-odds, finite at 0 and 1.

    Args:
        probability: In 0..1, any shape.
    """
    p = np.clip(np.asarray(probability, dtype=np.float64), SMALLEST_RISK, 1 - SMALLEST_RISK)
    return np.asarray(np.log(p) - np.log1p(-p))


def auroc(y: Labels, score: Floats) -> float | None:
    """Area under the ROC curve, ties as half; None where a class is absent.

    Args:
        y: Labels, shape (n,).
        score: Anything that rises with risk, shape (n,).
    """
    return Counted.of(y, score).value(Metric.AUROC)


def log_loss(y: Labels, logit: Floats) -> float | None:
    """Mean cross entropy in nats; None without rows."""
    return float(np.mean(np.logaddexp(0, logit) - y * logit)) if len(y) else None


@dataclass(frozen=True)
class Decisions:
    """Patients by label and decision, exact."""

    tn: int
    fp: int
    fn: int
    tp: int

    @classmethod
    def of(cls, y: Labels, probability: Floats, threshold: float) -> Decisions:
        """Count decisions.

        Args:
            y: Labels, shape (n,).
            probability: Risks, shape (n,).
            threshold: Risk from which a patient counts as positive.
        """
        called, sick = probability >= threshold, y > 0.5
        return cls(
            tn=int((~called & ~sick).sum()),
            fp=int((called & ~sick).sum()),
            fn=int((~called & sick).sum()),
            tp=int((called & sick).sum()),
        )

    @property
    def accuracy(self) -> float | None:
        """Share of right decisions; None without rows."""
        return _share(self.tn + self.tp, self.tn + self.fp + self.fn + self.tp)

    @property
    def precision(self) -> float | None:
        """Share of positives among those called; None where nobody is called."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """Share of positives that are called; None without positives."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None without positives and calls."""
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)


def choose_threshold(counted: Counted, how: Literal["youden", "f1"]) -> float:
    """Choose the risk from which a patient counts as positive.

    The border lies half-way to the next lower score, so that it does not hang on one patient's
    digits.

    Args:
        counted: Validation rows, or a summed histogram of them.
        how: ``youden`` maximises recall less false positive rate (Youden 1950), ``f1`` the F1.

    Returns:
        In 0..1; the prevalence where a class is absent, and 0.5 without rows.
    """
    sick, well = float(counted.positives.sum()), float(counted.negatives.sum())
    if sick + well == 0:
        return 0.5
    if sick == 0 or well == 0:
        return sick / (sick + well)
    tp = np.cumsum(counted.positives[::-1])
    fp = np.cumsum(counted.negatives[::-1])
    gain = tp / sick - fp / well if how == "youden" else 2 * tp / (tp + fp + sick)
    best = len(gain) - 1 - int(np.argmax(gain))
    lower = counted.logit[best - 1] if best > 0 else counted.logit[best]
    return float(sigmoid((counted.logit[best] + lower) / 2))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
