"""The hospitals' learning rate over rounds: set by the server, checked by each hospital."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tasks.study import Schedule


def factor(
    schedule: Schedule, number: int, rounds: int, better: Sequence[bool | None] = ()
) -> float:
    """What the learning rate is multiplied by in a round.

    A function of what is in the checkpoint, so that a resumed run goes on as it would have.

    Args:
        schedule: The study's choice.
        number: The round, from 1.
        rounds: Rounds in all.
        better: Of rounds 1, 2, ...: whether the loss of the model that it started from was better
            than all before; None where none compares.

    Returns:
        In (0, 1].
    """
    if schedule.kind == "step":
        return float(schedule.factor ** ((number - 1) // schedule.every))
    if schedule.kind == "cosine":
        place = (number - 1) / max(rounds - 1, 1)
        return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * place))
    waited, found = 0, 1.0
    for each in better if schedule.kind == "plateau" else ():
        waited = 0 if each else waited + (each is not None)
        if waited == schedule.every:
            found, waited = max(found * schedule.factor, schedule.floor), 0
    return found


def factors(schedule: Schedule, number: int, rounds: int) -> tuple[float, float]:
    """The lowest and the highest factor that a study allows in a round.

    A plateau depends on losses that a single hospital does not know.

    Args:
        schedule: The study's choice.
        number: The round, from 1.
        rounds: Rounds in all.
    """
    if schedule.kind == "plateau":
        cuts = (number - 1) // schedule.every
        return min(1.0, max(float(schedule.factor**cuts), schedule.floor)), 1.0
    only = factor(schedule, number, rounds)
    return only, only
