"""Each gate passes and fails at its limit, and says by how much."""

from __future__ import annotations

import pytest
from small_run import make_run

from tasks.evaluate.evaluation import compare, read_scores
from tasks.evaluate.results import Difference
from tasks.registry.gates import failures, judge
from tasks.study import Gates

NONE = dict.fromkeys(Gates.model_fields)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    small = make_run(tmp_path_factory.mktemp("gates"), "gates")
    return compare(small.context, read_scores(small.context))


def one(found, **limit):
    (gate,) = judge(found, Gates(**{**NONE, **limit}))
    return gate


@pytest.mark.parametrize(
    ("key", "value", "low", "high"),
    [
        ("min_ratio_to_central", lambda c: c.ratio.value, 0.9, 1.1),
        ("beats_reference_by", lambda c: c.federated.auroc - c.reference.auroc, 0.0, 0.3),
    ],
)
def test_a_least_value_passes_below_and_fails_above(found, key, value, low, high):
    passed, failed = one(found, **{key: low}), one(found, **{key: high})
    assert passed.passed
    assert passed.limit == low
    assert passed.value == pytest.approx(value(found))
    assert not failed.passed
    assert f"{high - value(found):.4f} too low" in failed.detail


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_calibration_error", lambda c: c.federated.calibration.error),
        ("max_spread", lambda c: c.federated.spread),
    ],
)
def test_a_highest_value_passes_above_and_fails_below(found, key, value):
    figure = value(found)
    assert one(found, **{key: figure + 0.01}).passed
    failed = one(found, **{key: figure / 2})
    assert not failed.passed
    assert f"{figure / 2:.4f} too high" in failed.detail


def test_the_slope_must_be_inside_its_range(found):
    slope = found.federated.calibration.slope
    assert one(found, calibration_slope=(0.5, 2.0)).passed
    assert "too low" in one(found, calibration_slope=(slope + 0.1, 2.0)).detail
    assert not one(found, calibration_slope=(0.1, slope - 0.1)).passed


def test_the_value_is_judged_and_its_interval_stands_beside_it(found):
    low, high = found.ratio.ci
    gate = one(found, min_ratio_to_central=(low + found.ratio.value) / 2)
    assert gate.passed
    assert f"95% interval {low:.4f} to {high:.4f}, paired" in gate.detail
    few = found.ratio.model_copy(update={"unpaired": ["hospital-2"]})
    gate = one(found.model_copy(update={"ratio": few}), min_ratio_to_central=0.9)
    assert "unpaired at hospital-2, so too wide" in gate.detail


@pytest.mark.parametrize(("difference", "passed"), [(-0.009, True), (-0.02, False), (0.01, True)])
def test_a_champion_may_be_missed_by_the_drop_and_no_more(found, difference, passed):
    champion = {
        "champion": found.central,
        "champion_version": 3,
        "champion_difference": Difference(value=difference),
    }
    gate = one(found.model_copy(update=champion), max_drop_to_champion=0.01)
    assert gate.passed is passed
    assert gate.applicable
    assert "version 3" in gate.detail


def test_a_gate_without_its_other_model_is_marked_as_not_applicable(found):
    bare = found.model_copy(update={"central": None, "ratio": None, "reference": None})
    for key in ("min_ratio_to_central", "max_drop_to_champion", "beats_reference_by"):
        gate = one(bare, **{key: 0.5})
        assert gate.passed
        assert not gate.applicable
        assert gate.value is None


def test_an_undefined_figure_fails(found):
    federated = found.federated.model_copy(update={"spread": None})
    undefined = {"federated": federated, "ratio": None, "reference_difference": None}
    broken = found.model_copy(update=undefined)
    for key in ("min_ratio_to_central", "max_spread", "beats_reference_by"):
        gate = one(broken, **{key: 0.5})
        assert not gate.passed
        assert gate.applicable
        assert "undefined" in gate.detail


def test_failures_name_the_failed_gates_only(found):
    gates = judge(found, Gates(**{**NONE, "min_ratio_to_central": 0.5, "max_spread": 0.001}))
    assert "spread" in failures(gates)
    assert "centralized" not in failures(gates)
