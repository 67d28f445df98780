from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tasks.model.forward import sigmoid
from tasks.model.scores import Scores, score
from tasks.study import Evaluation, Strata

EVALUATION = Evaluation(bootstrap=200)


def scored(y: np.ndarray, logit: np.ndarray, threshold: float = 0.1) -> Scores:
    return score(
        y.astype(np.float32),
        sigmoid(logit),
        threshold=threshold,
        strata=Strata(),
        evaluation=EVALUATION,
        seed=1,
    )


@pytest.fixture
def rows() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    logit = generator.normal(-2.5, 1.2, 340)
    return (generator.random(340) < sigmoid(logit)).astype(float), logit


def test_figures_are_of_the_rows_and_come_back_from_json(rows) -> None:
    found = scored(*rows)
    assert found.auroc == pytest.approx(roc_auc_score(*rows))
    assert found.auroc_ci[0] < found.auroc < found.auroc_ci[1]
    assert found.observed == pytest.approx(rows[0].mean())
    assert sum(s.rows for s in found.strata.values()) == 340
    assert found.strata["Low"].observed < found.strata["High"].observed
    assert Scores.model_validate_json(found.model_dump_json()) == found
    assert found.histogram.dense().auroc() == pytest.approx(found.auroc, abs=0.002)


def test_small_counts_stay_at_the_hospital() -> None:
    y, logit = np.zeros(60), np.full(60, -5.0)
    y[:3], logit[:2], logit[10] = 1, 0.0, 0.5
    found = scored(y, logit)
    assert (found.confusion.tn, found.confusion.fp) == (56, None)
    assert (found.confusion.fn, found.confusion.tp) == (None, None)
    assert found.strata["High"].rows is None
    assert found.strata["High"].observed is None
    assert found.strata["Medium"].rows == 0
    assert found.strata["Low"].rows == 57
    counts = found.histogram.dense().counts.sum(axis=0)
    assert counts[counts > 0].min() >= EVALUATION.min_count


def test_a_hospital_of_one_class_has_what_can_be_known() -> None:
    found = scored(np.zeros(50), np.linspace(-4, -1, 50))
    assert found.auroc is found.auprc is found.recall is found.calibration_slope is None
    assert found.brier is not None
    assert found.observed == 0
    assert 0 < found.mean_predicted < 0.3


def test_the_same_seed_gives_the_same_intervals(rows) -> None:
    assert scored(*rows) == scored(*rows)
