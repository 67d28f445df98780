"""Hospitals whose loss is a quadratic: every strategy's fixed point is known in closed form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tasks.federation.messages import Update
from tasks.federation.strategies import Strategy
from tasks.model.histogram import ScoreHistogram

CURVATURE = {"a": np.array([1.0, 0.2]), "b": np.array([0.1, 1.5]), "c": np.array([0.5, 0.5])}
CENTRE = {"a": np.array([4.0, -1.0]), "b": np.array([-2.0, 3.0]), "c": np.array([0.0, 1.0])}
WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}


def optimum(weights: Mapping[str, float]) -> NDArray[np.float64]:
    """Of the weighted sum of the quadratics."""
    top = sum(weights[h] * CURVATURE[h] * CENTRE[h] for h in weights)
    return np.asarray(top / sum(weights[h] * CURVATURE[h] for h in weights))


def update(model: NDArray[np.float64], steps: int = 1, rows: int = 10) -> Update:
    return Update(rows, steps, np.asarray(model, np.float32), 0.0, 0, 0.0, ScoreHistogram.empty())


def local(
    hospital: str,
    start: NDArray[np.float32],
    steps: int,
    rate: float,
    correction: NDArray[np.float32] | None,
) -> Update:
    """Plain gradient steps, as ``train_epochs`` takes them."""
    w = start.astype(np.float64)
    for _ in range(steps):
        gradient = CURVATURE[hospital] * (w - CENTRE[hospital])
        w = w - rate * (gradient + (0 if correction is None else correction))
    return update(w, steps)


def trained(
    strategy: Strategy,
    rounds: int = 300,
    steps: Mapping[str, int] | None = None,
    rate: float = 0.2,
    absent: str | None = None,
) -> NDArray[np.float32]:
    """The model after so many rounds; ``absent`` misses every other round."""
    model = np.zeros(2, np.float32)
    for number in range(1, rounds + 1):
        names = [h for h in WEIGHTS if h != absent or number % 2]
        total = sum(WEIGHTS[h] for h in names)
        updates = {
            h: local(h, model, (steps or {}).get(h, 10), rate, strategy.correction(h))
            for h in names
        }
        shares = {h: WEIGHTS[h] / total for h in names}
        model = strategy.aggregate(model, updates, shares, number=number, learning_rate=rate).model
    return model
