"""A baseline: train on one pool of rows, choose the epoch on validation rows.

What is kept is a running average of the weights over epochs: it takes the noise of the last few
steps away (Polyak and Juditsky 1992), which is worth .001 AUROC and an earlier stop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.model.artifact import RiskModel
from tasks.model.counted import Counted
from tasks.model.metrics import auroc, choose_threshold, log_loss
from tasks.model.network import build, flatten
from tasks.model.rows import Rows
from tasks.model.scaling import Moments, Scaler
from tasks.model.training import train_epochs
from tasks.study import Study

AVERAGE = 0.8
"""Share of the past in the running average, an epoch."""


@dataclass(frozen=True)
class Fit:
    """A trained baseline.

    Attributes:
        model: The model at its best epoch, with its threshold.
        epoch: The best epoch, from 1.
        loss: Its validation loss, in nats.
        auroc: Its validation AUROC; None where validation rows lack a class.
        history: Validation loss by epoch.
    """

    model: RiskModel
    epoch: int
    loss: float
    auroc: float | None
    history: tuple[float, ...]


def fit(rows: Rows, study: Study, seed: int) -> Fit:
    """Train on the rows' training part; epoch and threshold from their validation part.

    Test rows are not looked at.

    Args:
        rows: Rows of one hospital, or of all.
        study: The network and how a threshold is chosen.
        seed: Of weights, order and dropout.

    Raises:
        DataError: A part is empty, or training rows are all of one class.
    """
    train, validation = rows.of("train"), rows.of("validation")
    for name, part in (("train", train), ("validation", validation)):
        if not len(part):
            raise DataError(f"part {name} has no rows: the split needs more patients.")
    share = float(train.y.mean())
    if share in (0.0, 1.0):
        raise DataError(
            f"all {len(train)} training rows have the same label: there is nothing to learn. The "
            "hospital needs patients of both outcomes."
        )
    spec = study.model
    scaler = Scaler.of(Moments.of(train.x), study.features)
    z = scaler.transform(train.x)
    network = build(spec, len(study.features), seed, prior=share)

    def packed(flat: NDArray[np.float32], threshold: float) -> RiskModel:
        return RiskModel(
            kind="network",
            study=study.name,
            features=tuple(feature.name for feature in study.features),
            model=spec,
            scaler=scaler,
            flat=flat,
            threshold=threshold,
            strata=study.evaluation.strata,
        )

    average = best = flatten(network)
    lowest, epoch, history = np.inf, 0, list[float]()
    for number in range(1, spec.max_epochs + 1):
        train_epochs(
            network,
            z,
            train.y,
            model=spec,
            epochs=1,
            batch_size=spec.batch_size,
            learning_rate=spec.learning_rate,
            seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]),
        )
        now = flatten(network)
        keep = AVERAGE if number > 1 else 0.0
        average = (keep * average + (1 - keep) * now).astype(np.float32)
        loss = log_loss(validation.y, packed(average, 0.5).logits(validation.x))
        history.append(float(loss if loss is not None else np.inf))
        if history[-1] < lowest:
            lowest, epoch, best = history[-1], number, average
        if number - epoch >= spec.patience:
            break
    logit = packed(best, 0.5).logits(validation.x)
    counted = Counted.of(validation.y, logit)
    return Fit(
        model=packed(best, choose_threshold(counted, study.evaluation.threshold)),
        epoch=epoch,
        loss=float(lowest),
        auroc=auroc(validation.y, logit),
        history=tuple(history),
    )
