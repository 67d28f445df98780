"""SCAFFOLD: control variates correct the hospitals' drift (Karimireddy et al. 2020, option II).

arXiv:1910.06378. Each hospital keeps its own control variate c_i and sends, beside its update, the
change of it; the server keeps their weighted sum, sends its mean c to all, and sees no single one.
"""

from __future__ import annotations

import numpy as np

from tasks.federation.strategies.strategy import LocalTraining, Strategy, mean_update, moved
from tasks.federation.update.stage import About, State, Total
from tasks.federation.vector import Layout, Segment, Vector
from tasks.federation.wire import Doubles, Floats


class Scaffold(Strategy):
    """Stochastic controlled averaging."""

    lasting = frozenset({"variate"})

    def __init__(self, server_learning_rate: float = 1.0) -> None:
        """Start with control variates of 0.

        Args:
            server_learning_rate: The global step size.
        """
        self.server_learning_rate = server_learning_rate
        self._state: State = {}

    def segments(self, parameters: int) -> Layout:
        """The weighted change of c_i."""
        return {"variate": Segment(parameters, "float32")}

    def correction(self, common: Floats | None, own: State) -> Floats | None:
        """``c - c_i``; None before the first round, when all are 0."""
        if common is None:
            return None
        mine = own.get("variate")
        return common if mine is None else (common - mine).astype(np.float32)

    def contribution(self, local: LocalTraining, own: State) -> dict[str, Doubles | float]:
        """With c_i+ = c_i - c + (x - y_i) / (K_i eta)."""
        after = -local.move / (local.steps * local.learning_rate)
        if local.correction is not None:
            after = after - local.correction
        change = after - own.get("variate", 0.0)
        return {"update": local.weight * local.move, "variate": local.weight * change}

    def remembered(self, sent: Vector, own: State) -> State:
        """The new c_i, by what was sent: the server's sum is of exactly these."""
        change = sent["variate"] / sent.number("weight")
        return {"variate": own.get("variate", 0.0) + change}

    def common(self, about: About) -> Floats | None:
        """c: the mean of the c_i over all hospitals seen so far, in their weights.

        The paper's weights are equal. A hospital whose c_i is still 0 counts too: its gradient
        belongs to the objective.
        """
        if not self._state:
            return None
        return (self._state["variates"] / about.seen_weight).astype(np.float32)

    def step(self, model: Floats, total: Total, about: About) -> Floats:
        """See ``Strategy.step``."""
        del about
        self._state = {"variates": self._state.get("variates", 0.0) + total.vector["variate"]}
        return moved(model, self.server_learning_rate * mean_update(total))

    def state(self) -> State:
        """The weighted sum of the control variates."""
        return dict(self._state)

    def restore(self, state: State) -> None:
        """See ``Strategy.restore``."""
        self._state = dict(state)
