"""What a hospital answers, what it refuses, and what it does not let out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from direct_transport import hospital_of
from small_federation import small_study

from tasks.errors import DataError, NotJoined
from tasks.federation.hospital.client import Hospital, guarded, seed_of
from tasks.federation.hospital.state import HospitalState
from tasks.federation.hospital.training_rows import read_training_rows
from tasks.federation.messages import (
    FORMS,
    Answer,
    CalibrateTask,
    Calibration,
    EvaluateTask,
    Evaluation,
    Question,
    Refusal,
    Sizes,
    Statistics,
    StatisticsTask,
    Task,
    TrainTask,
    Update,
)
from tasks.federation.strategies import make_strategy
from tasks.federation.vector import Vector
from tasks.federation.wire import Wire, size_of
from tasks.model.forward import parameter_count
from tasks.model.network import build, flatten
from tasks.model.scaling import Moments, Scaler

STUDY = small_study()
FEATURES = len(STUDY.features)
PARAMETERS = parameter_count(STUDY.model, FEATURES)
MODEL = flatten(build(STUDY.model, FEATURES, 0))
SCALER = Scaler(np.zeros(FEATURES), np.ones(FEATURES))
QUESTIONS = {form.task: question for question, form in FORMS.items()}


@pytest.fixture
def hospital() -> Hospital:
    return hospital_of(STUDY, "north")


def ask(hospital: Hospital, task: Task) -> Wire:
    return hospital.answer(QUESTIONS[type(task)], task.encode())


def answer(hospital: Hospital, task: Task) -> Any:
    """The hospital's answer, read as the server reads it."""
    strategy = make_strategy(hospital.config.study.federation)
    sizes = Sizes(PARAMETERS, FEATURES, strategy.segments(PARAMETERS))
    kind: type[Answer] = FORMS[QUESTIONS[type(task)]].answer
    return kind(Vector.decode(ask(hospital, task), kind.layout(sizes)))


def refused(wire: Wire) -> str:
    refusal = Refusal.decode(wire)
    assert refusal is not None
    return refusal.reason


def task(number: int = 1, **changes: Any) -> TrainTask:
    given = {"counted": 0, "model": MODEL, "common": None, "scaler": SCALER, **changes}
    return TrainTask(round=number, **given)


def statistics(hospital: Hospital) -> Statistics:
    found: Statistics = answer(hospital, StatisticsTask(features=FEATURES))
    return found


def test_statistics_are_sums_over_training_rows(hospital: Hospital) -> None:
    found = statistics(hospital)
    assert found.vector.number("rows") == found.vector.number("labelled") == 180
    assert found.prevalence == pytest.approx(hospital.rows.y.mean())
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
    found = statistics(hospital)
    assert found.vector.number("labelled") == found.vector.number("positives") == 0
    assert found.prevalence is None
    assert found.moments.to_array()[:, age].tolist() == [0.0, 0.0, 0.0]
    assert found.moments.total[smoker] == 0
    assert found.moments.total[flag] == found.moments.count[flag] == 180


def test_an_update_travels_whole(hospital: Hospital) -> None:
    found = answer(hospital, task())
    assert isinstance(found, Update)
    assert found.vector.number("weight") == found.vector.number("rows") == 180
    assert np.abs(found.vector["update"]).max() > 0
    assert found.histogram.rows == found.vector.number("validation_rows") == 60
    wire = ask(hospital, task())
    assert found.vector.encode() == wire
    # The update and the change of SCAFFOLD's variate, four bytes a parameter each.
    assert 8 * PARAMETERS < size_of(wire) < 8 * PARAMETERS + 16 * 60 + 100


def test_another_hospital_and_another_round_train_in_another_order() -> None:
    moves = [
        answer(hospital_of(STUDY, "north"), task(number)).vector["update"] for number in (1, 1, 2)
    ]
    np.testing.assert_array_equal(moves[0], moves[1])
    assert not np.array_equal(moves[0], moves[2])


def test_a_correction_moves_the_update_against_it() -> None:
    common = np.full(PARAMETERS, 0.5, np.float32)
    study = small_study(learning_rate=0.01)
    plain, moved = (
        answer(hospital_of(study, "north"), task(common=c)).vector["update"] / 180
        for c in (None, common)
    )
    # Twelve steps of .01, each corrected by .5, give .06 less, but for what the gradients change.
    assert float(np.mean(moved - plain)) == pytest.approx(-0.06, rel=0.2)


def test_every_candidate_is_judged_and_the_result_is_calibrated(hospital: Hospital) -> None:
    found = answer(hospital, EvaluateTask(models=np.stack([MODEL, MODEL + 1]), scaler=SCALER))
    assert isinstance(found, Evaluation)
    assert found.vector.number("validation_rows") == 60
    assert found.vector.number("hospitals") == 1
    assert found.vector["losses"][0] != found.vector["losses"][1]
    result = answer(hospital, CalibrateTask(model=MODEL, scaler=SCALER, variance=0.25))
    assert isinstance(result, Calibration)
    assert result.histogram.rows == 60
    shift = result.vector.number("intercept")
    assert shift != 0
    assert shift == round(shift, 1)


def test_a_hospital_with_few_of_a_label_says_nothing_about_the_variance(hospital: Hospital) -> None:
    hospital.rows.validation_y[:] = 0.0
    hospital.rows.validation_y[:4] = 1.0
    found = answer(hospital, EvaluateTask(models=MODEL[None], scaler=SCALER)).vector
    assert found.number("hospitals") == 0
    assert not any(found[name].any() for name in Evaluation.SUMS)


def again(hospital: Hospital) -> Hospital:
    """The hospital's next process, which has read its rows again."""
    return hospital_of(hospital.config.study, "north", hospital.config.lake)


TASKS: list[Callable[..., Task]] = [
    lambda **_: StatisticsTask(features=FEATURES),
    lambda model=MODEL: task(model=model),
    lambda model=MODEL: EvaluateTask(models=model[None], scaler=SCALER),
    lambda model=MODEL: CalibrateTask(model=model, scaler=SCALER, variance=0.1),
]


@pytest.mark.parametrize("make", TASKS)
def test_the_same_question_gets_the_same_bytes_from_a_hospital_that_was_restarted(
    make: Callable[..., Task], hospital: Hospital
) -> None:
    first = ask(hospital, make())
    later = again(hospital)
    # Whatever has become of the rows: what was answered is answered.
    later.rows.x[:], later.rows.validation_x[:] = 0.0, 0.0
    assert ask(later, make()) == first
    assert list(ask(later, make())) == list(first)


@pytest.mark.parametrize("make", TASKS[1:])
def test_a_second_and_different_question_is_refused(
    make: Callable[..., Task], hospital: Hospital
) -> None:
    ask(hospital, make())
    reason = refused(ask(again(hospital), make(model=MODEL + 1)))
    assert "is answered, and the server now asks something else" in reason


def test_a_hospital_goes_on_from_its_last_answer_that_counted(hospital: Hospital) -> None:
    def variate(number: int) -> Any:
        return HospitalState(hospital.config.lake, hospital.config.state).after(number)[
            "strategy/variate"
        ]

    for number, counted in ((1, 0), (2, 1), (3, 1)):
        ask(again(hospital), task(number, counted=counted, common=np.zeros_like(MODEL)))
    found = HospitalState(hospital.config.lake, hospital.config.state).find(Question.TRAIN, 3)
    assert found is not None
    # c_i+ is sent as its change against the state of round 1, for round 2 was lost.
    sent = np.frombuffer(found.answer["variate"], np.float32) / 180
    np.testing.assert_allclose(variate(3), variate(1) + sent, rtol=1e-5, atol=1e-7)
    assert not np.allclose(variate(3), variate(2) + sent, rtol=1e-3)
    reason = refused(ask(hospital, task(3, counted=2)))
    assert "asks something else" in reason


SMALL = np.where(np.arange(FEATURES) == 0, 1e-4, 1.0)
FAR = np.where(np.arange(FEATURES) == 0, 301.0, 0.0)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (task(0), "asks for round 0"),
        (task(STUDY.federation.rounds + 1), "asks for round 4"),
        (task(2, counted=2), "rounds only go forward"),
        (task(2, counted=1), "an answer to round 1, which was not given"),
        (task(factor=0.5), "multiplies the learning rate by 0.5 in round 1"),
        (task(factor=1e9), "multiplies the learning rate"),
        (task(scaler=Scaler(SCALER.mean, SMALL)), "by a spread of 0.0001, too small"),
        (task(scaler=Scaler(FAR, SCALER.std)), "by mean 301"),
        (task(model=np.zeros(3, np.float32)), "field model must be"),
        (
            EvaluateTask(models=np.stack([MODEL] * 3), scaler=SCALER),
            "1 to 2 models are judged in a run, not 3",
        ),
        (
            CalibrateTask(model=MODEL, scaler=SCALER, variance=-1.0),
            "variance between hospitals of -1",
        ),
        (StatisticsTask(features=FEATURES + 1), "the server's study has"),
    ],
)
def test_a_task_that_the_study_does_not_allow_is_refused(
    asked: Task, reason: str, hospital: Hospital
) -> None:
    assert reason in refused(ask(hospital, asked))


def test_rounds_only_go_forward_and_the_scaling_stays(hospital: Hospital) -> None:
    ask(hospital, task(2))
    assert "back to round 1" in refused(ask(hospital, task(1)))
    other = Scaler(SCALER.mean + 0.5, SCALER.std)
    for later in (task(3, scaler=other), EvaluateTask(models=MODEL[None], scaler=other)):
        assert "another than in the first round" in refused(ask(hospital, later))


def test_the_scaling_of_the_hospitals_own_rows_is_allowed(hospital: Hospital) -> None:
    own = Scaler.of(Moments.of(hospital.rows.x), STUDY.features)
    assert "refusal" not in ask(hospital, task(scaler=own))


def test_no_group_in_a_histogram_is_smaller_than_the_least_count(hospital: Hospital) -> None:
    groups = answer(hospital, task()).histogram.counts.sum(axis=0)
    assert groups[groups > 0].min() >= STUDY.evaluation.min_count


def test_an_unexpected_error_leaves_its_type_and_place_but_not_its_text() -> None:
    def fail() -> dict[str, object]:
        raise ValueError("patient 4711 has a glucose of 228.69")

    reason = refused(guarded(fail))
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


@pytest.mark.parametrize("question", list(Question))
def test_a_hospital_answers_a_run_until_it_ends(hospital: Hospital, question: Question) -> None:
    ended = hospital.config.model_copy(update={"ends": datetime.now(UTC) - timedelta(seconds=1)})
    reason = refused(Hospital(ended, hospital.rows).answer(question, task().encode()))
    assert "NotApproved: hospital north let this run use its table until" in reason


def test_an_unsound_file_of_approved_studies_is_not_quoted(
    hospital: Hospital, tmp_path: Path
) -> None:
    path = tmp_path / "approved.yaml"
    path.write_text("studies:\n  - name: heart\n  - name: heart\n")
    config = hospital.config.model_copy(update={"approved": str(path)})
    reason = refused(guarded(lambda: {"never": read_training_rows(config)}))
    assert "approved-studies file" in reason
    assert "heart" not in reason
    assert str(tmp_path) not in reason


def test_seeds_differ_by_seed_round_and_hospital() -> None:
    seeds = [seed_of(s, n, h) for s in range(3) for n in range(3) for h in ("a", "b")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seed_of(1, 2, "a") == seed_of(1, 2, "a")
