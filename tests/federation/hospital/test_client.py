"""What a hospital answers, and what it does not let out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from direct_link import hospital_of
from small_federation import small_study

from tasks.errors import DataError, NotJoined
from tasks.federation.hospital.client import Hospital, guarded
from tasks.federation.hospital.training_rows import read_training_rows
from tasks.federation.messages import Closing, ClosingTask, Refusal, Statistics, TrainTask, Update
from tasks.federation.server.round import seed_of
from tasks.federation.wire import Wire, size_of
from tasks.model.forward import parameter_count
from tasks.model.network import build, flatten
from tasks.model.scaling import Moments, Scaler

STUDY = small_study()
FEATURES = len(STUDY.features)
PARAMETERS = parameter_count(STUDY.model, FEATURES)
SCALER = Scaler(np.zeros(FEATURES), np.ones(FEATURES))


@pytest.fixture
def hospital() -> Hospital:
    return hospital_of(STUDY, "north")


def refused(wire: Wire) -> str | None:
    refusal = Refusal.decode(wire)
    return None if refusal is None else refusal.reason


def task(**changes: object) -> TrainTask:
    model = flatten(build(STUDY.model, FEATURES, 0))
    given = {
        **{"round": 1, "model": model, "correction": None, "scaler": SCALER, "seed": 5},
        **{"learning_rate": 0.01, "proximal_mu": 0.0},
        **changes,
    }
    return TrainTask(**given)  # type: ignore[arg-type]


def test_statistics_are_sums_over_training_rows(hospital: Hospital) -> None:
    found = Statistics.decode(hospital.answer("statistics", {}), FEATURES)
    assert found.rows == 180
    assert found.positives == int(hospital.rows.y.sum())
    assert found.validation_rows == 60
    np.testing.assert_allclose(found.moments.to_array(), Moments.of(hospital.rows.x).to_array())


def test_small_groups_do_not_leave_in_the_statistics(hospital: Hospital) -> None:
    names = [feature.name for feature in STUDY.features]
    age, smoker, flag = names.index("age"), names.index("smoker"), names.index("age__missing")
    hospital.rows.x[3:, age] = np.nan
    hospital.rows.x[:, smoker] = 0.0
    hospital.rows.x[:2, smoker] = 1.0
    hospital.rows.x[:, flag] = 1.0
    hospital.rows.x[:4, flag] = 0.0
    hospital.rows.y[:] = 0.0
    hospital.rows.y[:3] = 1.0
    found = Statistics.decode(hospital.answer("statistics", {}), FEATURES)
    assert found.positives == 0
    assert found.moments.to_array()[:, age].tolist() == [0.0, 0.0, 0.0]
    assert found.moments.total[smoker] == 0
    assert found.moments.total[flag] == found.moments.count[flag] == 180


def test_an_update_travels_whole(hospital: Hospital) -> None:
    wire = hospital.answer("train", task().encode())
    found = Update.decode(wire, PARAMETERS)
    assert found.rows == 180
    assert found.steps == 2 * 6
    assert not np.array_equal(found.model, task().model)
    assert found.histogram.rows == 60
    assert found.encode() == wire
    assert 4 * PARAMETERS < size_of(wire) < 4 * PARAMETERS + 12 * 60 + 100


def test_the_same_seed_gives_the_same_update_and_another_does_not(hospital: Hospital) -> None:
    one, two, other = (
        Update.decode(hospital.answer("train", task(seed=seed).encode()), PARAMETERS).model
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)


def test_a_correction_moves_the_update_against_it(hospital: Hospital) -> None:
    correction = np.full(PARAMETERS, 0.5, np.float32)
    plain, moved = (
        Update.decode(hospital.answer("train", task(correction=c).encode()), PARAMETERS)
        for c in (None, correction)
    )
    # Twelve steps of .01, each corrected by .5, give .06 less, but for what the gradients change.
    assert float(np.mean(moved.model - plain.model)) == pytest.approx(-0.06, rel=0.2)


def test_the_closing_judges_every_candidate(hospital: Hospital) -> None:
    models = np.stack([task().model, task().model + 0.01])
    found = Closing.decode(hospital.answer("close", ClosingTask(models, SCALER).encode()), 2)
    assert found.rows == 60
    assert found.losses[0] != found.losses[1]
    assert all(histogram.rows == 60 for histogram in found.histograms)


def test_no_group_in_a_histogram_is_smaller_than_the_least_count(hospital: Hospital) -> None:
    found = Update.decode(hospital.answer("train", task().encode()), PARAMETERS)
    groups = found.histogram.counts.sum(axis=0)
    assert groups[groups > 0].min() >= STUDY.evaluation.min_count


def test_an_unexpected_error_leaves_its_type_and_place_but_not_its_text() -> None:
    def fail() -> dict[str, object]:
        raise ValueError("patient 4711 has a glucose of 228.69")

    reason = refused(guarded(fail))
    assert reason is not None
    assert "ValueError at test_client.py:" in reason
    assert "4711" not in reason
    assert "228" not in reason


def test_our_own_errors_leave_with_their_text() -> None:
    def fail() -> dict[str, object]:
        raise DataError("the gold table lacks age")

    assert Refusal.decode(guarded(fail)) == Refusal("DataError: the gold table lacks age")


def test_what_may_be_there_later_may_be_asked_again() -> None:
    def fail() -> dict[str, object]:
        raise NotJoined("not yet")

    assert Refusal.decode(guarded(fail)) == Refusal("NotJoined: not yet", later=True)


def test_a_task_of_another_model_is_refused(hospital: Hospital) -> None:
    reason = refused(hospital.answer("train", task(model=np.zeros(3, np.float32)).encode()))
    assert reason is not None
    assert "field model must be" in reason


@pytest.mark.parametrize("number", [0, STUDY.federation.rounds + 1, 10**6])
def test_a_round_that_the_study_does_not_have_is_not_trained(
    hospital: Hospital, number: int
) -> None:
    reason = refused(hospital.answer("train", task(round=number).encode()))
    assert reason is not None
    assert "round" in reason


@pytest.mark.parametrize("question", ["statistics", "train", "close"])
def test_a_hospital_answers_a_run_until_it_ends(hospital: Hospital, question: str) -> None:
    ended = hospital.config.model_copy(update={"ends": datetime.now(UTC) - timedelta(seconds=1)})
    reason = refused(Hospital(ended, hospital.rows).answer(question, task().encode()))
    assert reason is not None
    assert "NotApproved: hospital north let this run use its table until" in reason


def test_an_unsound_file_of_approved_studies_is_not_quoted(
    hospital: Hospital, tmp_path: Path
) -> None:
    path = tmp_path / "approved.yaml"
    path.write_text("studies:\n  - name: heart\n  - name: heart\n")
    config = hospital.config.model_copy(update={"approved": str(path)})
    reason = refused(guarded(lambda: {"never": read_training_rows(config)}))
    assert reason is not None
    assert "approved-studies file" in reason
    assert "heart" not in reason
    assert str(tmp_path) not in reason


def test_seeds_differ_by_seed_round_and_hospital() -> None:
    seeds = [seed_of(s, n, h) for s in range(3) for n in range(3) for h in ("a", "b")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seed_of(1, 2, "a") == seed_of(1, 2, "a")
