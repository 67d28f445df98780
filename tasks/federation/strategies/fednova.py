"""FedNova: hospitals that take more steps do not pull the model further (Wang et al. 2020).

arXiv:2007.07481. Each update is divided by the sum of its steps' weights before the mean, and the
mean is multiplied by their weighted mean, so that the fixed point is that of the weighted loss.
"""

from __future__ import annotations

from tasks.federation.strategies.strategy import LocalTraining, Strategy, mean_update, moved
from tasks.federation.update.stage import About, State, Total
from tasks.federation.vector import Layout, Segment
from tasks.federation.wire import Doubles, Floats


class FedNova(Strategy):
    """Normalised averaging."""

    def __init__(self, momentum: float = 0.0) -> None:
        """Say how the hospitals train.

        Args:
            momentum: Their heavy-ball momentum, in [0, 1).
        """
        self.momentum = momentum

    def segments(self, parameters: int) -> Layout:
        """The sum of weights times lengths."""
        del parameters
        return {"length": Segment(1)}

    def contribution(self, local: LocalTraining, own: State) -> dict[str, Doubles | float]:
        """See ``Strategy.contribution``."""
        del own
        length = self.length(local.steps)
        return {"update": local.weight * local.move / length, "length": local.weight * length}

    def step(self, model: Floats, total: Total, about: About) -> Floats:
        """See ``Strategy.step``."""
        del about
        effective = total.vector.number("length") / total.vector.number("weight")
        return moved(model, effective * mean_update(total))

    def length(self, steps: int) -> float:
        """The 1-norm of the accumulation vector a_i: how often each gradient counts, summed.

        Args:
            steps: Local steps tau_i; without momentum the result is the same number.
        """
        rho = self.momentum
        return (steps - rho * (1 - rho**steps) / (1 - rho)) / (1 - rho)
