"""FedNova: hospitals that take more steps do not pull the model further (Wang et al. 2020).

arXiv:2007.07481. Each update is divided by the sum of its steps' weights before the mean, and the
mean is multiplied by their weighted mean, so that the fixed point is that of the weighted loss.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks.federation.messages import Update
from tasks.federation.strategies.strategy import Aggregate, Floats, Strategy, weighted_mean


class FedNova(Strategy):
    """Normalised averaging."""

    def __init__(self, momentum: float = 0.0) -> None:
        """Say how the hospitals train.

        Args:
            momentum: Their heavy-ball momentum, in [0, 1).
        """
        self.momentum = momentum

    def aggregate(
        self,
        model: Floats,
        updates: Mapping[str, Update],
        weights: Mapping[str, float],
        *,
        number: int,
        learning_rate: float,
    ) -> Aggregate:
        """See ``Strategy.aggregate``."""
        del number, learning_rate
        start = model.astype(np.float64)
        lengths = {name: self.length(each.steps) for name, each in updates.items()}
        directions = {
            name: (each.model.astype(np.float64) - start) / lengths[name]
            for name, each in updates.items()
        }
        effective = sum(weights[name] * lengths[name] for name in sorted(updates))
        moved = start + effective * weighted_mean(directions, weights)
        return Aggregate(moved.astype(np.float32), dict(weights))

    def length(self, steps: int) -> float:
        """The 1-norm of the accumulation vector a_i: how often each gradient counts, summed.

        Args:
            steps: Local steps tau_i; without momentum the result is the same number.
        """
        rho = self.momentum
        return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
