from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tasks.errors import DataError
from tasks.model.counted import Counted, Metric
from tasks.model.forward import sigmoid
from tasks.model.histogram import BINS, ScoreHistogram, SparseHistogram
from tasks.model.metrics import Decisions


def hospitals(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Test parts of the sizes and rates of the stroke study's three hospitals."""
    generator = np.random.default_rng(seed)
    found = []
    for rows, rate in ((340, 0.09), (280, 0.02), (402, 0.04)):
        y = np.zeros(rows, np.float32)
        y[: max(1, round(rows * rate))] = 1
        mean = np.log(rate / (1 - rate)) - 0.6
        found.append((y, generator.normal(mean + 1.5 * y, 1.2)))
    return found


def test_suppressed_histograms_agree_with_rows_at_the_real_size() -> None:
    gaps, own, brier = [], [], []
    for seed in range(40):
        pieces = hospitals(seed)
        parts = [ScoreHistogram.of(y, logit, 5) for y, logit in pieces]
        summed = parts[0] + parts[1] + parts[2]
        y = np.concatenate([piece[0] for piece in pieces])
        logit = np.concatenate([piece[1] for piece in pieces])
        gaps.append(abs(summed.auroc() - roc_auc_score(y, logit)))
        brier.append(abs(summed.brier() - np.mean((sigmoid(logit) - y) ** 2)))
        own += [
            abs(part.auroc() - roc_auc_score(*piece))
            for part, piece in zip(parts, pieces, strict=True)
        ]
    assert np.quantile(gaps, 0.95) < 0.002
    assert max(gaps) < 0.003
    assert max(own) < 0.002
    assert max(brier) < 0.001
    assert np.mean(brier) < 0.0005


@pytest.mark.parametrize("rows", [1, 4, 5, 9, 11, 340])
@pytest.mark.parametrize("min_count", [2, 5, 20])
def test_no_group_below_min_count_leaves(rows: int, min_count: int) -> None:
    generator = np.random.default_rng(rows)
    y = (generator.random(rows) < 0.3).astype(np.float32)
    found = ScoreHistogram.of(y, generator.normal(-3, 2, rows), min_count)
    groups = found.counts.sum(axis=0)
    assert (groups[groups > 0] >= min_count).all()
    if rows >= min_count:
        assert (found.rows, found.positives) == (rows, y.sum())
    else:
        assert found.rows == 0


def test_without_merging_it_is_the_rows_up_to_a_cells_width() -> None:
    y, logit = hospitals(1)[0]
    found = ScoreHistogram.of(y, logit, 1)
    exact = Counted.of(y, logit)
    for metric in Metric:
        assert found.counted().value(metric) == pytest.approx(exact.value(metric), abs=0.004)
    mine, wanted = found.calibration(), exact.calibration()
    assert mine.slope == pytest.approx(wanted.slope, abs=0.01)
    assert mine.intercept == pytest.approx(wanted.intercept, abs=0.01)
    decided, rows = found.confusion(0.1), Decisions.of(y, sigmoid(logit), 0.1)
    assert abs(decided.tp - rows.tp) <= 1
    assert abs(decided.fp - rows.fp) <= 8
    assert decided.tn + decided.fp + decided.fn + decided.tp == len(y)


def test_scores_off_the_grid_are_clipped() -> None:
    found = ScoreHistogram.of(np.array([0, 1], np.float32), np.array([-500.0, 500.0]), 1)
    assert found.counts[0, 0] == 1
    assert found.counts[1, BINS - 1] == 1


def test_it_comes_back_from_a_message_and_from_json() -> None:
    found = ScoreHistogram.of(*hospitals(2)[2], 5)
    array = found.to_array()
    assert array.dtype == np.int32
    np.testing.assert_array_equal(ScoreHistogram.from_array(array.ravel()).counts, found.counts)
    text = found.sparse().model_dump_json()
    np.testing.assert_array_equal(
        SparseHistogram.model_validate_json(text).dense().counts, found.counts
    )
    empty = ScoreHistogram.empty()
    assert ScoreHistogram.from_array(empty.to_array()).rows == 0
    assert empty.sparse().dense().rows == 0


@pytest.mark.parametrize(
    "array",
    [[1, 2], [BINS, 1, 1], [-1, 1, 1], [3, -1, 0], [3, 1, 0, 3, 1, 0]],
)
def test_a_reply_that_is_no_histogram_is_refused(array: list[int]) -> None:
    with pytest.raises(DataError, match="histogram"):
        ScoreHistogram.from_array(np.array(array, dtype=np.int32))


def test_curves_begin_and_end_where_they_must() -> None:
    found = ScoreHistogram.of(*hospitals(3)[0], 5)
    roc = np.array(found.roc_points())
    assert (roc[0].tolist(), roc[-1].tolist()) == ([0, 0], [1, 1])
    assert np.trapezoid(roc[:, 1], roc[:, 0]) == pytest.approx(found.auroc())
    assert found.pr_points()[-1] == pytest.approx((1.0, found.positives / found.rows))
    points = found.calibration_points()
    assert sum(rows for _, _, rows in points) == found.rows
    assert len(points) == 10


def test_one_class_and_nobody_give_none() -> None:
    one = ScoreHistogram.of(np.zeros(10, np.float32), np.linspace(-3, 0, 10), 5)
    assert one.auroc() is None
    assert one.auprc() is None
    assert one.brier() is not None
    assert one.roc_points() == []
    nobody = ScoreHistogram.empty()
    assert nobody.brier() is None
    assert nobody.calibration() is None
