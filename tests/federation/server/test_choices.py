"""Weighting, selection, schedule and stopping against what they say."""

from __future__ import annotations

import pytest

from tasks.federation.learning_rate import factor, factors
from tasks.federation.server.early_stopping import stop_reason, waited
from tasks.federation.server.selection import HospitalHistory, select
from tasks.federation.server.weighting import weigh
from tasks.study import Schedule, Selection, Weighting
from tasks.study.learning import Stop

ROWS = {"a": 700, "b": 200, "c": 100}


def test_weights_by_rows_equal_and_capped() -> None:
    assert weigh(Weighting(), ROWS) == pytest.approx({"a": 0.7, "b": 0.2, "c": 0.1})
    assert weigh(Weighting(kind="equal"), ROWS) == pytest.approx(dict.fromkeys("abc", 1 / 3))
    capped = weigh(Weighting(kind="capped", cap=0.5), ROWS)
    assert capped == pytest.approx({"a": 0.5, "b": 1 / 3, "c": 1 / 6})


@pytest.mark.parametrize("cap", [0.1, 1 / 3, 0.35, 0.4, 0.6, 1.0])
def test_capped_weights_add_up_and_keep_the_cap(cap: float) -> None:
    found = weigh(Weighting(kind="capped", cap=cap), ROWS)
    assert sum(found.values()) == pytest.approx(1)
    assert max(found.values()) <= max(cap, 1 / 3) + 1e-12
    assert found["a"] >= found["b"] >= found["c"]


def test_all_are_selected_sorted() -> None:
    assert select(Selection(), ["c", "a", "b"], HospitalHistory(), ROWS, seed=1, number=1) == [
        "a",
        "b",
        "c",
    ]


@pytest.mark.parametrize("kind", ["random", "rows", "longest_unseen", "loss"])
def test_selection_is_decided_by_seed_and_round(kind: str) -> None:
    selection = Selection(kind=kind, count=2)  # type: ignore[arg-type]
    draws, again = (
        [
            select(selection, list(ROWS), HospitalHistory(), ROWS, seed=3, number=n)
            for n in range(1, 40)
        ]
        for _ in range(2)
    )
    assert draws == again
    assert len({tuple(draw) for draw in draws}) > 1
    assert all(len(draw) == 2 and draw == sorted(draw) for draw in draws)


def test_selection_by_rows_prefers_large_hospitals() -> None:
    selection = Selection(kind="rows", count=1)
    draws = [
        select(selection, list(ROWS), HospitalHistory(), ROWS, seed=0, number=n)[0]
        for n in range(2000)
    ]
    assert draws.count("a") / 2000 == pytest.approx(0.7, abs=0.04)


def test_the_longest_unseen_and_the_highest_loss_come_first() -> None:
    seen = HospitalHistory(
        last_round={"a": 5, "b": 2, "c": 4}, last_loss={"a": 0.9, "b": 0.1, "c": 0.5}
    )
    by_wait = Selection(kind="longest_unseen", count=2)
    assert select(by_wait, list(ROWS), seen, ROWS, seed=0, number=6) == ["b", "c"]
    by_loss = Selection(kind="loss", count=2)
    assert select(by_loss, list(ROWS), seen, ROWS, seed=0, number=6) == ["a", "c"]
    del seen.last_loss["b"]
    assert "b" in select(by_loss, list(ROWS), seen, ROWS, seed=0, number=6)


def test_every_hospital_has_its_turn() -> None:
    seen, selection = HospitalHistory(), Selection(kind="longest_unseen", count=1)
    order = []
    for number in range(1, 7):
        [name] = select(selection, list(ROWS), seen, ROWS, seed=2, number=number)
        seen.last_round[name] = number
        order.append(name)
    assert sorted(order[:3]) == sorted(order[3:]) == ["a", "b", "c"]


def test_step_and_cosine_follow_their_formula() -> None:
    step = Schedule(kind="step", every=3, factor=0.1)
    assert [factor(step, n, 9) for n in (1, 3, 4, 7)] == pytest.approx([1, 1, 0.1, 0.01])
    cosine = Schedule(kind="cosine", floor=0.2)
    assert factor(cosine, 1, 11) == pytest.approx(1)
    assert factor(cosine, 6, 11) == pytest.approx(0.6)
    assert factor(cosine, 11, 11) == pytest.approx(0.2)
    assert factor(Schedule(), 5, 9) == 1


def test_plateau_cuts_after_rounds_without_improvement_down_to_its_floor() -> None:
    plateau = Schedule(kind="plateau", every=2, factor=0.5, floor=0.3)
    assert factor(plateau, 4, 9, [True, True, True]) == 1
    # A round that does not compare is no round without improvement.
    assert factor(plateau, 4, 9, [True, False, None]) == 1
    assert factor(plateau, 4, 9, [True, False, False]) == 0.5
    assert factor(plateau, 9, 9, [True, *[False] * 7]) == 0.3


@pytest.mark.parametrize("kind", ["constant", "step", "cosine", "plateau"])
def test_every_factor_of_a_schedule_is_one_that_a_hospital_allows(kind: str) -> None:
    schedule = Schedule(kind=kind, every=2, factor=0.5, floor=0.1)  # type: ignore[arg-type]
    for number in range(1, 10):
        low, high = factors(schedule, number, 9)
        assert low <= factor(schedule, number, 9, [False] * (number - 1)) <= high
        assert (low == high) == (kind != "plateau" or number < 3)


def test_training_stops_on_patience_or_on_the_last_round() -> None:
    stop = Stop(patience=2)
    assert stop_reason(stop, [True, True, False], 3, 9) is None
    assert "no better for 2" in str(stop_reason(stop, [True, False, None, False], 4, 9))
    assert "all 9" in str(stop_reason(Stop(), [False] * 9, 9, 9))
    assert stop_reason(Stop(), [False] * 8, 8, 9) is None
    assert waited([None, True]) == waited([]) == 0
