"""The DAGs' timetable, asked as the scheduler asks it, at moments that the test sets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk.timezone import parse
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable
from upcoming_timetable import UpcomingCronTimetable, upcoming

Clock = Callable[[str, float], None]
STROKE, HEART = UpcomingCronTimetable("0 3 * * 0", timezone="UTC"), upcoming("0 4 1 * *")
SUNDAY, NEXT_SUNDAY = "2026-11-22T03:00", "2026-11-29T03:00"
NO_CATCHUP = TimeRestriction(earliest=None, latest=None, catchup=False)
HOUR = 3600
BEFORE = (-HOUR, -1, 0, 59)
"""Seconds since a scheduled time at which it is still to be run."""
AFTER = (60, HOUR, 16 * HOUR, 17 * HOUR, 73 * HOUR, 7 * 24 * HOUR - 1)
MOMENTS = [
    (table, past, seconds, past if seconds < 60 else following)
    for table, past, following in (
        (STROKE, SUNDAY, NEXT_SUNDAY),
        (HEART, "2026-12-01T04:00", "2027-01-01T04:00"),
    )
    for seconds in BEFORE + AFTER
]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    def set_to(time: str, seconds: float) -> None:
        now = parse(time) + timedelta(seconds=seconds)
        for module in ("upcoming_timetable", "airflow.timetables.trigger"):
            monkeypatch.setattr(f"{module}.utcnow", lambda: now)

    return set_to


def next_run(table: Any, last: Any = None, restriction: TimeRestriction = NO_CATCHUP) -> Any:
    interval = last and DataInterval.exact(last)
    info = table.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)
    return info and info.run_after


@pytest.mark.parametrize("missed", [None, 0, 1, 10])
@pytest.mark.parametrize(("table", "past", "seconds", "expected"), MOMENTS)
def test_a_time_that_has_passed_is_not_run(
    clock: Clock, table: Any, past: str, seconds: float, expected: str, missed: int | None
) -> None:
    clock(past, seconds)
    last = None
    if missed is not None:
        last = parse(expected)
        for _ in range(missed + 1):
            last = table._get_prev(last)
    assert next_run(table, last) == parse(expected)


def test_a_time_is_run_once(clock: Clock) -> None:
    clock(SUNDAY, 20)
    assert next_run(STROKE, parse(SUNDAY)) == parse(NEXT_SUNDAY)


@pytest.mark.parametrize("last", [None, "2026-11-15T03:00"])
def test_airflows_own_timetable_runs_it(clock: Clock, last: str | None) -> None:
    clock(SUNDAY, 7 * HOUR)
    found = next_run(CronTriggerTimetable("0 3 * * 0", timezone="UTC"), last and parse(last))
    assert found == parse(SUNDAY), "Airflow has come to wait itself: this module can go"


@pytest.mark.parametrize(
    ("start", "end", "catchup", "expected"),
    [
        ("2026-12-01", None, False, "2026-12-06T03:00"),
        ("2026-12-01", "2026-12-05", False, None),
        # A backfill lists past times.
        ("2026-10-01", None, True, "2026-10-04T03:00"),
    ],
)
def test_a_dags_start_and_end_are_kept(
    clock: Clock, start: str, end: str | None, catchup: bool, expected: str | None
) -> None:
    clock(SUNDAY, 7 * HOUR)
    found = next_run(STROKE, None, TimeRestriction(parse(start), end and parse(end), catchup))
    assert found == (expected and parse(expected))


def test_presets_have_times_too_where_they_name_one(clock: Clock) -> None:
    clock(SUNDAY, 7 * HOUR)
    assert next_run(upcoming("@daily")) == parse("2026-11-23T00:00")
    assert [upcoming(schedule) for schedule in (None, "@once")] == [None, "@once"]
