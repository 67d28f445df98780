"""The Airflow plugin, which registers the DAGs' timetable."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin
from upcoming_timetable import UpcomingCronTimetable


class FedriskPlugin(AirflowPlugin):
    """Lets Airflow deserialize the DAGs' timetable."""

    name = "fedrisk"
    timetables: ClassVar[list[Any]] = [UpcomingCronTimetable]
