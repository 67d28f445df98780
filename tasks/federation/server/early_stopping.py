"""When training ends, and which round's model was the best."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tasks.study.learning import Stop


def stop_reason(stop: Stop, losses: Sequence[float], number: int, rounds: int) -> str | None:
    """Why no further round should follow, or None.

    Args:
        stop: The study's choice.
        losses: Validation losses of the models after 0, 1, ... rounds, as far as known.
        number: Rounds done.
        rounds: Rounds at most.
    """
    if stop.patience is not None and waited(losses, stop.min_delta) >= stop.patience:
        return f"validation loss no better for {stop.patience} rounds"
    if number >= rounds:
        return f"all {rounds} rounds are done"
    return None


def waited(losses: Sequence[float], min_delta: float) -> int:
    """Rounds since the validation loss last became better by ``min_delta``.

    Args:
        losses: In the order of the rounds.
        min_delta: The least difference that counts.
    """
    best, count = math.inf, 0
    for loss in losses:
        if loss < best - min_delta:
            best, count = loss, 0
        else:
            count += 1
    return count
