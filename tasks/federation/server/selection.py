"""Which hospitals take part in a round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tasks.study import Selection


@dataclass
class HospitalHistory:
    """What the server remembers of the hospitals; part of the checkpoint.

    Attributes:
        seen: Those that have given their statistics, so that they belong to the objective.
        last_round: The last round in which the answer counted; absent before the first.
        last_loss: The last validation loss.
    """

    seen: list[str] = field(default_factory=list)
    last_round: dict[str, int] = field(default_factory=dict)
    last_loss: dict[str, float] = field(default_factory=dict)


def select(
    selection: Selection,
    hospitals: Sequence[str],
    history: HospitalHistory,
    rows: Mapping[str, int],
    *,
    seed: int,
    number: int,
) -> list[str]:
    """Choose the hospitals of a round.

    Args:
        selection: The study's choice.
        hospitals: Those that can take part.
        history: What is known of them.
        rows: Training rows by hospital.
        seed: The study's seed.
        number: Number of the round; with the seed it decides every draw.

    Returns:
        Names, sorted.
    """
    names = sorted(hospitals)
    count = len(names) if selection.count is None else min(selection.count, len(names))
    if selection.kind == "all" or count == len(names):
        return names
    draw = np.random.default_rng([seed, number])
    order = [names[i] for i in draw.permutation(len(names))]
    if selection.kind == "rows":
        size = np.array([rows[name] for name in names], dtype=float)
        picked = draw.choice(len(names), count, replace=False, p=size / size.sum())
        order = [names[i] for i in picked]
    elif selection.kind == "longest_unseen":
        order.sort(key=lambda name: history.last_round.get(name, 0))
    elif selection.kind == "loss":
        order.sort(key=lambda name: -history.last_loss.get(name, math.inf))
    return sorted(order[:count])
