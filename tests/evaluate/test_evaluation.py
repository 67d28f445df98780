"""Figures from histograms are those of the rows, and are put together rightly."""

from __future__ import annotations

import json

import numpy as np
import pytest
from small_run import make_run

from tasks.errors import DataError
from tasks.evaluate.evaluation import compare, read_scores, rounds_to
from tasks.evaluate.resampling import Resamples, interval
from tasks.evaluate.results import Comparison
from tasks.model.histogram import ScoreHistogram
from tasks.telemetry.round_event import RoundEvent


def auroc(y, score):
    """Share of pairs in the right order, by counting all of them."""
    positive, negative = score[y == 1], score[y == 0]
    difference = positive[:, None] - negative[None, :]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def pooled(small_run, key):
    x = np.concatenate([rows[0] for rows in small_run.rows.values()])
    y = np.concatenate([rows[1] for rows in small_run.rows.values()])
    return y, small_run.models[key].probability(x)


@pytest.mark.parametrize("key", ["central", "federated", "reference", "local:hospital-1"])
def test_pooled_figures_agree_with_those_of_the_rows(small_run, comparison, key):
    y, p = pooled(small_run, key)
    found = comparison.summaries()[key]
    assert found.rows == len(y)
    assert found.positives == int(y.sum())
    assert found.auroc == pytest.approx(auroc(y, p), abs=0.002)
    assert found.brier == pytest.approx(float(((p - y) ** 2).mean()), abs=1e-6)
    assert found.calibration.mean_predicted == pytest.approx(float(p.mean()), abs=1e-6)
    assert found.accuracy == pytest.approx(float(((p >= 0.12) == (y == 1)).mean()), abs=1e-6)


def test_the_within_mean_and_spread_are_those_of_the_hospitals(small_run, comparison):
    model = small_run.models["federated"]
    own = [auroc(y, model.probability(x)) for x, y in small_run.rows.values()]
    assert comparison.federated.auroc_within == pytest.approx(np.mean(own), abs=1e-6)
    assert comparison.federated.spread == pytest.approx(max(own) - min(own), abs=1e-6)


def test_local_only_scores_each_hospital_by_its_own_model(small_run, comparison):
    for name, (x, y) in small_run.rows.items():
        expected = auroc(y, small_run.models[f"local:{name}"].probability(x))
        assert comparison.local_only.per_hospital[name].auroc == pytest.approx(expected, abs=1e-6)
        assert comparison.local[name].per_hospital[name].auroc == pytest.approx(expected, abs=1e-6)


def test_intervals_hold_their_value_and_strata_add_up(comparison):
    for summary in comparison.summaries().values():
        for key in ("auroc", "auprc", "brier"):
            low, high = getattr(summary, f"{key}_ci")
            assert low < getattr(summary, key) < high
        assert sum(one.rows for one in summary.strata.values()) == summary.rows
        counts = summary.confusion.model_dump().values()
        assert sum(counts) == summary.rows
    observed = [one.observed for one in comparison.federated.strata.values()]
    assert observed == sorted(observed)


def test_a_bootstrap_interval_has_the_width_that_theory_gives():
    """DeLong et al. 1988: the standard error of an AUROC from the rows' own placements."""
    rng = np.random.default_rng(1)
    y = np.repeat([0.0, 1.0], [900, 100]).astype(np.float32)
    logit = rng.normal(0, 1, 1000) + 1.4 * y
    one = ScoreHistogram.of(y, logit, 5)
    above = logit[y == 1][:, None] > logit[y == 0][None, :]
    of_positives, of_negatives = above.mean(axis=1), above.mean(axis=0)
    se = np.sqrt(of_positives.var(ddof=1) / 100 + of_negatives.var(ddof=1) / 900)
    resamples = Resamples({"h": one}, 2000, 7)
    low, high = interval(next(iter(resamples.pooled.values())), 0.95)
    assert (high - low) / (2 * 1.96) == pytest.approx(se, rel=0.15)


def test_the_same_seed_gives_the_same_comparison(small_run, comparison):
    again = compare(small_run.context, read_scores(small_run.context))
    assert again == comparison


def test_ratio_gain_and_rounds_are_stated_honestly(comparison):
    ratio, lead = comparison.ratio, comparison.reference_difference
    assert ratio.value == pytest.approx(comparison.federated.auroc / comparison.central.auroc)
    assert lead.value == pytest.approx(comparison.federated.auroc - comparison.reference.auroc)
    for pair in (ratio, lead):
        assert pair.unpaired == []
        assert pair.ci[0] < pair.value < pair.ci[1]
    assert len(comparison.within_gain.unpaired) == 3
    gain = comparison.federated.auroc_within - comparison.local_only.auroc_within
    assert comparison.within_gain.value == pytest.approx(gain)
    # Validation AUROC .8375 in the event of round 5 is the first at 99 % of .84: made by round 4.
    assert (comparison.rounds_to_99, comparison.rounds_to_99_of) == (4, "central")
    assert (comparison.rounds, comparison.bytes_up, comparison.bytes_down) == (6, 342_000, 510_000)


def test_the_ratio_compares_what_hospitals_share_and_not_their_intercepts(tmp_path):
    plain = make_run(tmp_path, "plain")
    given = {"hospital-1": 0.9, "hospital-2": -0.7}
    shifted = make_run(tmp_path, "shifted", intercepts=given)
    found, own = (compare(one.context, read_scores(one.context)) for one in (plain, shifted))
    assert abs(own.federated.auroc - found.federated.auroc) > 0.005
    assert own.ratio.value == pytest.approx(found.ratio.value, abs=0.001)
    assert own.ratio.ci == pytest.approx(found.ratio.ci, abs=0.001)
    assert own.reference_difference.value < found.reference_difference.value - 0.005


def event(number, auroc):
    return RoundEvent(
        round=number, rounds=3, seconds=1, selected=[], replied=[], learning_rate=0.1,
        validation_auroc=auroc,
    )  # fmt: skip


def test_the_last_round_counts_although_no_event_shows_its_model():
    events = [event(1, 0.5), event(2, None), event(3, 0.8)]
    assert rounds_to(events, {"validation": {"auroc": 0.9}, "best_round": 3}, 0.9) == 3
    assert rounds_to(events, {"validation": {"auroc": 0.85}, "best_round": 3}, 0.9) is None
    assert rounds_to(events, {}, None) is None


def test_without_pooling_everything_else_is_there(tmp_path):
    small = make_run(tmp_path, "no-pooling", pooling=False)
    found = compare(small.context, read_scores(small.context))
    assert found.central is None
    assert found.ratio is None
    assert found.rounds_to_99_of == "best round"
    assert found.federated.auroc > 0.8
    assert found.local_only is not None


def test_a_local_model_that_stays_home_is_scored_there_only(tmp_path):
    small = make_run(tmp_path, "home")
    for name in small.context.plan.hospitals:
        manifest = small.run.read("score", name)
        models = manifest.figures["models"]
        for key in [k for k in models if k.startswith("local:") and k != f"local:{name}"]:
            del models[key]
        small.run.write(manifest)
    found = compare(small.context, read_scores(small.context))
    for name, summary in found.local.items():
        assert list(summary.per_hospital) == [name]
        assert summary.rows == len(small.rows[name][1])


def test_a_hospital_of_one_class_is_left_out_of_the_mean_and_not_of_the_pool(tmp_path):
    small = make_run(tmp_path, "one-class")
    manifest = small.run.read("score", "hospital-2")
    own = manifest.figures["models"]["federated"]
    counts = own["histogram"]
    both = np.add(counts["negatives"], counts["positives"])
    counts |= {"negatives": both.tolist(), "positives": [0] * len(both)}
    own |= {"positives": 0, "auroc": None, "auroc_ci": None, "observed": 0.0}
    small.run.write(manifest)
    found = compare(small.context, read_scores(small.context)).federated
    others = [found.per_hospital[name].auroc for name in ("hospital-1", "hospital-3")]
    assert found.auroc_within == pytest.approx(np.mean(others))
    assert found.auroc_within_ci[0] < found.auroc_within < found.auroc_within_ci[1]
    assert found.rows == 1500


def test_a_run_without_a_scored_federated_model_is_refused(tmp_path):
    small = make_run(tmp_path, "unscored")
    for name in small.context.plan.hospitals:
        manifest = small.run.read("score", name)
        del manifest.figures["models"]["federated"]
        small.run.write(manifest)
    with pytest.raises(DataError, match="federated"):
        read_scores(small.context)


def test_the_comparison_survives_json(comparison):
    text = json.dumps(comparison.model_dump(mode="json"), allow_nan=False)
    assert Comparison.model_validate_json(text) == comparison
