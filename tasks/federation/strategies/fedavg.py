"""FedAvg: the weighted mean of the hospitals' models (McMahan et al. 2017, arXiv:1602.05629)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks.federation.messages import Update
from tasks.federation.strategies.strategy import Aggregate, Floats, Strategy, weighted_mean


class FedAvg(Strategy):
    """The weighted mean."""

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
        del model, number, learning_rate
        mean = weighted_mean({name: each.model for name, each in updates.items()}, weights)
        return Aggregate(mean.astype(np.float32), dict(weights))
