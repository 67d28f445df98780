from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import DataError
from tasks.model.artifact import RiskModel
from tasks.model.forward import sigmoid
from tasks.model.network import build, flatten
from tasks.model.rows import Rows
from tasks.model.scaling import Moments, Scaler
from tasks.study import Study


@pytest.fixture
def model(study: Study, made_up: Rows) -> RiskModel:
    return RiskModel(
        kind="network",
        study="stroke",
        features=tuple(feature.name for feature in study.features),
        model=study.model,
        scaler=Scaler.of(Moments.of(made_up.x), study.features),
        flat=flatten(build(study.model, len(study.features), 1, prior=0.1)),
        threshold=0.1,
        intercepts={"hospital-2": -0.5},
    )


def test_a_model_comes_back_as_it_was(model: RiskModel, made_up: Rows, tmp_path: Path) -> None:
    model.save(tmp_path / "m.safetensors")
    again = RiskModel.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.logits(made_up.x), model.logits(made_up.x))
    assert (again.threshold, again.strata, again.intercepts) == (
        model.threshold,
        model.strata,
        model.intercepts,
    )
    assert again.to_bytes() == model.to_bytes()


def test_the_hospitals_intercept_is_added_there_and_nowhere_else(
    model: RiskModel, made_up: Rows
) -> None:
    plain = model.logits(made_up.x)
    np.testing.assert_allclose(model.logits(made_up.x, "hospital-2"), plain - 0.5)
    np.testing.assert_array_equal(model.logits(made_up.x, "hospital-1"), plain)
    np.testing.assert_allclose(model.probability(made_up.x), sigmoid(plain))


def test_a_linear_predictor_is_weights_times_units(model: RiskModel, made_up: Rows) -> None:
    width = len(model.features)
    flat = np.zeros(width + 1, np.float32)
    flat[0], flat[-1] = 0.07, -7
    linear = replace(
        model, kind="logistic", flat=flat, scaler=Scaler(np.zeros(width), np.ones(width))
    )
    np.testing.assert_allclose(linear.logits(made_up.x), 0.07 * made_up.x[:, 0] - 7, atol=1e-5)


def test_every_damaged_file_is_an_error(model: RiskModel, tmp_path: Path) -> None:
    content = model.to_bytes()
    for damaged in (b"", b"abc", content[:100], content[:-8], b"\xff" * 200):
        (tmp_path / "m").write_bytes(damaged)
        with pytest.raises(DataError, match="m: not a fedrisk model"):
            RiskModel.load(tmp_path / "m")
    with pytest.raises(DataError, match="no model file"):
        RiskModel.load(tmp_path / "absent")


def test_parameters_that_do_not_fit_are_refused(model: RiskModel) -> None:
    with pytest.raises(DataError, match="parameters"):
        replace(model, flat=model.flat[:-1])
    with pytest.raises(DataError, match="finite"):
        replace(model, flat=np.full_like(model.flat, np.nan))
    with pytest.raises(DataError, match="features"):
        model.logits(np.zeros((3, 2)))
