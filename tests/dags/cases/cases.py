"""DAGs of one task each, whose pods end in every way that a pod can end (test_pods_in_cluster.py).

The run's id says how: the stand-in for fedrisk's image looks at it.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from fedrisk_airflow.step_task import step_task
from sweep import fedrisk_sweep
from tasks.settings import Settings
from tasks.study import read_study

SETTINGS = Settings.from_environment()
STUDY = read_study(SETTINGS.studies / "stroke.yaml", ["compute.profile=small"])

for _name, _step, _given in (
    ("case", "champion", {"retries": 0}),
    ("case_again", "champion", {"retries": 1, "retry_delay": timedelta(seconds=1)}),
    ("case_soft", "join", {"retries": 0, "hospital": "hospital-1", "soft": True}),
    ("case_late", "champion", {"retries": 0, "execution_timeout": timedelta(seconds=90)}),
):
    with DAG(_name, schedule=None, max_active_runs=30) as _dag:
        step_task(_step, study=STUDY, settings=SETTINGS, **_given)
    globals()[_name] = _dag

fedrisk_sweep()
