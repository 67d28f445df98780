"""Hospitals whose loss is a quadratic: every strategy's fixed point is known in closed form."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from tasks.federation.messages import FORMS, Question, Sizes
from tasks.federation.strategies import LocalTraining, Strategy
from tasks.federation.update.pipeline import Pipeline
from tasks.federation.update.stage import About, State
from tasks.federation.vector import Vector

CURVATURE = {"a": np.array([1.0, 0.2]), "b": np.array([0.1, 1.5]), "c": np.array([0.5, 0.5])}
CENTRE = {"a": np.array([4.0, -1.0]), "b": np.array([-2.0, 3.0]), "c": np.array([0.0, 1.0])}
WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}


def optimum(weights: Mapping[str, float]) -> NDArray[np.float64]:
    """Of the weighted sum of the quadratics."""
    top = sum(weights[h] * CURVATURE[h] * CENTRE[h] for h in weights)
    return np.asarray(top / sum(weights[h] * CURVATURE[h] for h in weights))


def sent(
    strategy: Strategy, local: LocalTraining, own: State | None = None
) -> tuple[Vector, State]:
    """What a hospital sends of its training, and remembers."""
    parameters = len(local.move)
    layout = FORMS[Question.TRAIN].answer.layout(
        Sizes(parameters, 1, strategy.segments(parameters))
    )
    own = own or {}
    vector = Vector.of(layout, weight=local.weight, **strategy.contribution(local, own))
    return vector, strategy.remembered(vector, own)


class Federation:
    """Plain gradient steps at each hospital, as ``train_epochs`` takes them, and the server's."""

    def __init__(
        self,
        strategy: Strategy,
        weights: Mapping[str, float] = WEIGHTS,
        curvature: Mapping[str, NDArray[np.float64]] = CURVATURE,
        centre: Mapping[str, NDArray[np.float64]] = CENTRE,
    ) -> None:
        self.strategy, self.weights = strategy, weights
        self.curvature, self.centre = curvature, centre
        self.model = np.zeros(len(next(iter(centre.values()))), np.float32)
        self.states: dict[str, State] = {}
        self.round = 0

    def run(
        self,
        rounds: int = 300,
        *,
        rate: float = 0.2,
        steps: Mapping[str, int] | None = None,
        absent: Mapping[int, Collection[str]] | None = None,
        lost: Mapping[int, Collection[str]] | None = None,
        forgetful: bool = True,
    ) -> NDArray[np.float32]:
        """The model after so many rounds; a lost answer is made and does not count.

        ``forgetful`` hospitals go back to the state of the last answer that counted.
        """
        for _ in range(rounds):
            self.round += 1
            about = About(Question.TRAIN, self.round, "", sum(self.weights.values()))
            common, answers = self.strategy.common(about), {}
            for h, weight in self.weights.items():
                if h in (absent or {}).get(self.round, ()):
                    continue
                own, count = self.states.get(h, {}), (steps or {}).get(h, 10)
                correction = self.strategy.correction(common, own)
                w = self.model.astype(np.float64)
                for _ in range(count):
                    gradient = self.curvature[h] * (w - self.centre[h])
                    w = w - rate * (gradient + (0 if correction is None else correction))
                local = LocalTraining(w - self.model, count, weight, rate, correction)
                vector, state = sent(self.strategy, local, own)
                counts = h not in (lost or {}).get(self.round, ())
                if counts:
                    answers[h] = vector
                if counts or not forgetful:
                    self.states[h] = state
            total = Pipeline([]).receive(answers, about)
            self.model = self.strategy.step(self.model, total, about)
        return self.model
