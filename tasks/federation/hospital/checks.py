"""What a hospital refuses: a server's task that its own copy of the study does not allow."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.federation.learning_rate import factors
from tasks.federation.messages import TrainTask
from tasks.model.scaling import Scaler
from tasks.study import Study


def check_round(task: TrainTask, study: Study, answered: list[int]) -> None:
    """See that a round is one of the study's, and comes after those that were answered.

    Args:
        task: The round's.
        study: The hospital's own copy.
        answered: Rounds that the hospital remembers.

    Raises:
        DataError: It is not, or its learning rate is not the schedule's.
    """
    plan = study.federation
    if not 1 <= task.round <= plan.rounds:
        raise DataError(
            f"the server asks for round {task.round}; the study that this hospital joined has "
            f"{plan.rounds}."
        )
    if (answered and task.round < answered[-1]) or task.counted >= task.round:
        raise DataError(f"the server goes back to round {task.round}: rounds only go forward.")
    low, high = factors(plan.schedule, task.round, plan.rounds)
    if not low * (1 - 1e-9) <= task.factor <= high * (1 + 1e-9):
        raise DataError(
            f"the server multiplies the learning rate by {task.factor:g} in round {task.round}; "
            f"the study's schedule allows {low:g} to {high:g}."
        )


def scaler_digest(scaler: Scaler) -> str:
    """What a run's scaling is known by."""
    return hashlib.sha256(scaler.mean.tobytes() + scaler.std.tobytes()).hexdigest()


def check_scaler(scaler: Scaler, study: Study, x: NDArray[np.float64]) -> None:
    """See that a scaling is one of data such as the study's, so that no row is blown up by it.

    A mean lies inside its column's range, and a spread is a thousandth of that at least, or a tenth
    of the hospital's own. Mean 0 where nothing is known and spread 1 where nothing varies are what
    ``Scaler.of`` gives.

    Args:
        scaler: The server's.
        study: The hospital's own copy.
        x: The hospital's training rows, shape (n, d), NaN where missing.

    Raises:
        DataError: It is not.
    """
    for place, feature in enumerate(study.features):
        bounds = study.columns[feature.column].range if feature.kind == "numeric" else None
        low, high = bounds or (0.0, 1.0)
        mean, std = float(scaler.mean[place]), float(scaler.std[place])
        known = x[np.isfinite(x[:, place]), place]
        own = float(known.std()) if len(known) else 0.0
        least = min((high - low) / 1000, own / 10 or np.inf)
        slack = 1e-9 * max(abs(low), abs(high))
        if mean != 0 and not low - slack <= mean <= high + slack:
            raise DataError(
                f"the server scales {feature.name} by mean {mean:g}; the study allows {low:g} to "
                f"{high:g}."
            )
        if std != 1 and not std >= least:
            raise DataError(
                f"the server scales {feature.name} by a spread of {std:g}, too small for a column "
                f"of {low:g} to {high:g}."
            )
