"""Whole runs, each made once and asserted many times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests_processes import processes_of

from tasks.manifest import RunFolder
from tasks.plan import Plan, Request, make_plan
from tasks.settings import Settings
from tasks.step import STEPS, run_step

RUN_DEADLINE = 900


@dataclass(frozen=True)
class FinishedRun:
    """One `fedrisk run` as a user sees it."""

    code: int
    output: str
    errors: str
    result: dict[str, Any]
    home: Path
    left_over: list[str]


def fedrisk(home: Path, *arguments: str, deadline: float = RUN_DEADLINE) -> FinishedRun:
    """Run the command fedrisk to its end."""
    process = subprocess.run(
        [sys.executable, "-m", "tasks.cli", *arguments],
        env={**os.environ, "FEDRISK_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
    )
    lines = process.stdout.strip().splitlines()
    result = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return FinishedRun(
        code=process.returncode,
        output=process.stdout,
        errors=process.stderr,
        result=result,
        home=home,
        left_over=processes_of(home),
    )


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all runs, so that databases are made once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def default_run(home: Path) -> FinishedRun:
    """`fedrisk run` as `make run` calls it: the stroke study on its synthetic cohort."""
    return fedrisk(home, "run", "--json")


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
def run_steps(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[Steps]:
    """All steps of a run in this process, one after the other, without Airflow."""
    folder = tmp_path_factory.mktemp("steps")
    settings = Settings.from_environment(
        {"FEDRISK_HOME": str(folder), "FEDRISK_STUDIES": str(checkout / "dags" / "studies")}
    )

    def run(name: str, *, until: str = "evaluate", skip: tuple[str, ...] = (), **request: Any):
        plan = make_plan(Request(**{"study": "stroke", **request}), name, settings)
        for step, what in STEPS.items():
            if step in skip:
                continue
            for hospital in plan.hospitals if what.each_hospital else [None]:
                run_step(step, name, settings, hospital)
            if step == until:
                break
        return plan, RunFolder(settings.runs, name)

    run.settings = settings  # type: ignore[attr-defined]
    return run
