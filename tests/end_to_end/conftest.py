"""Whole runs, each made once and asserted many times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from whole_runs import FinishedRun, fedrisk

from tasks.run.folder import RunFolder
from tasks.run.plan import Plan, Request, make_plan
from tasks.run.step import run_step
from tasks.run.steps import STEPS
from tasks.settings import Settings


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
def run_steps(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Steps:
    """All steps of a run in this process, one after the other, without Airflow."""
    folder = tmp_path_factory.mktemp("steps")
    settings = Settings.from_environment(
        {"FEDRISK_HOME": str(folder), "FEDRISK_STUDIES": str(checkout / "dags" / "studies")}
    )

    # Nobody is left out of a round because other tests use the machine.
    patient = ["federation.deadlines.ready=600", "federation.deadlines.round=600"]

    def run(name: str, *, until: str = "evaluate", skip: tuple[str, ...] = (), **request: Any):
        asked = Request(**{"study": "stroke", "overrides": patient, **request})
        plan = make_plan(asked, name, settings)
        for step, what in STEPS.items():
            if step in skip:
                continue
            for hospital in plan.hospitals if what.each_hospital else [None]:
                run_step(step, name, settings, hospital)
            if step == until:
                break
        return plan, RunFolder(settings.runs, name)

    return run
