"""The network in NumPy: where its parameters lie in the flat array, and its forward pass.

Scoring needs no gradients, and a process without torch starts two seconds earlier. A test holds
this equal to ``tasks.model.network``.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tasks.errors import DataError
from tasks.model.scaling import chunks
from tasks.study import Model

Layout = list[tuple[str, tuple[int, ...]]]


def layout(model: Model, inputs: int) -> Layout:
    """Names and shapes of the parameters, in the order of the flat array.

    ``encoder``, ``head.0`` ... ``head.k`` (the last gives the logit), each a ``weight`` of shape
    (outputs, inputs) and a ``bias``; then ``skip.weight`` if the model has the linear path.

    Args:
        model: The study's network.
        inputs: Number of features.
    """
    widths = [inputs, model.embedding, *model.head, 1]
    names = ["encoder", *(f"head.{i}" for i in range(len(model.head) + 1))]
    found: Layout = []
    for name, before, after in zip(names, widths[:-1], widths[1:], strict=True):
        found += [(f"{name}.weight", (after, before)), (f"{name}.bias", (after,))]
    if model.skip:
        found.append(("skip.weight", (1, inputs)))
    return found


def parameter_count(model: Model, inputs: int) -> int:
    """Length of the flat array.

    Args:
        model: The study's network.
        inputs: Number of features.
    """
    return sum(math.prod(shape) for _, shape in layout(model, inputs))


def split(model: Model, inputs: int, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Cut the flat array into named parameters (views).

    Args:
        model: The study's network.
        inputs: Number of features.
        flat: All parameters, shape (p,).

    Raises:
        DataError: The array has another length than the model.
    """
    count = parameter_count(model, inputs)
    if flat.shape != (count,):
        raise DataError(
            f"the model has {count} parameters for {inputs} features, the array {flat.shape}."
        )
    found, start = {}, 0
    for name, shape in layout(model, inputs):
        end = start + math.prod(shape)
        found[name] = flat[start:end].reshape(shape)
        start = end
    return found


def logits(
    model: Model, inputs: int, flat: NDArray[np.float32], z: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Score scaled rows.

    Args:
        model: The study's network.
        inputs: Number of features d.
        flat: All parameters, shape (p,).
        z: Scaled features, shape (n, d).

    Returns:
        Log-odds, shape (n,).

    Raises:
        DataError: The parameters are not those of the model.
    """
    p = split(model, inputs, flat)
    found = np.empty(len(z))
    for some in chunks(z):
        found[some] = _logits(model, p, z[some])
    return found


def _logits(
    model: Model, p: dict[str, NDArray[np.float32]], z: NDArray[np.float32]
) -> NDArray[np.float32]:
    hidden = z
    names = ["encoder", *(f"head.{i}" for i in range(len(model.head)))]
    for name in names:
        hidden = hidden @ p[f"{name}.weight"].T + p[f"{name}.bias"]
        hidden = np.tanh(hidden) if model.activation == "tanh" else np.maximum(hidden, 0)
    last = f"head.{len(model.head)}"
    logit = hidden @ p[f"{last}.weight"].T + p[f"{last}.bias"]
    if model.skip:
        logit = logit + z @ p["skip.weight"].T
    one: NDArray[np.float32] = logit[:, 0]
    return one


def sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds to probability, without overflow.

    Args:
        logit: Any shape.
    """
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logit, dtype=np.float64)))
