"""A cron schedule whose past times are never run.

Airflow 3.2 takes a scheduled time that has passed for the next one in two cases, also where
``catchup`` is off: a DAG without scheduled runs takes its last time for a tenth of the period after
it, and a DAG that has one takes its last missed time whenever it is switched on. Both start a run
beside the one that the user has asked for.

The module stands here and not with the DAGs: the scheduler and the API server rebuild a DAG's
timetable from the database, and the plugins' folder is on their import path, the DAGs' is not.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk.timezone import coerce_datetime, utcnow
from airflow.settings import TIMEZONE
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable

MINUTE = timedelta(minutes=1)
"""What a cron expression names: a time has passed when its minute is over."""


class UpcomingCronTimetable(CronTriggerTimetable):
    """A cron timetable whose next run is the first one that has not passed."""

    def next_dagrun_info(
        self,
        *,
        last_automated_data_interval: DataInterval | None,
        restriction: TimeRestriction,
    ) -> DagRunInfo | None:
        """Return the next run.

        The DAG processor asks every 30 s and overwrites what the scheduler has not yet started, so
        the current minute counts as not passed: else a run that is due would be lost whenever the
        DAG processor is the first.

        Args:
            last_automated_data_interval: Of the last scheduled run, if there was one.
            restriction: The DAG's start and end. With ``catchup`` the answer is Airflow's own,
                which a backfill lists past times with.

        Returns:
            The run, or none after the DAG's end.
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
    """Return a DAG's ``schedule`` for what a study says.

    Args:
        schedule: A cron expression or preset in Airflow's time zone, ``@once``, or none.
    """
    if schedule in (None, "@once"):
        return schedule
    return UpcomingCronTimetable(schedule, timezone=TIMEZONE)
