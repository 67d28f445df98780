"""A run's id."""

from __future__ import annotations

import re

_AIRFLOWS_OWN = re.compile(r"(backfill|scheduled|manual|asset_triggered|asset_materialization)__")


def run_of(airflow_run: str, study: str) -> str:
    """The id of a run, which is its folder's name, from the id that Airflow knows it by.

    Two studies of one schedule have runs of the same id in Airflow, which also knows the DAG; a
    folder has only its name. What a user has named keeps its name.

    Args:
        airflow_run: Airflow's id, or a user's.
        study: The study's name.

    Returns:
        The id, with ``-`` for what a path should not have: a colon, which Airflow's own ids have,
        is no part of a Hadoop path.
    """
    own = _AIRFLOWS_OWN.match(airflow_run) is not None
    whole = f"{study}-{airflow_run}" if own else airflow_run
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", whole).replace("..", ".")[:200]
