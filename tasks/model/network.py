"""The network in torch: encoder to an embedding, head to one logit, linear path beside them.

All parameters live in one flat tensor, so that an optimiser's step, a federated update and a
correction are each one operation on one array.
"""

from __future__ import annotations

import math

import numpy as np
import torch  # noqa: TID253  (this module exists only for torch code)
import torch.nn.functional as F  # noqa: N812, TID253  (torch's own name for it)
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from tasks.errors import DataError
from tasks.model.forward import layout
from tasks.model.forward import parameter_count as parameter_count
from tasks.study import Model


class RiskNetwork(nn.Module):
    """(n, d) scaled features to (n,) logits.

    In training mode, dropout draws from ``generator``, which the training loop sets: torch's own
    dropout draws from the global state, which anything else in the process may move.
    """

    def __init__(self, model: Model, inputs: int) -> None:
        """Make the network with all parameters 0.

        Args:
            model: The study's network.
            inputs: Number of features d.
        """
        super().__init__()
        self.model = model
        self.inputs = inputs
        self.layout = layout(model, inputs)
        self.sizes = [math.prod(shape) for _, shape in self.layout]
        self.flat = nn.Parameter(torch.zeros(sum(self.sizes)))
        self.generator: torch.Generator | None = None

    def parts(self) -> list[Tensor]:
        """The parameters as shaped views of the flat one, in the order of the layout."""
        cut = torch.split(self.flat, self.sizes)
        return [piece.view(shape) for piece, (_, shape) in zip(cut, self.layout, strict=True)]

    def forward(self, z: Tensor) -> Tensor:
        """Score scaled rows.

        Args:
            z: Shape (n, d).

        Returns:
            Log-odds, shape (n,).
        """
        p = self.parts()
        hidden = z
        for layer in range(len(self.model.head) + 1):
            hidden = F.linear(hidden, p[2 * layer], p[2 * layer + 1])
            hidden = torch.tanh(hidden) if self.model.activation == "tanh" else F.relu(hidden)
            hidden = self._dropped(hidden)
        last = 2 * (len(self.model.head) + 1)
        logit = F.linear(hidden, p[last], p[last + 1])
        if self.model.skip:
            logit = logit + F.linear(z, p[last + 2])
        return logit[:, 0]

    def _dropped(self, hidden: Tensor) -> Tensor:
        keep = 1.0 - self.model.dropout
        if not self.training or keep == 1.0:
            return hidden
        mask = torch.empty_like(hidden).bernoulli_(keep, generator=self.generator)
        return hidden * mask.mul_(1.0 / keep)


def build(model: Model, inputs: int, seed: int, *, prior: float | None = None) -> RiskNetwork:
    """Make a network with seeded weights.

    Weights are uniform within 1/sqrt(fan-in) (torch's default for linear layers), biases 0, and
    the linear path starts at 0.

    Args:
        model: The study's network.
        inputs: Number of features.
        seed: Of the weights; torch's global state is neither read nor moved.
        prior: Share of positives: the last bias starts at its log-odds, so that the first steps
            need not be spent on it. Without it the bias starts at 0.

    Returns:
        The network, in training mode.
    """
    network = RiskNetwork(model, inputs)
    generator = torch.Generator().manual_seed(seed)
    last = f"head.{len(model.head)}.bias"
    with torch.no_grad():
        for (name, shape), part in zip(network.layout, network.parts(), strict=True):
            if name == last and prior is not None:
                share = min(max(prior, 1e-4), 1 - 1e-4)
                part.fill_(math.log(share / (1 - share)))
            elif name.endswith("weight") and not name.startswith("skip"):
                bound = 1 / math.sqrt(shape[1])
                part.uniform_(-bound, bound, generator=generator)
    return network


def flatten(module: nn.Module) -> NDArray[np.float32]:
    """Copy all parameters into one array.

    Args:
        module: What ``build`` made.

    Returns:
        Shape (p,).
    """
    return _flat(module).detach().numpy().copy()


def unflatten(module: nn.Module, flat: NDArray[np.float32]) -> None:
    """Overwrite all parameters.

    Args:
        module: What ``build`` made.
        flat: Shape (p,).

    Raises:
        DataError: The array has another length than the model.
    """
    own = _flat(module)
    if flat.shape != tuple(own.shape):
        raise DataError(f"the model has {own.numel()} parameters, the array {flat.shape}.")
    with torch.no_grad():
        own.copy_(torch.from_numpy(np.array(flat, dtype=np.float32)))


def _flat(module: nn.Module) -> Tensor:
    if not isinstance(module, RiskNetwork):
        raise TypeError(f"expected a RiskNetwork, got {type(module).__name__}")
    return module.flat
