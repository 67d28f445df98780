"""Strategies whose server takes the mean update for a gradient: momentum and adaptive steps.

FedAvgM is of Hsu et al. 2019 (arXiv:1909.06335), the others are of Reddi et al. 2021
(arXiv:2003.00295). FedAdam is Flower's, which corrects the bias with t + 1 where the paper does
not.
"""

from __future__ import annotations

import numpy as np

from tasks.federation.strategies.strategy import Strategy, mean_update, moved
from tasks.federation.update.stage import About, State, Total
from tasks.federation.wire import Doubles, Floats
from tasks.study.learning import StrategyOptions


class FedAvgM(Strategy):
    """Heavy-ball momentum at the server, .9 by default."""

    def __init__(self, options: StrategyOptions) -> None:
        """Take ``server_learning_rate`` and ``server_momentum``."""
        self.rate = options.server_learning_rate or 1.0
        self.momentum = 0.9 if options.server_momentum is None else options.server_momentum
        self._state: State = {}

    def step(self, model: Floats, total: Total, about: About) -> Floats:
        """See ``Strategy.step``."""
        del about
        before = self._state.get("momentum", 0.0)
        self._state = {"momentum": self.momentum * before + mean_update(total)}
        return moved(model, self.rate * self._state["momentum"])

    def state(self) -> State:
        """The momentum."""
        return dict(self._state)

    def restore(self, state: State) -> None:
        """See ``Strategy.restore``."""
        self._state = dict(state)


class _Adaptive(Strategy):
    """The step ``eta m / (sqrt(v) + tau)``; kinds differ in the second moment v."""

    def __init__(self, options: StrategyOptions) -> None:
        """Take the server's learning rate (.01), tau (.001), beta_1 (.9) and beta_2 (.99)."""
        self.rate = options.server_learning_rate or 0.01
        self.tau = options.tau or 1e-3
        self.beta_1 = 0.9 if options.beta_1 is None else options.beta_1
        self.beta_2 = 0.99 if options.beta_2 is None else options.beta_2
        self._state: State = {}

    def second_moment(self, v: Doubles, square: Doubles) -> Doubles:
        """The new second moment.

        Args:
            v: The one before, 0 at first, shape (p,).
            square: Of the mean update, shape (p,).
        """
        raise NotImplementedError

    def rate_in(self, number: int) -> float:
        """The step size in a round.

        Args:
            number: The round, from 1.
        """
        del number
        return self.rate

    def step(self, model: Floats, total: Total, about: About) -> Floats:
        """See ``Strategy.step``."""
        delta, zero = mean_update(total), np.zeros(len(model))
        m = self.beta_1 * self._state.get("m", zero) + (1 - self.beta_1) * delta
        v = self.second_moment(self._state.get("v", zero), delta**2)
        self._state = {"m": m, "v": v}
        return moved(model, self.rate_in(about.round) * m / (np.sqrt(v) + self.tau))

    def state(self) -> State:
        """Both moments."""
        return dict(self._state)

    def restore(self, state: State) -> None:
        """See ``Strategy.restore``."""
        self._state = dict(state)


class FedAdam(_Adaptive):
    """Adam's decaying mean of squares."""

    def second_moment(self, v: Doubles, square: Doubles) -> Doubles:
        """See ``_Adaptive.second_moment``."""
        return self.beta_2 * v + (1 - self.beta_2) * square

    def rate_in(self, number: int) -> float:
        """With the bias correction of Kingma and Ba 2014."""
        bias = float(np.sqrt(1 - self.beta_2 ** (number + 1)))
        return self.rate * bias / (1 - self.beta_1 ** (number + 1))


class FedYogi(_Adaptive):
    """Yogi's: v moves towards the square by a share of the square."""

    def second_moment(self, v: Doubles, square: Doubles) -> Doubles:
        """See ``_Adaptive.second_moment``."""
        return v - (1 - self.beta_2) * square * np.sign(v - square)


class FedAdagrad(_Adaptive):
    """Adagrad's sum of squares, without momentum."""

    def __init__(self, options: StrategyOptions) -> None:
        """Take ``server_learning_rate`` and ``tau``."""
        super().__init__(options)
        self.beta_1 = 0.0

    def second_moment(self, v: Doubles, square: Doubles) -> Doubles:
        """See ``_Adaptive.second_moment``."""
        return v + square
