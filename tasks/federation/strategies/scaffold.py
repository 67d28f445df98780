"""SCAFFOLD: control variates correct the hospitals' drift (Karimireddy et al. 2020, option II).

arXiv:1910.06378. The server keeps every hospital's control variate: option II computes it from the
step, the sent model and the returned one, all of which the server has, so that it need not travel
up, and a hospital's process may die or restart without losing it. What goes down is ``c - c_i``.
Where only sums of updates shall be seen, the hospitals must keep their own instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.federation.messages import Update
from tasks.federation.strategies.strategy import Aggregate, Floats, Strategy, weighted_mean

Doubles = NDArray[np.float64]


class Scaffold(Strategy):
    """Stochastic controlled averaging."""

    def __init__(self, shares: Mapping[str, float], server_learning_rate: float = 1.0) -> None:
        """Start with control variates of 0.

        Args:
            shares: Weight of every hospital of the federation in the loss, seen or not; c is the
                mean of the c_i in these weights (the paper's are equal).
            server_learning_rate: The global step size.
        """
        self.shares = dict(shares)
        self.server_learning_rate = server_learning_rate
        self._own: dict[str, Doubles] = {}

    def correction(self, hospital: str) -> Floats | None:
        """``c - c_i``; None before the first round, when all are 0.

        Args:
            hospital: The hospital's name.
        """
        if not self._own:
            return None
        mine = self._own.get(hospital)
        common = self._common(sorted(self._own))
        return (common if mine is None else common - mine).astype(np.float32)

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
        del number
        start = model.astype(np.float64)
        moves = {name: each.model.astype(np.float64) - start for name, each in updates.items()}
        # c_i+ = c_i - c + (x - y_i) / (K_i eta), and what was sent is c - c_i in float32.
        sent = {name: self.correction(name) for name in updates}
        for name in sorted(updates):
            used = sent[name]
            drift = -moves[name] / (updates[name].steps * learning_rate)
            self._own[name] = drift if used is None else drift - used.astype(np.float64)
        moved = start + self.server_learning_rate * weighted_mean(moves, weights)
        return Aggregate(moved.astype(np.float32), dict(weights))

    def state(self) -> dict[str, NDArray[Any]]:
        """The control variates by hospital."""
        return dict(self._own)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See ``Strategy.restore``."""
        self._own = {name: np.asarray(array, np.float64) for name, array in state.items()}

    def _common(self, names: Sequence[str]) -> Doubles:
        return weighted_mean(
            {name: self._own[name] for name in names},
            {name: self.shares.get(name, 0.0) for name in names},
        )
