"""Shows every study file that has a fault as an import error of Airflow; makes no DAG itself.

An import error belongs to one Python file, and the DAGs of that file stop. So the faults stand
here and not in ``retrain.py``.
"""

from __future__ import annotations

from tasks.errors import StudyError
from tasks.run.known_studies import study_faults
from tasks.settings import Settings

_faults = study_faults(Settings.from_environment())
if _faults:
    raise StudyError("these study files make no DAG in Airflow:\n" + "\n".join(_faults))
