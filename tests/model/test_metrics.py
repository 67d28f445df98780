from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from tasks.model import metrics
from tasks.model.counted import Counted, Metric
from tasks.model.forward import sigmoid
from tasks.model.intercept import fit_intercept


@pytest.fixture(params=[False, True], ids=["distinct", "ties"])
def rows(request) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    logit = generator.normal(-2, 1.5, 800)
    y = (generator.random(800) < sigmoid(0.7 * logit - 0.3)).astype(np.float32)
    return y, sigmoid(np.round(logit, 1) if request.param else logit)


def counted_of(y: np.ndarray, p: np.ndarray) -> Counted:
    return Counted.of(y, metrics.log_odds(p))


def test_metrics_are_those_of_scikit_learn(rows) -> None:
    y, p = rows
    counted = counted_of(y, p)
    assert metrics.auroc(y, p) == pytest.approx(sk.roc_auc_score(y, p))
    assert counted.value(Metric.AUPRC) == pytest.approx(sk.average_precision_score(y, p))
    assert counted.value(Metric.BRIER) == pytest.approx(sk.brier_score_loss(y, p))
    assert metrics.log_loss(y, metrics.log_odds(p)) == pytest.approx(sk.log_loss(y, p))
    found = metrics.Decisions.of(y, p, 0.2)
    called = p >= 0.2
    assert [found.tn, found.fp, found.fn, found.tp] == sk.confusion_matrix(
        y, called
    ).ravel().tolist()
    assert found.accuracy == pytest.approx(sk.accuracy_score(y, called))
    assert found.precision == pytest.approx(sk.precision_score(y, called))
    assert found.recall == pytest.approx(sk.recall_score(y, called))
    assert found.f1 == pytest.approx(sk.f1_score(y, called))


def test_calibration_is_an_unpenalised_logistic_fit(rows) -> None:
    y, p = rows
    found = counted_of(y, p).calibration()
    logit = metrics.log_odds(p)
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit[:, None], y)
    assert found is not None
    assert found.slope == pytest.approx(fit.coef_[0, 0], abs=1e-4)
    # With slope 1, the shifted mean risk is the observed one.
    assert sigmoid(logit + found.intercept).mean() == pytest.approx(y.mean())
    assert (found.mean_predicted, found.observed) == pytest.approx((p.mean(), y.mean()))


def test_an_absent_class_gives_none_and_not_an_error() -> None:
    y, p = np.zeros(20, np.float32), np.linspace(0.1, 0.9, 20)
    assert metrics.auroc(y, p) is None
    counted = counted_of(y, p)
    assert counted.value(Metric.AUPRC) is None
    found = counted.calibration()
    assert found is not None
    assert found.slope is None
    assert found.observed == 0
    ranges = counted.intervals([Metric.AUROC, Metric.BRIER], 100, 0.95, seed=1)
    assert ranges[Metric.AUROC] is None
    assert ranges[Metric.BRIER] is not None


def test_perfect_separation_has_no_slope() -> None:
    y = np.repeat([0, 1], 20).astype(np.float32)
    found = counted_of(y, np.where(y > 0, 0.6, 0.4)).calibration()
    assert found is not None
    assert found.slope is None


def test_the_interval_has_the_width_of_delongs_standard_error(rows) -> None:
    y, p = rows
    found = counted_of(y, p).intervals([Metric.AUROC], 1000, 0.95, seed=1)
    low, high = found[Metric.AUROC]
    assert found == counted_of(y, p).intervals([Metric.AUROC], 1000, 0.95, seed=1)
    # DeLong et al. 1988: variance of the placements of both classes.
    sick, well = p[y == 1], p[y == 0]
    pairs = (sick[:, None] > well) + 0.5 * (sick[:, None] == well)
    error = np.sqrt(pairs.mean(1).var(ddof=1) / len(sick) + pairs.mean(0).var(ddof=1) / len(well))
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.12)
    assert low < metrics.auroc(y, p) < high


def test_the_threshold_maximises_what_it_says(rows) -> None:
    y, p = rows
    logit = metrics.log_odds(p)
    fpr, tpr, _ = sk.roc_curve(y, p)
    chosen = metrics.choose_threshold(Counted.of(y, logit), "youden")
    d = metrics.Decisions.of(y, p, chosen)
    assert d.tp / y.sum() - d.fp / (1 - y).sum() == pytest.approx((tpr - fpr).max())
    chosen = metrics.choose_threshold(Counted.of(y, logit), "f1")
    best = max(sk.f1_score(y, p >= t) for t in np.unique(p))
    assert metrics.Decisions.of(y, p, chosen).f1 == pytest.approx(best)


def test_an_intercept_repairs_the_mean_risk_and_distrusts_few_rows() -> None:
    generator = np.random.default_rng(2)
    logit = generator.normal(-2, 1, 5000)
    y = (generator.random(5000) < sigmoid(logit - 0.8)).astype(np.float32)
    assert fit_intercept(y, logit) == pytest.approx(-0.8, abs=0.1)
    assert abs(fit_intercept(np.ones(2, np.float32), np.full(2, -3.0))) < 0.6
    assert np.isfinite(fit_intercept(np.zeros(300, np.float32), np.full(300, 2.0)))
    assert fit_intercept(np.zeros(0, np.float32), np.zeros(0)) == 0
