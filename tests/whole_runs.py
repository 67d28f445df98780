"""Whole runs: by the command, and step by step in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests_processes import processes_of

from tasks.lake.session import close_session
from tasks.manifest import RunFolder
from tasks.plan import Plan, Request, make_plan
from tasks.settings import Settings
from tasks.step import STEPS, run_step

CHECKOUT = Path(__file__).parent.parent

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
def runs_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all runs, so that databases are made once."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def default_run(runs_home: Path) -> FinishedRun:
    """`fedrisk run` as `make run` calls it: the stroke study on its synthetic cohort."""
    return fedrisk(runs_home, "run", "--json")


def steps_of(
    home: Path, name: str, *, until: str = "evaluate", skip: tuple[str, ...] = (), **request: Any
) -> tuple[Plan, RunFolder]:
    """Do all steps of a run in this process, one after the other, without Airflow."""
    settings = Settings.from_environment(
        {"FEDRISK_HOME": str(home), "FEDRISK_STUDIES": str(CHECKOUT / "dags" / "studies")}
    )
    plan = make_plan(Request(**{"study": "stroke", **request}), name, settings)
    for step, what in STEPS.items():
        if step in skip:
            continue
        for hospital in plan.hospitals if what.each_hospital else [None]:
            run_step(step, name, settings, hospital)
        if step == until:
            break
    return plan, RunFolder(settings.runs, name)


def figures_of_seeds(home: Path, source: Path, seeds: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The figures of runs on a table, by seed; the process can be left after it."""
    try:
        return {
            seed: steps_of(home, f"seed-{seed}", source=str(source), seed=seed)[1]
            .read("evaluate")
            .figures
            for seed in seeds
        }
    finally:
        close_session()
