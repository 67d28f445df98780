"""Time limits of a run and its steps, computed from the study and the settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.errors import StudyError
from tasks.run.steps import longest_chain
from tasks.settings import Settings
from tasks.study import Study, read_study

HEADROOM = 600.0
"""Seconds by which a run may lengthen its federation's deadlines, for pods that start slowly."""


def federation_limit(study: Study, settings: Settings) -> float:
    """Seconds that the step ``federated`` of a study may work.

    Args:
        study: The study as its file has it: a DAG is made before a run's overrides are known.
        settings: ``step_deadline`` is the least.
    """
    return max(settings.step_deadline, _training_time(study) + HEADROOM)


def start_limit(study: Study) -> float:
    """Seconds that a pod of a study may take to find a node and to start, before its step works."""
    return study.compute.place_within + study.compute.start_within


def run_limit(study: Study, settings: Settings) -> float:
    """Seconds that Airflow gives a whole run of a study.

    Args:
        study: The study as its file has it.
        settings: Name the launcher, and how long a step may work.
    """
    limit = 3 * settings.step_deadline + federation_limit(study, settings)
    if settings.launcher == "kubernetes":
        # A pod waits for a node and for its image before each step.
        limit += longest_chain() * start_limit(study)
    return limit


def _training_time(study: Study) -> float:
    """Seconds after which federated training has ended by its own deadlines."""
    waits = study.federation.deadlines
    return waits.ready + waits.run + 60


def check_limits(study: Study, file: Path, overrides: Sequence[str], settings: Settings) -> None:
    """Refuse overrides with which a run would need more time than its DAG gives it."""
    try:
        written = read_study(file) if overrides else study
    except StudyError:
        return  # Sound with its overrides only: it has no DAG that would end its steps.
    waits = ("federation.deadlines.ready", "federation.deadlines.run")
    limits = [(waits, _training_time(study), federation_limit(written, settings))]
    if settings.launcher == "kubernetes":
        waits = ("compute.place_within", "compute.start_within")
        limits.append((waits, start_limit(study), start_limit(written)))
    for keys, need, limit in limits:
        if need > limit:
            given = [(item.partition("=")[0].strip(), item) for item in overrides]
            named = [i for key, i in given if any(f"{k}.".startswith(f"{key}.") for k in keys)]
            raise StudyError(
                f"--set {', '.join(named)}: {' and '.join(keys)} then ask for {need:g} s, and the "
                f"study's DAG, which is made of {file} alone, gives {limit:g} s. Put them into the "
                "file, or ask for less."
            )
