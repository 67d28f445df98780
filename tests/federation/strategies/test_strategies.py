from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pytest
from quadratics import WEIGHTS, Federation, optimum, sent

from tasks.federation.messages import Question
from tasks.federation.strategies import LocalTraining, Strategy, make_strategy
from tasks.federation.strategies.fedavg import FedAvg
from tasks.federation.strategies.fednova import FedNova
from tasks.federation.strategies.fedprox import FedProx
from tasks.federation.strategies.scaffold import Scaffold
from tasks.federation.update.pipeline import Pipeline
from tasks.federation.update.stage import About, Total
from tasks.federation.wire import Floats
from tasks.study import Federation as Study
from tasks.study import Model
from tasks.study.learning import StrategyName

START = np.array([1.0, -1.0, 0.5], np.float32)
MOVES = {"a": [2.0, 0.0, 0.1], "b": [4.0, 2.0, 0.2], "c": [0.0, 4.0, -3.0], "d": [1.0, 1.0, 1.0]}
ROWS = {"a": 500, "b": 300, "c": 150, "d": 50}


def make(name: str, **options: float) -> Strategy:
    return make_strategy(Study.model_validate({"strategy": name, "options": options}))


def total(strategy: Strategy, steps: dict[str, int] | None = None, times: float = 1.0) -> Total:
    """The hospitals' moves, times a factor."""
    answers = {}
    for h, move in MOVES.items():
        local = LocalTraining(times * np.array(move), (steps or {}).get(h, 5), ROWS[h], 0.1)
        answers[h] = sent(strategy, local)[0]
    return Pipeline([]).receive(answers, about(1))


def about(number: int) -> About:
    return About(Question.TRAIN, number, "", sum(ROWS.values()))


def step(strategy: Strategy, number: int = 1, model: Floats = START, **given: Any) -> Floats:
    return strategy.step(model, total(strategy, **given), about(number))


@dataclass(frozen=True)
class Reply:
    """What Flower's aggregation reads of a message; a real one exists only within a run."""

    content: Any

    @staticmethod
    def has_error() -> bool:
        return False


class Flower:
    """One of Flower's strategies on the same updates."""

    def __init__(self, name: str) -> None:
        from flwr.serverapp import strategy as flower

        self.strategy: Any = {
            "fedavg": flower.FedAvg,
            "fedprox": lambda: flower.FedProx(proximal_mu=0.01),
            "fedavgm": lambda: flower.FedAvgM(server_learning_rate=1.0, server_momentum=0.9),
            "fedadam": lambda: flower.FedAdam(eta=0.01, tau=1e-3, beta_1=0.9, beta_2=0.99),
            "fedyogi": lambda: flower.FedYogi(eta=0.01, tau=1e-3, beta_1=0.9, beta_2=0.99),
            "fedadagrad": lambda: flower.FedAdagrad(eta=0.01, tau=1e-3),
            "fedmedian": flower.FedMedian,
            "fedtrimmedavg": lambda: flower.FedTrimmedAvg(beta=0.3),
            "krum": lambda: flower.Krum(num_malicious_nodes=0),
        }[name]()

    def step(self, number: int, model: Floats, times: float) -> Floats:
        from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

        start = model.astype(np.float64)
        self.strategy.current_arrays = {"flat": start}
        if type(self.strategy).__name__ == "FedAvgM":
            self.strategy.current_arrays = ArrayRecord({"flat": Array(start)})
        replies = []
        for h, move in MOVES.items():
            arrays = ArrayRecord({"flat": Array(start + times * np.array(move))})
            metrics = MetricRecord({"num-examples": ROWS[h]})
            replies.append(Reply(RecordDict({"arrays": arrays, "metrics": metrics})))
        arrays, _ = self.strategy.aggregate_train(number, replies)
        return np.asarray(arrays["flat"].numpy(), np.float32)


FLOWERS = sorted({*get_args(StrategyName)} - {"scaffold", "fednova"})


@pytest.mark.parametrize("name", FLOWERS)
def test_a_strategy_takes_the_steps_of_flowers_own(name: str) -> None:
    ours, flower = make(name, **({"trim": 0.3} if name == "fedtrimmedavg" else {})), Flower(name)
    model = other = START
    for number, times in enumerate((1.0, -0.3, 0.7, 0.2), 1):
        model, other = step(ours, number, model, times=times), flower.step(number, other, times)
        np.testing.assert_allclose(model, other, rtol=1e-6, atol=1e-6)


def test_scaffold_reaches_the_optimum_where_fedavg_drifts() -> None:
    best = optimum(WEIGHTS)
    assert np.abs(Federation(FedAvg()).run() - best).max() > 0.1
    np.testing.assert_allclose(Federation(Scaffold()).run(), best, atol=1e-3)
    steps = {"a": 20, "b": 3, "c": 7}
    unequal = Federation(Scaffold()).run(600, steps=steps)
    np.testing.assert_allclose(unequal, best, atol=2e-3)


def test_scaffolds_control_variate_is_the_mean_local_gradient() -> None:
    """Option II with c = c_i = 0: c_i+ = (x - y_i) / (K eta), and c is their weighted mean."""
    strategy = Scaffold()
    assert strategy.common(about(1)) is None
    np.testing.assert_array_equal(step(strategy), step(FedAvg()))
    own = {h: -np.array(move) / (5 * 0.1) for h, move in MOVES.items()}
    common = sum(ROWS[h] * own[h] for h in MOVES) / sum(ROWS.values())
    np.testing.assert_allclose(strategy.common(about(2)), common, rtol=1e-6)
    vector, state = sent(strategy, LocalTraining(np.array(MOVES["a"]), 5, 500, 0.1))
    np.testing.assert_allclose(state["variate"], own["a"], rtol=1e-6)
    np.testing.assert_array_equal(500 * state["variate"], vector["variate"])


CLINICS = {"a": 1000.0, "b": 800.0, "c": 1200.0}
OPTIMA = {"a": np.array([0.0]), "b": np.array([1.0]), "c": np.array([10.0])}
FLAT = dict.fromkeys(CLINICS, np.array([1.0]))
LOST = {number: ["c"] for number in range(4, 40, 3)}


@pytest.mark.parametrize("lost", [{}, LOST])
def test_scaffold_keeps_a_hospital_in_the_objective_whose_answers_are_lost(lost: Any) -> None:
    """The issue's quadratics; the optimum of all three is 4.27, and .44 without the third."""
    unlike = {"a": 1.0, "b": 0.5, "c": 2.0}
    curvature = {h: np.array([unlike[h]]) for h in CLINICS}
    best = sum(CLINICS[h] * unlike[h] * OPTIMA[h] for h in CLINICS)
    best /= sum(CLINICS[h] * unlike[h] for h in CLINICS)
    model = Federation(Scaffold(), CLINICS, curvature, OPTIMA).run(200, lost=lost)
    np.testing.assert_allclose(model, best, atol=1e-3)
    if lost:
        drifted = Federation(Scaffold(), CLINICS, curvature, OPTIMA)
        assert abs(drifted.run(200, lost=lost, forgetful=False) - best).max() > 0.05


def test_a_hospital_that_comes_late_moves_scaffold_to_the_optimum_of_all() -> None:
    late = {number: ["c"] for number in range(1, 8)}
    model = Federation(Scaffold(), CLINICS, FLAT, OPTIMA).run(200, absent=late)
    np.testing.assert_allclose(model, 4.2667, atol=1e-3)


def test_fednova_normalises_by_steps() -> None:
    steps, whole = {"a": 1, "b": 2, "c": 4, "d": 8}, sum(ROWS.values())
    effective = sum(ROWS[h] * steps[h] for h in steps) / whole
    direction = sum(ROWS[h] * np.array(MOVES[h]) / steps[h] for h in MOVES) / whole
    np.testing.assert_allclose(
        step(FedNova(), steps=steps), START + effective * direction, rtol=1e-6
    )
    np.testing.assert_allclose(step(FedNova()), step(FedAvg()), rtol=1e-6)


def test_fednova_removes_the_pull_of_more_steps() -> None:
    """With small steps FedAvg's fixed point is weighted by the steps, FedNova's is not."""
    steps, best = {"a": 20, "b": 1, "c": 1}, optimum(WEIGHTS)
    nova, average = (
        np.abs(Federation(s).run(4000, steps=steps, rate=0.002) - best).max()
        for s in (FedNova(), FedAvg())
    )
    assert nova < 0.1 < average


def test_fednovas_length_with_momentum_is_the_sum_of_the_gradients_weights() -> None:
    rho, steps = 0.9, 7
    velocity, weight = np.zeros(steps), np.zeros(steps)
    for number in range(steps):
        velocity = rho * velocity + np.eye(steps)[number]
        weight += velocity
    assert FedNova(rho).length(steps) == pytest.approx(weight.sum())


def test_fedproxs_step_is_the_gradient_of_the_squared_distance() -> None:
    from tasks.model.network import build, flatten
    from tasks.model.training import train_epochs

    model = Model(embedding=3, head=(2,), dropout=0.0, weight_decay=0.0)
    draw = np.random.default_rng(0)
    x = draw.normal(size=(8, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float32)
    mu, rate = 0.5, 0.1

    def after(steps: int, mu: float) -> Floats:
        module = build(model, 2, 0)
        train_epochs(
            module, x, y, model=model, epochs=1, batch_size=8, learning_rate=rate, seed=0,
            proximal_mu=mu, steps=steps,
        )  # fmt: skip
        return flatten(module)

    start, one = after(0, 0.0), after(1, 0.0)
    # At the start the term has no gradient; in the second step it is that of mu/2 ||w - w_0||^2.
    np.testing.assert_array_equal(one, after(1, mu))
    difference = (after(2, 0.0) - after(2, mu)) / rate
    np.testing.assert_allclose(difference, mu * (one - start), atol=1e-5)
    assert FedProx().proximal_mu == 0.01


@pytest.mark.parametrize("name", get_args(StrategyName))
def test_a_strategy_goes_on_after_a_restart(name: str) -> None:
    unbroken, second = make(name), make(name)
    between = step(unbroken)
    second.restore(unbroken.state())
    np.testing.assert_array_equal(step(second, 2, between), step(unbroken, 2, between))


def test_the_sum_does_not_depend_on_who_replied_first() -> None:
    whole = total(FedAvg(), times=1 / 3)
    assert whole.each is not None
    other = Pipeline([]).receive({h: whole.each[h] for h in "dacb"}, about(1))
    np.testing.assert_array_equal(whole.vector.array, other.vector.array)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("fedavg", [0.5, 0.3, 0.15, 0.05]), ("fedmedian", [0.25] * 4), ("krum", [1.0, 0.0, 0.0, 0.0])],
)
def test_the_weights_are_the_shares_in_the_step(name: str, expected: list[float]) -> None:
    strategy = make(name)
    assert list(strategy.weights(total(strategy)).values()) == pytest.approx(expected)
