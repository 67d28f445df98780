"""A hospital's own intercept: how far its few rows are believed, and what small clinics gain."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.model.forward import sigmoid
from tasks.model.intercept import fit_intercept, one_step_shift, variance_between
from tasks.model.metrics import auroc

Rows = tuple[np.ndarray, np.ndarray]  # type: ignore[type-arg]
BETA = np.array([0.8, 0.5, -0.4, 0.3])
LEAST = 5


def test_the_shift_is_the_one_that_the_rows_were_drawn_with() -> None:
    generator = np.random.default_rng(2)
    logit = generator.normal(-2, 1, 5000)
    y = (generator.random(5000) < sigmoid(logit - 0.8)).astype(np.float32)
    assert fit_intercept(y, logit, 0.25) == pytest.approx(-0.8, abs=0.11)
    shift, weight = one_step_shift(y, logit + 0.1 - 0.8)
    assert shift == pytest.approx(-0.1, abs=3 / weight**0.5)


def test_few_rows_move_it_little_and_none_not_at_all() -> None:
    assert abs(fit_intercept(np.ones(2, np.float32), np.full(2, -3.0), 0.25)) < 0.6
    assert np.isfinite(fit_intercept(np.zeros(300, np.float32), np.full(300, 2.0), 0.25))
    assert fit_intercept(np.zeros(0, np.float32), np.zeros(0), 0.25) == 0
    assert fit_intercept(np.ones(9, np.float32), np.zeros(9), 0.0) == 0


def test_the_variance_between_hospitals_is_what_their_own_errors_do_not_explain() -> None:
    draw = np.random.default_rng(3)

    def estimated(between: float) -> float:
        w = draw.uniform(2, 20, 40)
        s = draw.normal(0.3, between, 40) + draw.normal(0, 1, 40) / np.sqrt(w)
        sums = [float(each.sum()) for each in (w, w * s, w * s**2, w**2)]
        return variance_between(40, *sums)

    assert np.mean([estimated(0.0) for _ in range(200)]) < 0.03
    assert np.mean([estimated(0.7) for _ in range(200)]) == pytest.approx(0.49, rel=0.1)
    assert variance_between(1, 3.0, 2.0, 4 / 3, 9.0) == variance_between(0, 0, 0, 0, 0) == 0


def _model(x: np.ndarray, y: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """A logistic model by Newton's method, as a federation of all clinics would find it."""
    x, b = np.c_[np.ones(len(x)), x], np.zeros(x.shape[1] + 1)
    for _ in range(20):
        p = sigmoid(x @ b)
        b += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + np.eye(len(b)), x.T @ (y - p) - b)
    return b


def _gain(seed: int, spread: float) -> float:
    """Pooled test AUROC of five clinics with intercepts less without: some 30 positives each."""
    draw = np.random.default_rng([seed, int(spread * 100)])
    clinics = []
    for shift in draw.normal(0, spread, 5) if spread else np.zeros(5):
        x = draw.normal(size=(int(draw.integers(150, 300)), 4))
        y = (draw.random(len(x)) < sigmoid(x @ BETA - 2.3 + shift)).astype(np.float32)
        clinics.append((x, y, draw.permutation(np.arange(len(x)) % 5)))
    b = _model(*(np.concatenate([each[part < 3] for *xy, part in clinics for each in [xy[i]]])
                 for i in (0, 1)))  # fmt: skip

    def rows(wanted: int) -> list[Rows]:
        return [(y[part == wanted], b[0] + x[part == wanted] @ b[1:]) for x, y, part in clinics]

    validation, test = rows(3), rows(4)
    known = [one_step_shift(*each) for each in validation if each[0].sum() >= LEAST]
    s, w = np.array(known).reshape(-1, 2).T
    sums = [float(each.sum()) for each in (w, w * s, w * s**2, w**2)]
    variance = variance_between(len(known), *sums)
    shifts = [fit_intercept(y, logit, variance) for y, logit in validation]
    y = np.concatenate([each[0] for each in test])
    with_shifts, without = (
        auroc(y, np.concatenate([each[1] + v for each, v in zip(test, vs, strict=True)]))
        for vs in (shifts, [0.0] * 5)
    )
    assert with_shifts is not None
    assert without is not None
    return with_shifts - without


def test_intercepts_cost_small_clinics_nothing_and_gain_where_base_rates_differ() -> None:
    """With the former fixed prior of .5, the first loses .0036."""
    gain = {s: float(np.mean([_gain(seed, s) for seed in range(50)])) for s in (0.0, 0.5, 1.0)}
    assert gain[0.0] > -0.002
    assert gain[0.5] > 0.003
    assert gain[1.0] > 0.02
