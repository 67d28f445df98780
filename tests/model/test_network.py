from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.errors import DataError
from tasks.model import forward
from tasks.model.network import build, flatten, parameter_count, unflatten
from tasks.study import Model

MODELS = [
    Model(),
    Model(activation="relu", skip=False),
    Model(embedding=3, head=(5,), dropout=0.0),
]


@pytest.mark.parametrize("model", MODELS)
def test_numpy_and_torch_give_the_same_logits(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build(model, 7, seed=3, prior=0.05).eval()
    flat = flatten(network) + np.random.default_rng(1).normal(
        0, 0.1, parameter_count(model, 7)
    ).astype(np.float32)
    unflatten(network, flat)
    z = np.random.default_rng(2).normal(size=(50, 7)).astype(np.float32)
    with torch.no_grad():
        wanted = network(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(forward.logits(model, 7, flat, z), wanted, atol=1e-5)
    monkeypatch.setattr("tasks.model.scaling.CHUNK", 3)
    np.testing.assert_allclose(forward.logits(model, 7, flat, z), wanted, atol=1e-5)


def test_the_seed_decides_the_weights_and_the_global_state_does_not() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = flatten(build(Model(), 7, seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, flatten(build(Model(), 7, seed=3)))
    assert not np.array_equal(first, flatten(build(Model(), 7, seed=4)))


def test_the_last_bias_starts_at_the_prior() -> None:
    network = build(Model(), 7, seed=3, prior=0.05)
    part = forward.split(Model(), 7, flatten(network))["head.2.bias"]
    assert forward.sigmoid(part.astype(float)) == pytest.approx(0.05, rel=1e-5)


def test_parameters_of_another_length_are_refused() -> None:
    network = build(Model(), 7, seed=3)
    with pytest.raises(DataError, match="parameters"):
        unflatten(network, np.zeros(3, dtype=np.float32))
    with pytest.raises(DataError, match="parameters"):
        forward.logits(Model(), 7, np.zeros(3, np.float32), np.zeros((1, 7), np.float32))
