"""The steps of a run in this process, without Airflow."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from tasks.run.folder import RunFolder
from tasks.run.plan import Plan, Request, make_plan
from tasks.run.step import run_step
from tasks.run.steps import STEPS
from tasks.settings import Settings

Steps = Callable[..., tuple[Plan, RunFolder]]


@pytest.fixture(scope="session")
def run_steps(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Steps:
    """Do all steps of a run, one after the other."""
    folder = tmp_path_factory.mktemp("steps")
    settings = Settings.from_environment(
        {"FEDRISK_HOME": str(folder), "FEDRISK_STUDIES": str(checkout / "dags" / "studies")}
    )

    # Nobody is left out of a round because other tests use the machine.
    patient = ["federation.deadlines.ready=600", "federation.deadlines.round=600"]

    def run(name: str, *, until: str = "evaluate", only: Collection[str] = STEPS, **request: Any):
        asked = Request(**{"study": "stroke", "overrides": patient, **request})
        plan = make_plan(asked, name, settings)
        for step, what in STEPS.items():
            for hospital in plan.hospitals if what.each_hospital else [None]:
                if step in only:
                    run_step(step, name, settings, hospital)
            if step == until:
                break
        return plan, RunFolder(settings.runs, name)

    return run
