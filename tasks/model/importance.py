"""Which columns a model leans on: the fall of its AUROC when one is shuffled."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tasks.model.artifact import RiskModel
from tasks.model.metrics import auroc
from tasks.study import Feature

REPEATS = 5


def permutation_importance(
    model: RiskModel,
    x: NDArray[np.float64],
    y: NDArray[np.float32],
    features: list[Feature],
    seed: int,
) -> dict[str, float]:
    """Shuffle each column of the study in turn and see how much AUROC falls.

    All features of a column (its categories, its flag for "missing") move together, for one alone
    would make rows that cannot be (Breiman 2001; Fisher et al. 2019).

    Args:
        model: The model.
        x: Raw features of validation rows, shape (n, d).
        y: Their labels.
        features: The study's features, in order.
        seed: Of the shuffles.

    Returns:
        Mean fall over 5 shuffles by column, largest first; empty where a class is absent.
    """
    whole = auroc(y, model.logits(x))
    if whole is None:
        return {}
    generator = np.random.default_rng(seed)
    falls: dict[str, float] = {}
    for column in dict.fromkeys(feature.column for feature in features):
        places = [i for i, feature in enumerate(features) if feature.column == column]
        total = 0.0
        for _ in range(REPEATS):
            shuffled = x.copy()
            shuffled[:, places] = x[generator.permutation(len(x))][:, places]
            total += whole - (auroc(y, model.logits(shuffled)) or 0.0)
        falls[column] = total / REPEATS
    return dict(sorted(falls.items(), key=lambda item: (-item[1], item[0])))
