"""A cron schedule that never runs a time that has passed.

Airflow 3.2 runs a past scheduled time in two cases, even with ``catchup`` off: a DAG without
scheduled runs runs its last time within a tenth of the period after it, and a DAG with one runs its
last missed time when it is unpaused. Both start a run in addition to the one that the user
triggered.

The module is not in the DAGs' folder, because the scheduler and the API server deserialize a DAG's
timetable, and only the plugins' folder is on their import path.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk.timezone import coerce_datetime, utcnow
from airflow.settings import TIMEZONE
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable

MINUTE = timedelta(minutes=1)
"""The resolution of cron: a time has passed when its minute is over."""


class UpcomingCronTimetable(CronTriggerTimetable):
    """A cron timetable whose next run is the first one that has not passed."""

    def next_dagrun_info(
        self,
        *,
        last_automated_data_interval: DataInterval | None,
        restriction: TimeRestriction,
    ) -> DagRunInfo | None:
        """Return the next run.

        The DAG processor calls this every 30 s and overwrites a next run that the scheduler has not
        yet started. So the current minute has not passed: otherwise a due run would be lost
        whenever the DAG processor comes first.

        Args:
            last_automated_data_interval: Interval of the last scheduled run, if there was one.
            restriction: The DAG's start and end. With ``catchup`` the result is Airflow's own, for
                a backfill of past times.

        Returns:
            The run, or None after the DAG's end.
        """
        if not restriction.catchup:
            now = coerce_datetime(utcnow()).start_of("minute")
            earliest = max(now, restriction.earliest or now)
            if last_automated_data_interval is not None:
                earliest = max(earliest, last_automated_data_interval.end + MINUTE)
            last_automated_data_interval = None
            restriction = TimeRestriction(earliest, restriction.latest, catchup=True)
        return super().next_dagrun_info(
            last_automated_data_interval=last_automated_data_interval, restriction=restriction
        )


def upcoming(schedule: str | None) -> UpcomingCronTimetable | str | None:
    """Return a DAG's ``schedule`` for a study's.

    Args:
        schedule: A cron expression or preset in Airflow's time zone, ``@once``, or none.
    """
    if schedule in (None, "@once"):
        return schedule
    return UpcomingCronTimetable(schedule, timezone=TIMEZONE)
