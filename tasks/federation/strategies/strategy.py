"""What every strategy offers, and the weighted mean that most of them start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.federation.messages import Update

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Aggregate:
    """The next model.

    Attributes:
        model: Shape (p,).
        weights: Share of each update in it, by hospital; they add up to 1.
    """

    model: Floats
    weights: dict[str, float]


class Strategy:
    """Federated averaging's interface; the parts that a strategy does not need do nothing."""

    proximal_mu: float = 0.0
    """Weight of FedProx's term in the hospitals' training."""

    def correction(self, hospital: str) -> Floats | None:
        """What the hospital adds to each gradient, shape (p,), or None.

        Args:
            hospital: The hospital's name.
        """
        del hospital
        return None

    def aggregate(
        self,
        model: Floats,
        updates: Mapping[str, Update],
        weights: Mapping[str, float],
        *,
        number: int,
        learning_rate: float,
    ) -> Aggregate:
        """Make the next model.

        Args:
            model: What the round started from, shape (p,).
            updates: By hospital, at least one.
            weights: Shares by hospital; they add up to 1.
            number: The round, from 1.
            learning_rate: The hospitals' step size in it.
        """
        raise NotImplementedError

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays that must survive a restart."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up what ``state`` gave.

        Args:
            state: By name.
        """
        del state


def weighted_mean(arrays: Mapping[str, NDArray[Any]], weights: Mapping[str, float]) -> NDArray[Any]:
    """Sum in float64, in the order of the hospitals' names: the same bits whoever replied first.

    Args:
        arrays: By hospital, of one shape.
        weights: By hospital.
    """
    total = np.zeros_like(next(iter(arrays.values())), dtype=np.float64)
    for name in sorted(arrays):
        total += weights[name] * arrays[name].astype(np.float64)
    return total
