"""A hospital's own intercept: the one number that sets its base rate right.

After federated training the ranking of patients is shared, the base rate is not: one shift of the
logit at each hospital repairs calibration (Steyerberg 2004, recalibration in the large).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.model.forward import sigmoid

SPREAD = 0.5
"""Standard deviation of the prior on the shift: base rates that differ by a factor of 1.6 are
usual between hospitals, and a hospital with three positives should not be believed beyond that."""


def fit_intercept(y: NDArray[np.float32], logits: NDArray[np.float64]) -> float:
    """Find the shift of the logit that fits a hospital's rows best.

    Maximises the likelihood of ``y`` under ``logits + shift`` times a normal prior around 0 by
    Newton's method (one parameter, concave), so few rows move it little and none not at all.

    Args:
        y: Labels, shape (n,).
        logits: The model's log-odds of the same rows.

    Returns:
        The shift, finite even where all labels are the same.
    """
    shift = 0.0
    for _ in range(50):
        p = sigmoid(logits + shift)
        gradient = float(np.sum(y - p)) - shift / SPREAD**2
        curvature = float(np.sum(p * (1 - p))) + 1 / SPREAD**2
        step = float(np.clip(gradient / curvature, -1.0, 1.0))
        shift += step
        if abs(step) < 1e-10:
            break
    return shift
