from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.errors import DataError
from tasks.model.network import build, flatten
from tasks.model.training import TrainingResult, train_epochs
from tasks.study import Model

PLAIN = Model(dropout=0.0, weight_decay=0.0)


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    x = generator.normal(size=(200, 6)).astype(np.float32)
    return x, (x[:, 0] + generator.normal(size=200) > 0.5).astype(np.float32)


def train(
    data: tuple[np.ndarray, np.ndarray], model: Model = PLAIN, **changes: object
) -> tuple[np.ndarray, TrainingResult]:
    network = build(model, 6, seed=1)
    given = {"epochs": 2, "batch_size": 32, "learning_rate": 0.1, "seed": 4} | changes
    result = train_epochs(network, *data, model=model, **given)
    return flatten(network), result


def test_the_same_seed_gives_the_same_bits_whatever_the_global_state(data) -> None:
    torch.manual_seed(1)
    first, _ = train(data, Model())
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, train(data, Model())[0])
    assert not np.array_equal(first, train(data, Model(), seed=5)[0])


def test_training_lowers_the_loss(data) -> None:
    assert train(data, epochs=30)[1].loss < 0.8 * train(data, epochs=1)[1].loss


def test_one_step_is_the_gradient_with_decay_proximity_and_correction(data) -> None:
    model = Model(dropout=0.0, weight_decay=0.01)
    correction = np.random.default_rng(3).normal(size=len(flatten(build(model, 6, 1))))
    correction = correction.astype(np.float32)
    network = build(model, 6, seed=1)
    start = flatten(network)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        network(torch.from_numpy(data[0])), torch.from_numpy(data[1])
    )
    gradient = torch.autograd.grad(loss, network.flat)[0].numpy()
    weights = np.concatenate(
        [
            np.full(s, n.endswith("weight"))
            for (n, _), s in zip(network.layout, network.sizes, strict=True)
        ]
    )
    found, result = train(
        data, model, epochs=1, batch_size=200, correction=correction, proximal_mu=0.5
    )
    wanted = start - 0.1 * (gradient + 0.01 * weights * start + correction)
    assert result.steps == 1
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_two_proximal_steps_add_mu_times_the_distance_from_the_start(data) -> None:
    one, _ = train(data, steps=1, batch_size=200)
    start = flatten(build(PLAIN, 6, seed=1))
    free, _ = train(data, steps=2, batch_size=200)
    held, _ = train(data, steps=2, batch_size=200, proximal_mu=0.5)
    np.testing.assert_allclose(held, free - 0.1 * 0.5 * (one - start), atol=1e-6)


def test_momentum_adds_the_former_step(data) -> None:
    start = flatten(build(PLAIN, 6, seed=1))
    one, _ = train(data, steps=1, batch_size=200)
    free, _ = train(data, steps=2, batch_size=200)
    heavy, _ = train(data, steps=2, batch_size=200, momentum=0.9)
    np.testing.assert_allclose(heavy, free + 0.9 * (one - start), atol=1e-6)


def test_steps_bound_the_training_in_place_of_epochs(data) -> None:
    assert train(data, steps=5)[1].steps == 5
    assert train(data, steps=20)[1].steps == 20
    assert train(data, epochs=3)[1].steps == 3 * 7


def test_focal_loss_with_gamma_0_is_the_cross_entropy(data) -> None:
    focal = PLAIN.model_copy(update={"loss": "focal", "focal_gamma": 0.0})
    np.testing.assert_allclose(train(data, focal)[0], train(data)[0], atol=1e-6)


def test_balanced_weights_raise_the_predicted_risk_of_a_rare_outcome(data) -> None:
    x, y = data
    rare = y * (np.arange(200) % 4 == 0)
    balanced = PLAIN.model_copy(update={"class_weight": "balanced"})
    network, other = build(PLAIN, 6, seed=1), build(PLAIN, 6, seed=1)
    given = {"epochs": 20, "batch_size": 32, "learning_rate": 0.1, "seed": 4}
    train_epochs(network, x, rare, model=PLAIN, **given)
    train_epochs(other, x, rare, model=balanced, **given)
    with torch.no_grad():
        z = torch.from_numpy(x)
        assert torch.sigmoid(other(z)).mean() > 2 * torch.sigmoid(network(z)).mean()


def test_a_learning_rate_that_diverges_is_an_error_not_a_model_of_nan(data) -> None:
    relu = Model(activation="relu", dropout=0.0)
    with pytest.raises(DataError, match="learning rate"):
        train(data, relu, learning_rate=1e12, epochs=5)


def test_no_rows_is_an_error() -> None:
    empty = np.zeros((0, 6), np.float32), np.zeros(0, np.float32)
    with pytest.raises(DataError, match="no training rows"):
        train(empty)
