"""The DAGs' timetable, called like the scheduler does, at times that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.sdk.timezone import coerce_datetime
from airflow.timetables import trigger
from airflow.timetables.base import DataInterval, TimeRestriction
from upcoming_timetable import UpcomingCronTimetable, upcoming

STROKE, HEART = "0 3 * * 0", "0 4 1 * *"
NO_CATCHUP = TimeRestriction(earliest=None, latest=None, catchup=False)
SUNDAY, FIRST = "2026-11-22T03:00", "2026-12-01T04:00"
WEEK = {
    "2026-11-22T02:59:59": SUNDAY,
    "2026-11-22T03:00:00": SUNDAY,
    "2026-11-22T03:00:59": SUNDAY,
    "2026-11-22T03:01:00": "2026-11-29T03:00",
    "2026-11-22T10:00:00": "2026-11-29T03:00",
    "2026-11-22T19:47:00": "2026-11-29T03:00",
    "2026-11-22T19:49:00": "2026-11-29T03:00",
    "2026-11-25T12:00:00": "2026-11-29T03:00",
    "2026-11-28T23:59:59": "2026-11-29T03:00",
    "2026-11-29T02:59:59": "2026-11-29T03:00",
}
MONTH = {
    "2026-12-01T03:59:59": FIRST,
    "2026-12-01T04:00:00": FIRST,
    "2026-12-01T04:00:59": FIRST,
    "2026-12-01T04:01:00": "2027-01-01T04:00",
    "2026-12-01T20:00:00": "2027-01-01T04:00",
    "2026-12-03T12:00:00": "2027-01-01T04:00",
    "2026-12-04T12:00:00": "2027-01-01T04:00",
    "2026-12-16T00:00:00": "2027-01-01T04:00",
    "2026-12-31T23:59:59": "2027-01-01T04:00",
    "2027-01-01T03:59:59": "2027-01-01T04:00",
}
MOMENTS = [
    (cron, *pair) for cron, moments in ((STROKE, WEEK), (HEART, MONTH)) for pair in moments.items()
]
FORMER = {"none": None, "the last but one": 1, "long ago": 10}
"""Scheduled times that have passed since the last scheduled run."""


def at(text: str) -> Any:
    return coerce_datetime(datetime.fromisoformat(text).replace(tzinfo=UTC))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def set_to(text: str) -> None:
        for module in ("upcoming_timetable", "airflow.timetables.trigger"):
            monkeypatch.setattr(f"{module}.utcnow", lambda: at(text))

    return set_to


def last_run(cron: str, upcoming_time: str, missed: int | None) -> DataInterval | None:
    """The last run, after which ``missed`` times passed before the next one."""
    if missed is None:
        return None
    table = trigger.CronTriggerTimetable(cron, timezone="UTC")
    time = at(upcoming_time)
    for _ in range(missed + 1):
        time = table._get_prev(time)
    return DataInterval.exact(time)


def next_run(table: trigger.CronTriggerTimetable, last: DataInterval | None) -> Any:
    info = table.next_dagrun_info(last_automated_data_interval=last, restriction=NO_CATCHUP)
    assert info is not None
    assert info.logical_date == info.run_after
    return info.run_after


@pytest.mark.parametrize("missed", FORMER.values(), ids=FORMER)
@pytest.mark.parametrize(("cron", "now", "expected"), MOMENTS)
def test_a_time_that_has_passed_is_not_run(
    clock: Any, cron: str, now: str, expected: str, missed: int | None
) -> None:
    clock(now)
    last = last_run(cron, expected, missed)
    assert next_run(UpcomingCronTimetable(cron, timezone="UTC"), last) == at(expected)


def test_airflows_own_runs_one(clock: Any) -> None:
    table = trigger.CronTriggerTimetable(STROKE, timezone="UTC", run_immediately=timedelta(0))
    clock("2026-11-22T10:00")
    former = last_run(STROKE, SUNDAY, 1)
    why = "Airflow has come to wait for the next time itself: this module can go"
    assert next_run(table, former) == at(SUNDAY), why


@pytest.mark.parametrize("now", ["2026-11-22T03:00:20", "2026-11-25T12:00"])
def test_a_time_is_run_once(clock: Any, now: str) -> None:
    clock(now)
    table = UpcomingCronTimetable(STROKE, timezone="UTC")
    assert next_run(table, DataInterval.exact(at(SUNDAY))) == at("2026-11-29T03:00")


def test_a_dags_start_and_end_are_respected(clock: Any) -> None:
    clock("2026-11-22T10:00")
    table = UpcomingCronTimetable(STROKE, timezone="UTC")
    found = [
        table.next_dagrun_info(
            last_automated_data_interval=None,
            restriction=TimeRestriction(at("2026-12-01T00:00"), latest, catchup=False),
        )
        for latest in (None, at("2026-12-05T00:00"))
    ]
    assert [each and each.run_after for each in found] == [at("2026-12-06T03:00"), None]


def test_a_backfill_lists_past_times(clock: Any) -> None:
    clock("2026-11-22T10:00")
    info = UpcomingCronTimetable(STROKE, timezone="UTC").next_dagrun_info(
        last_automated_data_interval=None,
        restriction=TimeRestriction(at("2026-10-01T00:00"), None, catchup=True),
    )
    assert info is not None
    assert info.run_after == at("2026-10-04T03:00")


@pytest.mark.parametrize("schedule", [None, "@once"])
def test_a_schedule_without_times_is_left_to_airflow(schedule: str | None) -> None:
    assert upcoming(schedule) == schedule


def test_a_preset_is_a_cron_expression(clock: Any) -> None:
    clock("2026-11-25T00:01")
    table = upcoming("@daily")
    assert isinstance(table, UpcomingCronTimetable)
    assert next_run(table, None) == at("2026-11-26T00:00")
