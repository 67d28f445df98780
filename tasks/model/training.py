"""Train a network on one table's rows: plain SGD, the same bits for the same seed.

Written without ``torch.optim``, whose first step imports torch's compiler for three CPU-seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch  # noqa: TID253  (this module exists only for torch code)
import torch.nn.functional as F  # noqa: N812, TID253  (torch's own name for it)
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from tasks.errors import DataError
from tasks.model.network import RiskNetwork
from tasks.study import Model


@dataclass(frozen=True)
class TrainingResult:
    """What a training did.

    Attributes:
        steps: Optimiser steps taken.
        loss: Mean training loss over the last epoch's rows, without penalties.
    """

    steps: int
    loss: float


def train_epochs(
    module: nn.Module,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    *,
    model: Model,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    momentum: float = 0.0,
    seed: int,
    proximal_mu: float = 0.0,
    correction: NDArray[np.float32] | None = None,
    steps: int | None = None,
) -> TrainingResult:
    """Train in place by minibatch SGD.

    A step is: gradient of the mean loss, plus ``weight_decay`` times the weights (biases are not
    decayed: a decayed last bias predicts too high a risk where the outcome is rare), plus
    ``proximal_mu`` times the distance from the start (the gradient of mu/2 ||w - w_0||^2, Li et
    al. 2020, FedProx), plus ``correction`` (c - c_i, Karimireddy et al. 2020, SCAFFOLD); then
    momentum.

    Args:
        module: What ``network.build`` made.
        x: Scaled features, shape (n, d).
        y: Labels, shape (n,).
        model: The study's network: loss, class weight, weight decay.
        epochs: Passes over the rows, each in another order.
        batch_size: Rows a step; an epoch's last batch may be smaller.
        learning_rate: Step size.
        momentum: Heavy-ball momentum; 0 for none.
        seed: Of the order and of dropout.
        proximal_mu: FedProx's mu.
        correction: SCAFFOLD's correction, shape (p,).
        steps: Take exactly this many steps instead of ``epochs`` passes.

    Raises:
        DataError: There are no rows, shapes do not fit, or the loss is no longer finite.
    """
    if not isinstance(module, RiskNetwork):
        raise TypeError(f"expected a RiskNetwork, got {type(module).__name__}")
    rows = len(y)
    if rows == 0:
        raise DataError("there are no training rows.")
    if x.shape != (rows, module.inputs):
        raise DataError(f"x must be of shape ({rows}, {module.inputs}), not {x.shape}.")
    generator = torch.Generator().manual_seed(seed)
    features = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))
    labels = torch.from_numpy(np.ascontiguousarray(y, dtype=np.float32))
    weights = _class_weights(labels, model)
    flat = module.flat
    start = flat.detach().clone() if proximal_mu else None
    offset = None if correction is None else torch.from_numpy(np.array(correction, np.float32))
    if offset is not None and offset.shape != flat.shape:
        raise DataError(f"correction must be of shape {tuple(flat.shape)}, not {offset.shape}.")
    decay = _decay(module, model.weight_decay)
    velocity = torch.zeros_like(flat, requires_grad=False) if momentum else None
    per_epoch = math.ceil(rows / batch_size)
    total = epochs * per_epoch if steps is None else steps
    done, seen, running = 0, 0, torch.zeros(())
    module.train()
    module.generator = generator
    with _one_thread():
        while done < total:
            order = torch.randperm(rows, generator=generator)
            running, seen = torch.zeros(()), 0
            for index in torch.split(order, batch_size)[: total - done]:
                loss = _loss(module(features[index]), labels[index], model, weights)
                (gradient,) = torch.autograd.grad(loss, flat)
                with torch.no_grad():
                    gradient.addcmul_(decay, flat)
                    if start is not None:
                        gradient.add_(flat - start, alpha=proximal_mu)
                    if offset is not None:
                        gradient.add_(offset)
                    if velocity is not None:
                        gradient = velocity.mul_(momentum).add_(gradient)
                    flat.sub_(gradient, alpha=learning_rate)
                    running += loss.detach() * len(index)
                seen += len(index)
                done += 1
    module.generator = None
    module.eval()
    mean = float(running) / max(seen, 1)
    if not (math.isfinite(mean) and bool(torch.isfinite(flat).all())):
        raise DataError(
            f"training diverged after {done} steps: the learning rate {learning_rate} is too high "
            "for this data."
        )
    return TrainingResult(steps=done, loss=mean)


def _loss(
    logit: Tensor, label: Tensor, model: Model, weights: tuple[float, float] | None
) -> Tensor:
    each = F.binary_cross_entropy_with_logits(logit, label, reduction="none")
    if model.loss == "focal":
        # Lin et al. 2017: (1 - p_t)^gamma times the cross entropy, and p_t = exp(-cross entropy).
        each = (1 - torch.exp(-each)).clamp(min=1e-6) ** model.focal_gamma * each
    if weights is not None:
        negative, positive = weights
        each = each * (negative + (positive - negative) * label)
    return each.mean()


def _class_weights(labels: Tensor, model: Model) -> tuple[float, float] | None:
    if model.class_weight == "none":
        return None
    rows, positives = len(labels), float(labels.sum())
    # With one class only there is nothing to balance.
    if positives in (0.0, float(rows)):
        return None
    return rows / (2 * (rows - positives)), rows / (2 * positives)


def _decay(module: RiskNetwork, rate: float) -> Tensor:
    return torch.cat(
        [
            torch.full((size,), rate if name.endswith("weight") else 0.0)
            for (name, _), size in zip(module.layout, module.sizes, strict=True)
        ]
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Batches are too small to share out, and one thread sums in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
