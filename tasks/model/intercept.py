"""A hospital's own intercept: the one number that sets its base rate right.

After federated training the ranking of patients is shared, the base rate is not: one shift of the
logit at each hospital repairs calibration (Steyerberg 2004, recalibration in the large). How far a
hospital's few rows are believed depends on how much hospitals differ: the variance between them is
estimated from all their shifts (DerSimonian and Laird 1986), and is the variance of the prior.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.model.forward import sigmoid

DIGITS = 1
"""An intercept leaves its hospital rounded to .1: an exact one gives back the number of positive
validation rows."""


def one_step_shift(y: NDArray[np.float32], logits: NDArray[np.float64]) -> tuple[float, float]:
    """One Newton step towards the shift of the logit that makes the mean risk right.

    Args:
        y: Labels, shape (n,), at least one.
        logits: The model's log-odds of the same rows.

    Returns:
        s = sum(y - p) / w and w = sum(p (1 - p)); 1 / w is its variance.
    """
    p = sigmoid(logits)
    w = max(float(np.sum(p * (1 - p))), 1e-9)
    return float(np.sum(y - p)) / w, w


def variance_between(hospitals: float, w: float, ws: float, ws2: float, w2: float) -> float:
    """The variance of the shifts between hospitals, less what their own rows explain.

    The moment estimator of DerSimonian and Laird 1986, from sums over hospitals.

    Args:
        hospitals: How many hospitals' shifts are in the sums.
        w: Sum of their weights.
        ws: Sum of weights times shifts.
        ws2: Sum of weights times squared shifts.
        w2: Sum of squared weights.

    Returns:
        0 or more; 0 for fewer than two hospitals.
    """
    if hospitals < 2 or w <= 0:
        return 0.0
    heterogeneity = ws2 - ws**2 / w
    return max(0.0, (heterogeneity - (hospitals - 1)) / (w - w2 / w))


def fit_intercept(y: NDArray[np.float32], logits: NDArray[np.float64], variance: float) -> float:
    """Find the shift of the logit that fits a hospital's rows best.

    Maximises the likelihood of ``y`` under ``logits + shift`` times a normal prior around 0 by
    Newton's method (one parameter, concave), so few rows move it little and none not at all.

    Args:
        y: Labels, shape (n,).
        logits: The model's log-odds of the same rows.
        variance: Of the prior.

    Returns:
        The shift, rounded to .1; finite even where all labels are the same.
    """
    if variance <= 0:
        return 0.0
    shift = 0.0
    for _ in range(50):
        p = sigmoid(logits + shift)
        gradient = float(np.sum(y - p)) - shift / variance
        curvature = float(np.sum(p * (1 - p))) + 1 / variance
        step = float(np.clip(gradient / curvature, -1.0, 1.0))
        shift += step
        if abs(step) < 1e-10:
            break
    return round(shift, DIGITS) + 0.0
