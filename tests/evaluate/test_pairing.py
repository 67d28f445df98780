"""Intervals of two models compared cover what they say, and no small group is released."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.evaluate.pairing import Correlation, correlation, covariance, difference, ratio
from tasks.model.histogram import ScoreHistogram

SIZES = {"a": (340, 30), "b": (280, 12), "c": (400, 25)}
"""Test patients and positives of three hospitals, about those of the stroke study."""
SHIFTS = {"a": 0.5, "b": -0.6, "c": 0.0}
HELD, OWN = 1.5, 0.25
"""How far positives lie above negatives, and the spread of what each model errs by alone."""


def drawn(rng, sizes=SIZES, own=OWN):
    """Labels and two models' scores, by hospital."""
    found = {}
    for name, (rows, positives) in sizes.items():
        y = (np.arange(rows) < positives).astype(np.float32)
        shared = SHIFTS[name] + HELD * y + rng.normal(0, 1, rows)
        found[name] = (y, *(shared + rng.normal(0, own, rows) for _ in range(2)))
    return found


def compared(hospitals, how, min_count=1, paired=True):
    """The comparison as hospitals and ``evaluate`` make it together."""
    ours, theirs = (
        {name: ScoreHistogram.of(one[0], one[k], min_count) for name, one in hospitals.items()}
        for k in (1, 2)
    )
    released = {name: correlation(*one, 5) for name, one in hospitals.items()} if paired else {}
    return how(ours, theirs, {n: one for n, one in released.items() if one}, 0.95)


def delong(hospitals):
    """DeLong's covariance of the pooled AUROCs from rows, pair by pair."""
    y, *scores = (np.concatenate(parts) for parts in zip(*hospitals.values(), strict=True))
    found = np.zeros((2, 2))
    above = [s[y == 1][:, None] > s[y == 0][None, :] for s in scores]
    for axis in (0, 1):
        placed = np.stack([a.mean(axis=axis) for a in above])
        found += np.cov(placed) / placed.shape[1]
    return found


def simulated(draws, min_count=1, paired=True, own=OWN, sizes=SIZES):
    """Share of the ratio's intervals that hold 1, which is true of two equally good models."""
    rng = np.random.default_rng(7)
    found = [compared(drawn(rng, sizes, own), ratio, min_count, paired).ci for _ in range(draws)]
    return (
        float(np.mean([low <= 1 <= high for low, high in found])),
        float(np.mean([high - low for low, high in found])),
    )


def test_a_paired_interval_covers_and_is_far_narrower_than_an_unpaired_one():
    covered, width = simulated(600)
    # Two standard errors of 600 draws are .018; rounding down makes it cover more than it says.
    assert 0.935 <= covered <= 0.99
    assert width < 0.5 * simulated(20, paired=False)[1]


def test_the_covariance_is_that_of_the_rows_but_for_the_rounding():
    hospitals = drawn(np.random.default_rng(3), dict.fromkeys(SIZES, (900, 200)), own=0.8)
    exact, found = delong(hospitals), compared(hospitals, lambda *given: covariance(*given[:3]))
    assert np.diag(found) == pytest.approx(np.diag(exact), rel=0.01)
    least = exact[0, 1] - 0.06 * np.sqrt(exact[0, 0] * exact[1, 1])
    assert least < found[0, 1] <= exact[0, 1] * 1.01


def test_a_model_and_itself_are_the_same_with_certainty():
    hospitals = {
        name: (y, one, one) for name, (y, one, _) in drawn(np.random.default_rng(1)).items()
    }
    low, high = compared(hospitals, difference, 5).ci
    assert low == pytest.approx(0, abs=1e-9)
    assert high == pytest.approx(0, abs=1e-9)


def test_a_hospital_with_too_few_of_a_label_releases_nothing_and_is_marked():
    hospitals = drawn(np.random.default_rng(2), SIZES | {"b": (280, 9)})
    found = compared(hospitals, difference)
    assert found.unpaired == ["b"]
    assert found.pairing(3) == "unpaired at b, so too wide"
    everyone = compared(hospitals, difference, paired=False)
    assert everyone.pairing(3) == "unpaired, so too wide"
    assert np.diff(found.ci) < np.diff(everyone.ci)
    y, ours, theirs = drawn(np.random.default_rng(2), {"b": (280, 10)})["b"]
    assert correlation(y, ours, theirs, 5) is not None
    assert correlation(1 - y, ours, theirs, 6) is None
    assert correlation(y, ours, np.zeros_like(theirs), 5) is None


def test_what_is_released_is_rounded_down():
    y, ours, theirs = drawn(np.random.default_rng(4), {"a": (600, 200)})["a"]
    found = correlation(y, ours, theirs, 5)
    for value, own in ((found.negatives, y == 0), (found.positives, y == 1)):
        placed = [(s[own][:, None] > s[~own][None, :]).mean(axis=1) for s in (ours, theirs)]
        exact = np.corrcoef(*placed)[0, 1]
        assert exact - 0.05 < value <= exact
        assert (value * 20) == pytest.approx(round(value * 20))
    assert correlation(y, ours, ours, 5) == Correlation(negatives=1.0, positives=1.0)
