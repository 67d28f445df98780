"""The clients' learning rate over rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tasks.study import Schedule


def factor(schedule: Schedule, number: int, rounds: int, losses: Sequence[float]) -> float:
    """What the learning rate is multiplied by in a round.

    A function of what is in the checkpoint, so that a resumed run goes on as it would have.

    Args:
        schedule: The study's choice.
        number: The round, from 1.
        rounds: Rounds in all.
        losses: Validation losses of the models that rounds 1, 2, ... started from.

    Returns:
        In (0, 1].
    """
    if schedule.kind == "step":
        return float(schedule.factor ** ((number - 1) // schedule.every))
    if schedule.kind == "cosine":
        place = (number - 1) / max(rounds - 1, 1)
        return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * place))
    if schedule.kind == "plateau":
        best, waited, found = math.inf, 0, 1.0
        for loss in losses:
            waited = 0 if loss < best else waited + 1
            best = min(best, loss)
            if waited == schedule.every:
                found, waited = max(found * schedule.factor, schedule.floor), 0
        return found
    return 1.0
