"""What every strategy is: one half at the hospital, one at the server, in one file.

The hospital sends its change of the model times its weight; the server steps from the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tasks.federation.update.stage import About, State, Total
from tasks.federation.vector import Layout, Vector
from tasks.federation.wire import Doubles, Floats


@dataclass(frozen=True)
class LocalTraining:
    """What a hospital's training in a round came to.

    Attributes:
        move: Trained less incoming parameters, shape (p,).
        steps: Local steps taken.
        weight: How much the hospital counts: its training rows, or 1.
        learning_rate: Step size.
        correction: What was added to each gradient, shape (p,), or None.
    """

    move: Doubles
    steps: int
    weight: float
    learning_rate: float
    correction: Floats | None = None


class Strategy:
    """Federated averaging, of which the others change a part."""

    needs_each: ClassVar[bool] = False
    """Whether the step compares single updates, so that a sum will not do."""
    lasting: ClassVar[frozenset[str]] = frozenset()
    """Segments that the server adds up over rounds, so that their weight may not change."""
    proximal_mu: float = 0.0
    """Weight of FedProx's term in the hospitals' training."""

    def segments(self, parameters: int) -> Layout:
        """The strategy's own segments of an update.

        Args:
            parameters: Length of the model.
        """
        del parameters
        return {}

    def correction(self, common: Floats | None, own: State) -> Floats | None:
        """At the hospital: what is added to each gradient, shape (p,), or None.

        Args:
            common: What the server sent, shape (p,).
            own: What the hospital remembers.
        """
        del common, own
        return None

    def contribution(self, local: LocalTraining, own: State) -> dict[str, Doubles | float]:
        """At the hospital: its part of the sums, by segment.

        Args:
            local: The training.
            own: What the hospital remembers.
        """
        del own
        return {"update": local.weight * local.move}

    def remembered(self, sent: Vector, own: State) -> State:
        """At the hospital: what it remembers for the next round in which it takes part.

        Args:
            sent: Its part of the sums.
            own: What it remembered before.
        """
        del sent, own
        return {}

    def common(self, about: About) -> Floats | None:
        """At the server: what goes to all hospitals beside the model, shape (p,), or None.

        Args:
            about: The round that begins.
        """
        del about
        return None

    def step(self, model: Floats, total: Total, about: About) -> Floats:
        """At the server: the next model.

        Args:
            model: What the round started from, shape (p,).
            total: The sum over the hospitals that count.
            about: The round.
        """
        del about
        return moved(model, mean_update(total))

    def weights(self, total: Total) -> dict[str, float]:
        """At the server: each update's share in the step; empty where only the sum is known.

        Args:
            total: The sum.
        """
        whole = total.vector.number("weight")
        return {name: each.number("weight") / whole for name, each in (total.each or {}).items()}

    def state(self) -> State:
        """The server's arrays that must survive a restart."""
        return {}

    def restore(self, state: State) -> None:
        """Take up what ``state`` gave.

        Args:
            state: By name.
        """
        del state


def mean_update(total: Total) -> Doubles:
    """The weighted mean of the updates, shape (p,)."""
    return total.vector["update"] / total.vector.number("weight")


def updates(total: Total) -> Mapping[str, Doubles]:
    """Each hospital's update, sorted by name; for strategies that need them."""
    if total.each is None:
        raise ValueError("single updates are hidden by a stage")
    return {n: total.each[n]["update"] / total.each[n].number("weight") for n in total.hospitals}


def moved(model: Floats, change: Doubles) -> Floats:
    """The model after a change, in float32."""
    return (model.astype(np.float64) + change).astype(np.float32)
