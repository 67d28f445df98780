"""What Airflow has to know of fedrisk beside the DAGs."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin
from upcoming_timetable import UpcomingCronTimetable


class FedriskPlugin(AirflowPlugin):
    """Lets Airflow rebuild the DAGs' timetable from its database."""

    name = "fedrisk"
    timetables: ClassVar[list[Any]] = [UpcomingCronTimetable]
