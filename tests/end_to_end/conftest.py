"""Whole runs, each made once and asserted many times."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from whole_runs import FinishedRun, fedrisk, steps_of

from tasks.manifest import RunFolder
from tasks.plan import Plan


@pytest.fixture(scope="session")
def home(runs_home: Path) -> Path:
    """The home of all runs."""
    return runs_home


@pytest.fixture(scope="session")
def heart_run(home: Path, default_run: FinishedRun) -> FinishedRun:
    """The heart study at its four hospitals."""
    return fedrisk(home, "run", "--study", "heart", "--json")


@pytest.fixture(scope="session")
def real_run(home: Path, default_run: FinishedRun, stroke_csv: Path) -> FinishedRun:
    """The stroke study on the real table."""
    return fedrisk(home, "run", "--source", str(stroke_csv), "--seed", "1", "--json")


Steps = Callable[..., tuple[Plan, RunFolder]]


@pytest.fixture(scope="session")
def run_steps(tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """All steps of a run in this process, one after the other, without Airflow."""
    return partial(steps_of, tmp_path_factory.mktemp("steps"))
