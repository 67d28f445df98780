from __future__ import annotations

import numpy as np
import pytest

from tasks.errors import DataError
from tasks.model.rows import Rows
from tasks.model.scaling import Moments, Scaler
from tasks.study import Study


def test_summed_moments_scale_as_pooled_rows_would(made_up: Rows, study: Study) -> None:
    pieces = [made_up.x[:100], made_up.x[100:450], made_up.x[450:]]
    summed = Moments.of(pieces[0]) + Moments.of(pieces[1]) + Moments.of(pieces[2])
    sent = Moments.from_array(summed.to_array())
    scaler, pooled = (
        Scaler.of(sent, study.features),
        Scaler.of(Moments.of(made_up.x), study.features),
    )
    np.testing.assert_allclose(scaler.mean, pooled.mean)
    np.testing.assert_allclose(scaler.std, pooled.std)
    np.testing.assert_allclose(scaler.mean, np.nanmean(made_up.x, axis=0))
    assert scaler.std[0] == pytest.approx(np.nanstd(made_up.x[:, 0]))


def test_missing_becomes_the_mean_and_nothing_is_nan(made_up: Rows, study: Study) -> None:
    scaler = Scaler.of(Moments.of(made_up.x), study.features)
    z = scaler.transform(made_up.x)
    assert np.isfinite(z).all()
    assert (z[np.isnan(made_up.x)] == 0).all()
    assert np.isnan(made_up.x).any()


def test_many_rows_are_scaled_as_few_are(
    made_up: Rows, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = Moments.of(made_up.x)
    scaler = Scaler.of(moments, study.features)
    z = scaler.transform(made_up.x)
    monkeypatch.setattr("tasks.model.scaling.CHUNK", 128)
    np.testing.assert_array_equal(scaler.transform(made_up.x), z)
    np.testing.assert_allclose(Moments.of(made_up.x).to_array(), moments.to_array(), rtol=1e-12)
    assert scaler.transform(made_up.x[:0]).shape == (0, len(study.features))


def test_one_rare_category_does_not_blow_up(study: Study) -> None:
    x = np.zeros((5110, len(study.features)))
    rare = next(i for i, f in enumerate(study.features) if f.name == "gender__other")
    x[0, rare] = 1
    z = Scaler.of(Moments.of(x), study.features).transform(x)
    assert abs(z[:, rare]).max() <= 5


def test_a_feature_known_nowhere_is_harmless(study: Study) -> None:
    x = np.full((10, len(study.features)), np.nan)
    scaler = Scaler.of(Moments.of(x), study.features)
    assert (scaler.std > 0).all()
    assert (scaler.transform(x) == 0).all()


def test_the_variance_survives_a_mean_of_ten_thousand_spreads(study: Study) -> None:
    x = np.random.default_rng(1).normal(10_000, 1.0, (2000, len(study.features)))
    scaler = Scaler.of(Moments.of(x), study.features)
    assert scaler.std[0] == pytest.approx(x[:, 0].std(), rel=1e-6)


@pytest.mark.parametrize("array", [np.zeros((2, 4)), np.full((3, 4), np.nan), np.zeros(12)])
def test_moments_of_another_shape_are_refused(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="moments"):
        Moments.from_array(array)
