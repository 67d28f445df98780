from __future__ import annotations

import numpy as np
import pytest
from quadratics import WEIGHTS, local, optimum, trained, update

from tasks.federation.strategies import make_strategy
from tasks.federation.strategies.fedavg import FedAvg
from tasks.federation.strategies.fednova import FedNova
from tasks.federation.strategies.fedprox import FedProx
from tasks.federation.strategies.scaffold import Scaffold
from tasks.federation.strategies.strategy import weighted_mean
from tasks.study import Federation, Model

START = np.array([1.0, -1.0], np.float32)
MOVES = {"a": [2.0, 0.0], "b": [4.0, 2.0], "c": [0.0, 4.0]}


def updates(steps: dict[str, int] | None = None) -> dict[str, object]:
    return {h: update(START + np.array(MOVES[h]), (steps or {}).get(h, 5)) for h in MOVES}


def aggregate(strategy, given=None, number: int = 1, model=START):  # type: ignore[no-untyped-def]
    found = given or updates()
    return strategy.aggregate(model, found, WEIGHTS, number=number, learning_rate=0.1)


def test_scaffold_reaches_the_optimum_where_fedavg_drifts() -> None:
    best = optimum(WEIGHTS)
    drift = np.abs(trained(FedAvg()) - best).max()
    assert drift > 0.1
    np.testing.assert_allclose(trained(Scaffold(WEIGHTS)), best, atol=1e-3)


def test_scaffold_reaches_the_optimum_with_unequal_steps_too() -> None:
    steps = {"a": 20, "b": 3, "c": 7}
    model = trained(Scaffold(WEIGHTS), steps=steps, rounds=600)
    np.testing.assert_allclose(model, optimum(WEIGHTS), atol=2e-3)


def test_scaffolds_first_round_is_fedavgs() -> None:
    assert Scaffold(WEIGHTS).correction("a") is None
    np.testing.assert_array_equal(aggregate(Scaffold(WEIGHTS)).model, aggregate(FedAvg()).model)


def test_scaffolds_control_variate_is_the_mean_local_gradient() -> None:
    """Option II with c = c_i = 0: c_i+ = (x - y_i) / (K eta)."""
    strategy = Scaffold(WEIGHTS)
    aggregate(strategy)
    own = strategy.state()
    for hospital, move in MOVES.items():
        np.testing.assert_allclose(own[hospital], -np.array(move) / (5 * 0.1))
    common = sum(WEIGHTS[h] * own[h] for h in MOVES)
    np.testing.assert_allclose(strategy.correction("a"), common - own["a"], rtol=1e-6)


def test_scaffold_goes_on_after_a_restart() -> None:
    first = Scaffold(WEIGHTS)
    aggregate(first)
    second = Scaffold(WEIGHTS)
    second.restore(first.state())
    for hospital in MOVES:
        np.testing.assert_array_equal(first.correction(hospital), second.correction(hospital))


def test_fednova_is_fedavg_where_all_take_the_same_steps() -> None:
    np.testing.assert_allclose(
        aggregate(FedNova()).model, aggregate(FedAvg()).model, rtol=1e-6, atol=1e-6
    )


def test_fednova_normalises_by_steps() -> None:
    steps = {"a": 1, "b": 2, "c": 4}
    effective = sum(WEIGHTS[h] * steps[h] for h in steps)
    expected = START + effective * sum(WEIGHTS[h] * np.array(MOVES[h]) / steps[h] for h in MOVES)
    np.testing.assert_allclose(aggregate(FedNova(), updates(steps)).model, expected, rtol=1e-6)


def test_fednova_removes_the_pull_of_more_steps() -> None:
    """With small steps FedAvg's fixed point is weighted by the steps, FedNova's is not."""
    steps = {"a": 20, "b": 1, "c": 1}
    best = optimum(WEIGHTS)
    nova = np.abs(trained(FedNova(), steps=steps, rate=0.002, rounds=4000) - best).max()
    average = np.abs(trained(FedAvg(), steps=steps, rate=0.002, rounds=4000) - best).max()
    assert nova < 0.1 < average


def test_fednovas_length_with_momentum_is_the_sum_of_the_gradients_weights() -> None:
    rho, steps = 0.9, 7
    velocity, weight = np.zeros(steps), np.zeros(steps)
    for step in range(steps):
        velocity = rho * velocity + np.eye(steps)[step]
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

    def after(steps: int, mu: float) -> np.ndarray:  # type: ignore[type-arg]
        module = build(model, 2, 0)
        train_epochs(
            module, x, y, model=model, epochs=1, batch_size=8, learning_rate=rate, seed=0,
            proximal_mu=mu, steps=steps,
        )  # fmt: skip
        return flatten(module)

    start, one = after(0, 0.0), after(1, 0.0)
    plain, proximal = after(2, 0.0), after(2, mu)
    # At the start the term has no gradient; in the second step it is that of mu/2 ||w - w_0||^2.
    np.testing.assert_array_equal(one, after(1, mu))
    epsilon = 1e-3
    finite = np.array(
        [
            (
                mu / 2 * ((one + epsilon * unit - start) ** 2).sum()
                - mu / 2 * ((one - epsilon * unit - start) ** 2).sum()
            )
            / (2 * epsilon)
            for unit in np.eye(len(one))
        ]
    )
    np.testing.assert_allclose((plain - proximal) / rate, finite, atol=1e-4)
    assert FedProx().proximal_mu == 0.01


FLOWER = ["fedavgm", "fedadam", "fedyogi", "fedadagrad", "fedmedian", "fedtrimmedavg", "krum"]


def flower(name: str, **options: float):  # type: ignore[no-untyped-def]
    study = Federation.model_validate({"strategy": name, "options": options})
    return make_strategy(study, WEIGHTS)


def test_fedavgm_without_momentum_is_fedavg() -> None:
    strategy = flower("fedavgm", server_momentum=0.0)
    np.testing.assert_allclose(aggregate(strategy).model, aggregate(FedAvg()).model, rtol=1e-6)


def test_fedavgm_adds_momentum() -> None:
    strategy = flower("fedavgm", server_momentum=0.5)
    move = aggregate(FedAvg()).model - START
    np.testing.assert_allclose(aggregate(strategy).model, START + move, rtol=1e-6)
    second = aggregate(strategy, number=2).model
    np.testing.assert_allclose(second, START + 1.5 * move, rtol=1e-6)


def test_fedadagrad_is_its_closed_form() -> None:
    strategy = flower("fedadagrad", server_learning_rate=0.1, tau=0.01)
    move = (aggregate(FedAvg()).model - START).astype(np.float64)
    expected = START + 0.1 * move / (np.abs(move) + 0.01)
    np.testing.assert_allclose(aggregate(strategy).model, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_adaptive_strategies_step_towards_the_mean(name: str) -> None:
    strategy = flower(name, server_learning_rate=0.1)
    step = aggregate(strategy).model - START
    move = aggregate(FedAvg()).model - START
    assert (np.sign(step) == np.sign(move)).all()
    assert np.abs(step).max() < 2.0


def test_median_and_trimmed_mean_ignore_an_outlier() -> None:
    given = updates()
    given["c"] = update(START + 1e6)
    median = aggregate(flower("fedmedian"), given)
    np.testing.assert_allclose(median.model, START + np.array([4.0, 2.0]))
    trimmed = aggregate(flower("fedtrimmedavg", trim=0.34), given)
    np.testing.assert_allclose(trimmed.model, START + np.array([4.0, 2.0]))
    assert median.weights == pytest.approx(dict.fromkeys("abc", 1 / 3))


def test_krum_takes_one_update_and_says_whose() -> None:
    given = updates()
    given["c"] = update(START + 1e6)
    result = aggregate(flower("krum"), given)
    assert result.weights["c"] == 0
    chosen = [name for name, weight in result.weights.items() if weight == 1]
    assert len(chosen) == 1
    np.testing.assert_array_equal(result.model, given[chosen[0]].model)


@pytest.mark.parametrize("name", ["scaffold", "fedavg", "fedprox", "fednova", *FLOWER])
def test_a_strategy_goes_on_after_a_restart(name: str) -> None:
    unbroken, second = flower(name), flower(name)
    between = aggregate(unbroken).model
    second.restore(unbroken.state())
    expected = aggregate(unbroken, number=2, model=between).model
    np.testing.assert_array_equal(aggregate(second, number=2, model=between).model, expected)


def test_the_mean_does_not_depend_on_who_replied_first() -> None:
    draw = np.random.default_rng(1)
    arrays = {h: draw.normal(size=1000).astype(np.float32) * 10**i for i, h in enumerate("abc")}
    other = {h: arrays[h] for h in "cab"}
    np.testing.assert_array_equal(weighted_mean(arrays, WEIGHTS), weighted_mean(other, WEIGHTS))


def test_fedavg_is_the_weighted_mean() -> None:
    expected = START + sum(WEIGHTS[h] * np.array(MOVES[h]) for h in MOVES)
    np.testing.assert_allclose(aggregate(FedAvg()).model, expected, rtol=1e-6)


def test_a_scaffold_hospital_that_misses_rounds_does_not_move_the_optimum() -> None:
    model = trained(Scaffold(WEIGHTS), absent="c", rounds=800)
    # Every other round the mean is over two hospitals only, so a little of the drift stays.
    assert np.abs(model - optimum(WEIGHTS)).max() < 0.35
    assert local("a", START, 3, 0.1, None).steps == 3
